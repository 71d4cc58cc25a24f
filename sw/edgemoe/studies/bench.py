"""The accelerator's part of ``edgemoe bench``: models on configurations, one inference each on the RTL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgemoe.bundle import Bundle, Task
from edgemoe.compiler import CompilerOptions, build_bundle
from edgemoe.errors import DeviceError
from edgemoe.reports.cycles import Inference, build_report
from edgemoe.reports.tables import TextTable
from edgemoe.runtime.verify import open_verified
from edgemoe.studies.break_even import break_even_mhz, expert_numbers
from edgemoe_hw.spec.config import AcceleratorConfig
from edgemoe_hw.spec.isa import Base, Load, decode_program
from edgemoe_models.datasets import scenes
from edgemoe_models.graph.integer_graph import IntegerGraph
from edgemoe_models.integer import reference

__all__ = ["CONFIGURATIONS", "MODELS", "bench_row", "bench_table", "reloaded_bytes"]

MODELS = ("m3vit-micro", "m3vit-tiny", "deit-tiny")
CONFIGURATIONS = ("pynq-z2", "zcu102")

_FIGURES = (
    "cycles",
    "macs",
    "mac_utilisation",
    "roofline_efficiency",
    "ideal_efficiency",
    "bound_cycles",
    "ideal_cycles",
    "dram_bytes_read",
    "dram_bytes_written",
    "dram_lower_bound_bytes",
    "wasted_bytes",
    "dram_gb_per_second",
    "dram_model",
    "assumed_clock_mhz",
    "config_hash",
)


def reloaded_bytes(config: AcceleratorConfig, task: Task) -> int:
    """Bytes of weights and parameters that a program's unconditional LOADs fetch more than once."""
    ranges: dict[int, list[tuple[int, int]]] = {}
    total = 0
    for header, p in decode_program(task.program):
        if not isinstance(p, Load) or p.base != Base.WEIGHTS or header.predicated:
            continue
        name = p.memory.name
        size = config.row_bytes[name] // config.load_masters(name)
        for master in range(config.load_masters(name)):
            start = p.offset + master * p.plane_stride
            ranges.setdefault(master, []).append((start, start + p.rows * size))
            total += p.rows * size
    unique = 0
    for parts in ranges.values():
        end = 0
        for start, stop in sorted(parts):
            unique += max(stop - max(start, end), 0)
            end = max(end, stop)
    return total - unique


def bench_row(
    graph: IntegerGraph,
    config: AcceleratorConfig,
    options: CompilerOptions | None = None,
    dram_model: str = "plain",
) -> dict[str, Any]:
    """One scene and the first task on the RTL: cycles, and what they come to at the *assumed* clock and DRAM.

    Raises:
        DeviceError: the outputs differ from the reference
    """
    bundle = build_bundle(graph, config, options)
    model, task = bundle.model, bundle.model.tasks[0].name
    seed = scenes.SPLITS["demo"].start
    image = scenes.generate_scene(seed, model.image_height, model.image_width).image
    with open_verified(bundle, dram_model=dram_model) as verifier:
        result = verifier.run(image, task)
    if (result.outputs != reference.run(graph, image, task)).any():
        raise DeviceError(f"{model.name} on {config.name} differs from the integer reference")
    return _row(bundle, task, seed, result.stats, dram_model)


def _row(bundle: Bundle, task: str, seed: int, stats: dict[str, Any], dram_model: str) -> dict[str, Any]:
    report = build_report(bundle, [Inference(task, f"demo-{seed}", stats)], {}, dram_model=dram_model)
    size = report["dram_bytes_read"] + report["dram_bytes_written"]
    return {
        "source": "simulated",
        "model": bundle.model.name,
        "config": bundle.config.name,
        "task": task,
        "scene": seed,
        "expert_bits": bundle.graph().expert_bits if bundle.model.num_experts else None,
        **{name: report[name] for name in _FIGURES},
        "ms": report["assumed_latency_ms"],
        "break_even_mhz": break_even_mhz(report["cycles"], bundle.model.name),
        "dram_bytes": size,
        "dram_ratio": size / report["dram_lower_bound_bytes"],
        "reloaded_bytes": reloaded_bytes(bundle.config, bundle.task(task)),
        "seconds": report["sim_seconds"],
        "sim_cycles_per_second": report["sim_cycles_per_second"],
    }


def bench_table(rows: Sequence[dict[str, Any]]) -> TextTable:
    """The simulated rows."""
    view = TextTable(
        "Cycles of the RTL; ms at an ASSUMED clock",
        ["model", "experts", "config", ">cycles", ">ms", ">bound", ">ideal", ">MACs", ">DRAM", ">again"],
        caption="bound, ideal: least cycles / cycles, phase by phase, or of the whole\n"
        "DRAM: bytes / least bytes; again: MB of weights fetched again",
        gap=1,
    )
    for row in rows:
        if row["source"] == "simulated":
            view.add(
                row["model"],
                expert_numbers(row),
                row["config"],
                f"{row['cycles']:,}",
                f"{row['ms']:.2f}",
                f"{row['roofline_efficiency']:.3f}",
                f"{row['ideal_efficiency']:.3f}",
                f"{row['mac_utilisation']:.1%}",
                f"{row['dram_ratio']:.3f}",
                f"{row['reloaded_bytes'] / 1e6:.1f}",
            )
    return view
