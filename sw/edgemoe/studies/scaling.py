"""``make scaling``: cycles against the size of model, hardware and frame, and where each technique starts to pay.

Cycles are the compiler's estimate, of a graph of zeros: it depends on shapes alone, as every gate is taken to be
balanced. At some points of each axis the RTL says how far that is off (``scaling_rtl``).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgemoe.bundle import Joined, Phase
from edgemoe.compiler import CompilerOptions, compile_graph
from edgemoe.compiler.bound import phase_bounds
from edgemoe.compiler.fits import zeros_graph
from edgemoe.compiler.program import Program
from edgemoe.studies.scaling_points import AXES, BASE, Point, hardware, model_of
from edgemoe_hw.spec.config import AcceleratorConfig
from edgemoe_models.config import ModelConfig

__all__ = [
    "COMPARISONS",
    "PAYS",
    "Comparison",
    "Estimate",
    "axis_rows",
    "estimate",
    "estimate_point",
    "pays",
    "technique_rows",
]

#: From which share of saved cycles on a technique is said to pay.
PAYS = 0.01


@dataclass(frozen=True)
class Estimate:
    """A point's cycles, by the compiler.

    Attributes:
        cycles: of the point's program
        apart: of one program a task and image, one after the other
        array: cycles that the array needs if it never waits
        memory: cycles that the DRAM needs if it never waits; every expert is fetched
    """

    cycles: int
    apart: int
    array: int
    memory: int

    @property
    def ideal(self) -> int:
        """Cycles below which no program is."""
        return max(self.array, self.memory)

    @property
    def limit(self) -> str:
        """What cannot be faster: ``array`` or ``memory``."""
        return "array" if self.array >= self.memory else "memory"


@functools.cache
def estimate_point(point: Point) -> Estimate:
    """A point's cycles, estimated; raises as ``estimate``."""
    return estimate(model_of(point), hardware(point), point.options, point.joined, point.expert_bits)


def estimate(
    model: ModelConfig, config: AcceleratorConfig, options: CompilerOptions, joined: Joined, expert_bits: int = 8
) -> Estimate:
    """Cycles of the program of these tasks and images, estimated.

    Raises:
        CompileError: it cannot be compiled
    """
    several = len(joined.sequences) > 1
    compiled = compile_graph(zeros_graph(model, expert_bits), config, options, joint=[joined] if several else [])
    alone = [compiled.programs[task] for task in joined.tasks]
    program = compiled.joint[0] if several else alone[0]
    phases = _phases(program)
    used = {phase.name: model.num_experts for phase in phases if phase.expert_bytes}
    bounds = phase_bounds(config, phases, len(joined.sequences) * model.num_tokens * model.top_k, used)
    return Estimate(
        program.estimated_cycles,
        joined.images * sum(each.estimated_cycles for each in alone),
        round(sum(bound.macs for bound in bounds) / config.macs_per_cycle),
        round(sum(bound.bytes for bound in bounds) / config.dram_bytes_per_cycle),
    )


def _phases(program: Program) -> list[Phase]:
    """As a bundle has them, without what only a bundle needs."""
    return [
        Phase(**{**vars(phase), "prefetched": tuple(phase.prefetched)}, matmuls=0, estimated_cycles=0)
        for phase in program.lowered.builder.phases
    ]


def axis_rows(progress: Callable[[str], None] = lambda text: None) -> Iterator[dict[str, Any]]:
    """A row for each value of each axis, everything else as the base has it."""
    for axis, values in AXES.items():
        for value in values:
            point = BASE.but(**{axis: value})
            found = estimate_point(point)
            yield {
                "axis": axis,
                "value": value,
                "cycles": found.cycles,
                "array_cycles": found.array,
                "memory_cycles": found.memory,
                "ideal_cycles": found.ideal,
                "limit": found.limit,
                "efficiency": round(found.ideal / found.cycles, 4),
                "config_hash": hardware(point).content_hash,
            }
        progress(axis)


# --- Techniques ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Comparison:
    """Cycles with a technique against those without it, along an axis.

    Attributes:
        name: the technique
        axis: field of ``Point`` that varies
        values: its values
        using: what a point with the technique has
        without: what a point without it has; None: the same tasks and images, a program each
    """

    name: str
    axis: str
    values: Sequence[int]
    using: Mapping[str, Any]
    without: Mapping[str, Any] | None

    def ratio(self, value: int) -> float:
        """Cycles with the technique over those without it."""
        base = BASE.but(**{self.axis: value})
        found = estimate_point(base.but(**self.using))
        if self.without is None:
            return found.cycles / found.apart
        return found.cycles / estimate_point(base.but(**self.without)).cycles


_OFF = {"expert_prefetch": "off"}
_NAIVE_ATTENTION = {"attention_group": 8}

#: What docs/scaling.md has, in its order.
COMPARISONS = (
    Comparison("expert prefetch", "bandwidth", AXES["bandwidth"], {}, _OFF),
    Comparison("expert prefetch", "experts", AXES["experts"], {}, _OFF),
    Comparison("int4 experts", "bandwidth", AXES["bandwidth"], {"expert_bits": 4}, {}),
    Comparison("int4 experts", "experts", AXES["experts"], {"expert_bits": 4}, {}),
    Comparison("4 tasks in one program", "bandwidth", AXES["bandwidth"], {"tasks": 4}, None),
    Comparison("tasks in one program", "tasks", AXES["tasks"], {}, None),
    Comparison("4 images in one program", "bandwidth", AXES["bandwidth"], {"images": 4}, None),
    Comparison("images in one program", "images", AXES["images"], {}, None),
    Comparison("stationary keys and values", "bandwidth", AXES["bandwidth"], {}, _NAIVE_ATTENTION),
    Comparison("stationary keys and values", "tokens", AXES["tokens"][:3], {}, _NAIVE_ATTENTION),
    Comparison("2 ports of 8 bytes for 1", "bandwidth", AXES["bandwidth"], {"ports": 16}, {"ports": 8}),
    Comparison("4 ports of 16 bytes for 1 of 8", "bandwidth", AXES["bandwidth"], {}, {"ports": 8}),
)


def technique_rows(
    comparisons: Sequence[Comparison] = COMPARISONS, progress: Callable[[str], None] = lambda text: None
) -> Iterator[dict[str, Any]]:
    """A row for each technique and axis: the ratios of cycles, and where it pays."""
    for comparison in comparisons:
        ratios = [round(comparison.ratio(value), 4) for value in comparison.values]
        yield {
            "technique": comparison.name,
            "axis": comparison.axis,
            "values": list(comparison.values),
            "ratios": ratios,
            "pays": [value for value, ratio in zip(comparison.values, ratios, strict=True) if ratio <= 1 - PAYS],
        }
        progress(f"{comparison.name} against {comparison.axis}")


def pays(row: Mapping[str, Any]) -> str:
    """Where a technique's row pays, in words."""
    values, paying = row["values"], row["pays"]
    if not paying:
        return "nowhere"
    if paying == values:
        return "everywhere"
    if paying == values[-len(paying) :]:
        return f"from {paying[0]} on"
    if paying == values[: len(paying)]:
        return f"up to {paying[-1]}"
    return ", ".join(map(str, paying))
