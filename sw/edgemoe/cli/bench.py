"""``edgemoe bench``: the accelerator's cycles, baselines on this machine's CPU and GPU, and published figures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from edgemoe.cli.options import RESULTS, Dram, ExpertPrefetch, compiler_options
from edgemoe.cli.output import Work, note, say, show, working
from edgemoe.cli.outputs import output_file
from edgemoe.compiler import CompilerOptions, build_bundle
from edgemoe.configs import CONFIGS, find_config
from edgemoe.errors import DeviceError
from edgemoe.extras import require
from edgemoe.studies.break_even import break_even_tables, dsp_counts, efficiency_table
from edgemoe.studies.comparison import Results, comparison_table, load_results, save_results, unavailable
from edgemoe.studies.comparison_plot import draw_comparison
from edgemoe.studies.overhead import measure_overhead
from edgemoe.workloads import load_graph

__all__ = ["command"]

_SECTIONS = ("accelerator", "baselines")
BASELINE_MODELS = ("m3vit-micro", "m3vit-tiny", "deit-tiny")  # trained; Edge-MoE's workload; without experts
OVERHEAD_MODEL = "m3vit-micro"


def command(
    model: Annotated[list[str] | None, typer.Option(help="preset or file; several allowed")] = None,
    config: Annotated[list[str] | None, typer.Option(help="preset or file; several allowed")] = None,
    expert_bits: Annotated[
        list[int] | None, typer.Option(help="8 or 4, for models that are quantized here; both allowed, default: 8")
    ] = None,
    expert_prefetch: ExpertPrefetch = "auto",
    only: Annotated[str | None, typer.Option(help="accelerator or baselines; default: both")] = None,
    dram: Dram = "plain",
    batch: Annotated[list[int] | None, typer.Option(min=1, help="images at once (baselines): 1 and 8")] = None,
    threads: Annotated[int, typer.Option(min=1, help="of the CPU baselines")] = 1,
    out: Annotated[Path, typer.Option(help="folder for bench.json and bench.png")] = RESULTS,
) -> None:
    """Cycles of models and configurations on the RTL, the same models on CPU and GPU, and published figures."""
    if only not in (None, *_SECTIONS):
        raise ValueError(f"--only must be accelerator or baselines, not {only!r}")
    options = compiler_options(expert_prefetch)
    path, picture = (output_file(out / f"bench.{kind}") for kind in ("json", "png"))
    results = load_results(path)
    with working("reading the models") as work:
        if only != "baselines":
            _accelerator(results, path, model, config, expert_bits or [8], options, dram, work)
        if only != "accelerator":
            _baselines(results, path, model or list(BASELINE_MODELS), batch or [1, 8], threads, work)
        draw_comparison(results, picture)
    _show(results, out, with_rows=only != "baselines")
    say(f"rows are in {path}, the picture is {picture}")
    if results["baselines"] and only != "accelerator":
        from edgemoe.studies.baselines.suite import differing

        if wrong := differing(results["baselines"]["rows"]):
            raise DeviceError(f"outputs differ from the float model: {'; '.join(wrong)}")


def _show(results: Results, out: Path, with_rows: bool) -> None:
    if with_rows:
        from edgemoe.studies.bench import bench_table

        rows = results["accelerator"]["rows"]
        for view in (
            bench_table(rows),
            efficiency_table(rows, dsp_counts(out / "boards.json")),
            *break_even_tables(rows),
        ):
            show(view)
            say("")
    show(comparison_table(results))
    for name, tasks in (results["host_overhead_ms"] or {}).items():
        figures = ", ".join(f"{task} {value:.2f}" for task, value in tasks.items())
        say(f"host API, {name}, ms a frame outside the device: {figures}")
    for line in unavailable(results):
        say(line)


def _accelerator(
    results: Results,
    path: Path,
    models: list[str] | None,
    configs: list[str] | None,
    expert_bits: list[int],
    options: CompilerOptions,
    dram: str,
    work: Work,
) -> None:
    require("edgemoe bench", "sim")
    from edgemoe.studies.bench import CONFIGURATIONS, MODELS, bench_row
    from edgemoe_sim.dram import find_dram_model

    find_dram_model(dram)

    accelerators = [find_config(name) for name in configs or CONFIGURATIONS]
    rows: list[dict[str, Any]] = []
    results["accelerator"] = {"rows": rows}
    for name in models or MODELS:
        for accelerator in accelerators:
            for bits in expert_bits:
                work.step(f"simulating: {name} on {accelerator.name}")
                graph = load_graph(name, expert_bits=bits, target=accelerator)
                rows.append(bench_row(graph, accelerator, options, dram))
                save_results(results, path)
                if not graph.config.num_experts:
                    break  # other bits would be the same network


def _baselines(results: Results, path: Path, models: list[str], batches: list[int], threads: int, work: Work) -> None:
    from edgemoe.studies.baselines.measurement import Effort
    from edgemoe.studies.baselines.suite import machine, run_baselines

    rows: list[dict[str, Any]] = []
    results["baselines"] = {"machine": machine(), "rows": rows}
    work.step("measuring the host API")
    results["host_overhead_ms"] = host_overhead()
    for model in models:
        try:
            rows += run_baselines(model, batches, threads, Effort(), lambda what: work.step(f"measuring {what}"))
        except ValueError as error:  # an integer graph, which the accelerator runs, has no float weights
            note(f"no baselines: {error}")
        save_results(results, path)


def host_overhead() -> dict[str, dict[str, float]]:
    """Median milliseconds a frame outside the device by model and task, as ``edgemoe study overhead`` has it."""
    bundle = build_bundle(load_graph(OVERHEAD_MODEL), CONFIGS["pynq-z2"])
    return {OVERHEAD_MODEL: {task: values["p50_ms"] for task, values in measure_overhead(bundle)["tasks"].items()}}
