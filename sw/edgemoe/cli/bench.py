"""``edgemoe bench``: the accelerator's cycles, baselines on this machine's CPU and GPU, and published figures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from edgemoe.errors import DeviceError
from edgemoe.studies.comparison import (
    Results,
    comparison_table,
    load_results,
    save_results,
    unavailable,
)
from edgemoe.studies.comparison_plot import draw_comparison

__all__ = ["bench"]

SECTIONS = ("accelerator", "baselines")
BASELINE_MODELS = ("m3vit-micro", "m3vit-tiny", "deit-tiny")  # trained; Edge-MoE's workload; without experts
OVERHEAD_MODEL = "m3vit-micro"
console = Console()


def bench(
    model: Annotated[list[str] | None, typer.Option(help="preset or file; several allowed")] = None,
    config: Annotated[list[str] | None, typer.Option(help="preset or file; several allowed")] = None,
    expert_bits: Annotated[
        list[int] | None, typer.Option(help="8 or 4, for models that are quantized here; both allowed, default: 8")
    ] = None,
    only: Annotated[str | None, typer.Option(help="accelerator or baselines; default: both")] = None,
    batch: Annotated[list[int] | None, typer.Option(min=1, help="images at once (baselines): 1 and 8")] = None,
    threads: Annotated[int, typer.Option(min=1, help="of the CPU baselines")] = 1,
    out: Annotated[Path, typer.Option(help="folder for bench.json and bench.png")] = Path("build"),
) -> None:
    """Cycles of models and configurations on the RTL, the same models on CPU and GPU, and published figures."""
    if only is not None and only not in SECTIONS:
        raise ValueError(f"--only must be accelerator or baselines, not {only!r}")
    path = out / "bench.json"
    results = load_results(path)
    if only != "baselines":
        _accelerator(results, path, model, config, expert_bits or [8])
    if only != "accelerator":
        _baselines(results, path, model or list(BASELINE_MODELS), batch or [1, 8], threads)
    console.print(comparison_table(results))
    for name, tasks in (results["host_overhead_ms"] or {}).items():
        console.print(
            f"host API, {name}: "
            + ", ".join(f"{task} {value:.2f} ms" for task, value in tasks.items())
            + " a frame outside the device",
            highlight=False,
            soft_wrap=True,
        )
    for line in unavailable(results):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    draw_comparison(results, out / "bench.png")
    console.print(f"rows are in {path}, the picture is {out / 'bench.png'}")
    if results["baselines"] and only != "accelerator":
        from edgemoe.studies.baselines.suite import differing

        if wrong := differing(results["baselines"]["rows"]):
            raise DeviceError(f"outputs differ from the float model: {'; '.join(wrong)}")


def _accelerator(
    results: Results, path: Path, models: list[str] | None, configs: list[str] | None, expert_bits: list[int]
) -> None:
    from edgemoe.cli.main import find_config
    from edgemoe.studies.bench import CONFIGURATIONS, MODELS, bench_row, bench_table
    from edgemoe.workloads import load_graph

    rows: list[dict[str, Any]] = []
    results["accelerator"] = {"rows": rows}
    for name in models or MODELS:
        for chosen in configs or CONFIGURATIONS:
            for bits in expert_bits:
                console.print(f"simulating: {name} on {chosen}")
                graph = load_graph(name, expert_bits=bits)
                rows.append(bench_row(graph, find_config(chosen)))
                save_results(results, path)
                if not graph.config.num_experts:
                    break  # other bits would be the same network
    console.print(bench_table(rows))


def _baselines(results: Results, path: Path, models: list[str], batches: list[int], threads: int) -> None:
    from edgemoe.studies.baselines.measurement import Effort
    from edgemoe.studies.baselines.suite import machine, run_baselines

    rows: list[dict[str, Any]] = []
    results["baselines"] = {"machine": machine(), "rows": rows}
    with console.status("measuring the host API") as status:
        results["host_overhead_ms"] = _host_overhead()
        for model in models:
            try:
                rows += run_baselines(
                    model, batches, threads, Effort(), lambda what: status.update(f"measuring {what}")
                )
            except ValueError as error:  # an integer graph, which the accelerator runs, has no float weights
                console.print(f"no baselines: {error}", highlight=False, markup=False, soft_wrap=True)
            save_results(results, path)


def _host_overhead() -> dict[str, dict[str, float]]:
    """Median milliseconds a frame outside the device by model and task, as ``edgemoe.studies.overhead`` has it."""
    from edgemoe.compiler import build_bundle
    from edgemoe.studies.overhead import measure_overhead
    from edgemoe.workloads import load_graph
    from edgemoe_hw.spec.config import PRESETS

    bundle = build_bundle(load_graph(OVERHEAD_MODEL), PRESETS["pynq-z2"])
    return {OVERHEAD_MODEL: {task: values["p50_ms"] for task, values in measure_overhead(bundle)["tasks"].items()}}
