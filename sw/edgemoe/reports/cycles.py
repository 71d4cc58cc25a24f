"""Figures of simulated inferences: the report's JSON and the table on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgemoe.bundle import Bundle
from edgemoe.compiler.bound import Bound, phase_bounds, total_bound, wasted_bytes
from edgemoe.reports.tables import TextTable, short_name
from edgemoe.runtime.predictions import ClassScore

__all__ = ["Inference", "build_report", "summary", "table"]


@dataclass(frozen=True)
class Inference:
    """One simulated inference: its task and the simulated device's ``stats``; the best ``classes`` of a picture."""

    task: str
    image: str
    stats: dict[str, Any]
    classes: Sequence[ClassScore] = ()


def _bounds(bundle: Bundle, run: Inference) -> list[Bound]:
    model = bundle.model
    return phase_bounds(
        bundle.config, bundle.task(run.task).phases, model.num_tokens * model.top_k, run.stats["experts_used"]
    )


def _totals(bundle: Bundle, run: Inference) -> dict[str, float]:
    """One inference's figures."""
    bounds = _bounds(bundle, run)
    bound, ideal = total_bound(bundle.config, bounds)
    backbone = [b for b in bounds if b.name != "head"]
    cycles = {phase["name"]: phase["cycles"] for phase in run.stats["phases"]}
    return {
        "cycles": run.stats["cycles"],
        "macs": sum(b.macs for b in bounds),
        "bound_cycles": bound,
        "ideal_cycles": ideal,
        "dram_bytes_read": run.stats["bytes_read"],
        "dram_bytes_written": run.stats["bytes_written"],
        "wasted_bytes": wasted_bytes(bundle.task(run.task).phases, run.stats["expert_tokens"]),
        "dram_lower_bound_bytes": sum(b.bytes for b in bounds),
        "backbone_macs": sum(b.macs for b in backbone),
        "backbone_cycles": sum(cycles[b.name] for b in backbone),
        "backbone_bound_cycles": total_bound(bundle.config, backbone)[0],
    }


def _layers(bundle: Bundle, runs: Sequence[Inference]) -> list[dict[str, Any]]:
    """Mean cycles, bound and stalls of each phase over all inferences."""
    layers: dict[str, dict[str, Any]] = {}
    for run in runs:
        bounds = {b.name: b for b in _bounds(bundle, run)}
        estimates = {phase.name: phase.estimated_cycles for phase in bundle.task(run.task).phases}
        for phase in run.stats["phases"]:
            name, share = phase["name"], 1 / len(runs)
            layer = layers.setdefault(
                name,
                {
                    "name": name,
                    "cycles": 0.0,
                    "bound_cycles": 0.0,
                    "macs": 0.0,
                    "busy_cycles": 0.0,
                    "estimated_cycles": 0.0,
                    "stall_cycles": {},
                },
            )
            values = (
                ("cycles", phase["cycles"]),
                ("bound_cycles", bounds[name].cycles),
                ("macs", bounds[name].macs),
                ("busy_cycles", phase["busy"]),
                ("estimated_cycles", estimates[name]),
            )
            for key, value in values:
                layer[key] += value * share
            for cause, value in phase["stalls"].items():
                layer["stall_cycles"][cause] = layer["stall_cycles"].get(cause, 0) + value * share
    return list(layers.values())


