"""Points of ``make scaling`` on the RTL: how far the compiler's estimate is off."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from edgemoe.bundle import Joined
from edgemoe.compiler import CompilerOptions, build_bundle
from edgemoe.runtime.verify import open_verified
from edgemoe.studies.scaling import estimate_point
from edgemoe.studies.scaling_graph import balanced_graph, random_pictures
from edgemoe.studies.scaling_points import BASE, Point, hardware, model_of
from edgemoe_hw.spec.config import AcceleratorConfig
from edgemoe_models.config import ModelConfig
from edgemoe_models.integer import reference

__all__ = ["RTL_BASE", "RTL_POINTS", "changes", "rtl_cycles", "rtl_row", "rtl_rows", "worst_error"]


#: Where the RTL is asked: half as deep a model, on presets, whose simulators most have built.
RTL_BASE = BASE.but(depth=2, preset="pynq-z2")
_TINY = {"macs": 64, "preset": "tiny", "bandwidth": 8, "tokens": 65}

#: The points that the RTL runs; four sequences of 129 tokens are more than ``pynq-z2`` holds.
RTL_POINTS = tuple(
    RTL_BASE.but(**changed)
    for changed in (
        {},
        {"bandwidth": 4},
        {"bandwidth": 8},
        {"experts": 1},
        {"experts": 4},
        {"tokens": 65},
        {"tasks": 2},
        {"images": 2},
        _TINY,
        {"expert_prefetch": "off"},
        {"expert_bits": 4, "bandwidth": 8},
        {"attention_group": 8},
        {"tokens": 257},
        {"tokens": 65, "tasks": 4},
        {"tokens": 65, "images": 4},
    )
)


def changes(point: Point) -> dict[str, Any]:
    """What a point has other than ``RTL_BASE``."""
    return {name: value for name, value in vars(point).items() if value != getattr(RTL_BASE, name)}


def rtl_cycles(
    model: ModelConfig, config: AcceleratorConfig, options: CompilerOptions, joined: Joined, expert_bits: int = 8
) -> tuple[int, bool]:
    """Cycles of a program on the RTL, and whether all outputs are the integer reference's.

    The graph is random, its gates balanced for the pictures that it gets.

    Raises:
        CompileError: it cannot be compiled
        DeviceError: the simulation cannot be built, or failed
    """
    pictures = random_pictures(model, joined.images)
    graph = balanced_graph(model, pictures, expert_bits)
    several = len(joined.sequences) > 1
    bundle = build_bundle(graph, config, options, joint=[joined] if several else [])
    with open_verified(bundle) as verifier:
        run = verifier.run_joint(list(pictures), joined)
    exact = all(
        bool((found == reference.run(graph, pictures[image], task)).all())
        for found, (image, task) in zip(run.outputs, joined.sequences, strict=True)
    )
    return run.stats["cycles"], exact


def rtl_row(point: Point) -> dict[str, Any]:
    """A point's cycles on the RTL beside the estimate; raises as ``rtl_cycles``."""
    config = hardware(point)
    cycles, exact = rtl_cycles(model_of(point), config, point.options, point.joined, point.expert_bits)
    estimate = estimate_point(point).cycles
    return {
        "changes": changes(point),
        "config": config.name,
        "bandwidth": point.bandwidth,
        "config_hash": config.content_hash,
        "cycles": cycles,
        "estimate": estimate,
        "error": round(estimate / cycles - 1, 5),
        "bit_exact": exact,
    }


def rtl_rows(points: Sequence[Point] = RTL_POINTS) -> Iterator[dict[str, Any]]:
    """A row for each point."""
    return map(rtl_row, points)


def worst_error(rows: Sequence[Mapping[str, Any]]) -> float:
    """The largest relative error of the estimate, without its sign."""
    return max(abs(float(row["error"])) for row in rows)