def build_report(
    bundle: Bundle,
    runs: Sequence[Inference],
    metrics: dict[str, Any],
    comparisons: Sequence[Any] = (),
    *,
    dram_model: str = "plain",
) -> dict[str, Any]:
    """The report of at least one inference; cycles, MACs and bytes are means over all of them.

    ``bit_exact`` is None where nothing was compared; ``dram_model`` is the name of the one that was simulated.
    """
    config = bundle.config
    totals = [_totals(bundle, run) for run in runs]
    mean = {key: sum(total[key] for total in totals) / len(totals) for key in totals[0]}
    seconds = sum(run.stats["seconds"] for run in runs)
    cycles = sum(run.stats["cycles"] for run in runs)
    tensors = sum(len(comparison.tensors) for comparison in comparisons)
    mismatches = sum(comparison.mismatches for comparison in comparisons)
    return {
        "model": bundle.model.name,
        "config": config.name,
        "config_hash": config.content_hash,
        "images": len({run.image for run in runs}),
        "tasks": list(dict.fromkeys(run.task for run in runs)),
        "inferences": len(runs),
        "bit_exact": mismatches == 0 if comparisons else None,
        "tensors_compared": tensors,
        "mismatches": mismatches,
        **{key: round(value) for key, value in mean.items()},
        "mac_utilisation": mean["macs"] / (mean["cycles"] * config.macs_per_cycle),
        "roofline_efficiency": mean["bound_cycles"] / mean["cycles"],
        "ideal_efficiency": mean["ideal_cycles"] / mean["cycles"],
        "macs_per_cycle": config.macs_per_cycle,
        "dram_bytes_per_cycle": config.dram_bytes_per_cycle,
        "dram_gb_per_second": config.dram_bytes_per_cycle * config.assumed_clock_mhz / 1000,
        "dram_latency": config.dram_latency,
        "dram_model": dram_model,
        "assumed_clock_mhz": config.assumed_clock_mhz,
        "assumed_latency_ms": mean["cycles"] / config.assumed_clock_mhz / 1000,
        "sim_seconds": seconds,
        "sim_cycles_per_second": cycles / max(seconds, 1e-9),
        "metrics": metrics,
        "layers": _layers(bundle, runs),
        "per_inference": [
            {
                "task": run.task,
                "image": run.image,
                **{k: round(v) for k, v in total.items()},
                "expert_tokens": run.stats["expert_tokens"],
                **({"classes": [best._asdict() for best in run.classes]} if run.classes else {}),
            }
            for run, total in zip(runs, totals, strict=True)
        ],
    }


def table(report: dict[str, Any]) -> TextTable:
    """Cycles of each phase and the totals."""
    view = TextTable(
        f"{report['model']} on {report['config']}: {report['cycles']:,} cycles an inference",
        ["phase", ">cycles", ">bound", ">bound/cycles", ">array busy", "largest stall"],
    )
    for layer in report["layers"]:
        cause, stall = max(layer["stall_cycles"].items(), key=lambda item: item[1])
        cycles = max(layer["cycles"], 1)
        view.add(
            short_name(layer["name"]),
            f"{layer['cycles']:,.0f}",
            f"{layer['bound_cycles']:,.0f}",
            f"{layer['bound_cycles'] / cycles:.3f}",
            f"{layer['busy_cycles'] / cycles:.1%}",
            f"{cause} {stall:,.0f}" if stall >= 1 else "",
        )
    view.add(
        "total",
        f"{report['cycles']:,}",
        f"{report['bound_cycles']:,}",
        f"{report['roofline_efficiency']:.3f}",
        f"{report['mac_utilisation']:.1%} MACs",
        "",
    )
    return view


def summary(report: dict[str, Any]) -> list[str]:
    """The lines below the table: equality, DRAM traffic, time at the assumed clock, metrics."""
    inferences = f"{report['inferences']} inference{'s' if report['inferences'] > 1 else ''}"
    tensors = f"{report['tensors_compared']:,} tensors"
    verdicts = {
        True: f"{tensors} of {inferences} equal the integer reference, bit for bit",
        False: f"{report['mismatches']:,} values of {tensors} DIFFER from the integer reference",
        None: f"{inferences}; no tensor was compared with the integer reference",
    }
    lines = [verdicts[report["bit_exact"]]]
    size = report["dram_bytes_read"] + report["dram_bytes_written"]
    wasted = report["wasted_bytes"]
    dram = "" if report["dram_model"] == "plain" else f", {report['dram_model']}"
    lines += [
        f"ideal / cycles {report['ideal_efficiency']:.3f}; ideal: {report['ideal_cycles']:,} cycles, nothing waits",
        *([f"{wasted:,} bytes were fetched for experts that no token chose"] if wasted else []),
        f"DRAM {size:,} bytes, {size / report['dram_lower_bound_bytes']:.3f} x the lower bound; "
        f"{report['dram_gb_per_second']:.3g} GB/s assumed{dram}",
        f"{report['assumed_latency_ms']:.2f} ms at an assumed {report['assumed_clock_mhz']:g} MHz; "
        f"simulated {report['sim_cycles_per_second'] / 1e3:,.0f} k cycles/s",
    ]
    for task, values in report["metrics"].items():
        lines.append(f"{task}: " + ", ".join(f"{name} {value:.3f}" for name, value in values.items()))
    return lines
