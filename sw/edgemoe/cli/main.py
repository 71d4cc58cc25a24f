"""The command line: ``edgemoe``. Every refusal is one line on stderr and a non-zero exit code, never a traceback."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from edgemoe.boards.board import board_names, load_board
from edgemoe.boards.synth import SynthesisError
from edgemoe.bundle import Bundle
from edgemoe.cli.bench import bench
from edgemoe.cli.boards import app as boards_app
from edgemoe.cli.demo import demo
from edgemoe.configs import CONFIGS, find_config
from edgemoe.errors import DeviceError
from edgemoe.runtime.opening import DEVICES
from edgemoe_models.pictures import check_resize

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Deploy multi-task Mixture-of-Experts Vision Transformers on an open FPGA accelerator.",
)
app.add_typer(boards_app, name="boards")
console = Console()

Config = Annotated[str, typer.Option(help=f"{', '.join(CONFIGS)}, a board, or a JSON file")]
Model = Annotated[str, typer.Option(help="preset, its QAT form (<preset>-w8a8), float checkpoint or integer graph")]
BundlePath = Annotated[Path, typer.Argument(help="bundle (.emoe)")]
_FAILED = 1


@app.command("compile")
def compile_command(
    model: Model = "m3vit-micro",
    config: Config = "pynq-z2",
    output: Annotated[Path | None, typer.Option("--out", help="bundle to write")] = None,
) -> None:
    """Compile a model for a configuration."""
    from edgemoe.compiler import build_bundle
    from edgemoe.workloads import load_graph, model_label

    accelerator = find_config(config)
    with console.status("quantizing and compiling"):
        bundle = build_bundle(load_graph(model), accelerator)
    path = output or Path("build") / f"{model_label(model)}-{accelerator.name}.emoe"
    bundle.save(path)
    console.print(f"{path}: {path.stat().st_size:,} bytes, tasks {', '.join(bundle.tasks)}")


@app.command()
def info(bundle: BundlePath) -> None:
    """What is in a bundle."""
    loaded = Bundle.load(bundle)
    model, config = loaded.model, loaded.config
    console.print(
        f"model {model.name}: {model.image_width}x{model.image_height} pixels, {model.num_tokens} tokens "
        f"of {model.dim}, {model.depth} blocks, {model.num_experts} experts, top {model.top_k}"
        + (f", expert weights int{loaded.graph().expert_bits}" if model.num_experts else "")
    )
    console.print(
        f"config {config.name}: {config.lanes_k}x{config.lanes_n} MACs, "
        f"{config.dram_bytes_per_cycle} DRAM bytes a cycle, hash {config.content_hash[:16]}"
    )
    console.print(f"weights and parameters: {loaded.data.size:,} bytes, shared by all tasks")
    table = Table("task", "commands", "bytes loaded", "estimated cycles", "output")
    for task in loaded.tasks.values():
        cycles = sum(phase.estimated_cycles for phase in task.phases)
        table.add_row(
            task.name,
            f"{task.commands:,}",
            f"{task.load_bytes:,}",
            f"{cycles:,}",
            f"{task.output_rows} x {task.output_channels} int16, scale {task.output_scale:.4g}",
        )
    console.print(table)


@app.command()
def disasm(bundle: BundlePath, task: Annotated[str | None, typer.Option()] = None) -> None:
    """A program's commands as text."""
    from edgemoe_hw.spec.disassembler import disassemble

    loaded = Bundle.load(bundle)
    chosen = loaded.task(task or next(iter(loaded.tasks)))
    for line in disassemble(chosen.program, [phase.name for phase in chosen.phases]):
        sys.stdout.write(line + "\n")


@app.command()
def run(
    bundle: BundlePath,
    images: Annotated[list[Path], typer.Argument(help="image files")],
    device: Annotated[str, typer.Option(help=", ".join(DEVICES))] = "reference",
    task: Annotated[list[str] | None, typer.Option(help="task, default: all")] = None,
    out: Annotated[Path, typer.Option(help="folder for pictures and the report")] = Path("build/run"),
    resize: Annotated[str | None, typer.Option(help="images of another size: crop (the middle) or squeeze")] = None,
    trace: Annotated[bool, typer.Option(help="compare every tensor with the reference (sim)")] = True,
    waves: Annotated[Path | None, typer.Option(help="VCD file of the first inference (sim)")] = None,
    waves_from: Annotated[int, typer.Option(help="first command in it, as disasm numbers them")] = 0,
    waves_to: Annotated[int | None, typer.Option(help="last command in it, default: END")] = None,
) -> None:
    """Run images through a bundle's tasks."""
    from edgemoe.cli.runner import RunOptions, run_images

    if device not in DEVICES:
        raise ValueError(f"device must be one of {', '.join(DEVICES)}, not {device!r}")
    if waves is None and (waves_from or waves_to is not None):
        raise ValueError("--waves-from and --waves-to choose a part of --waves FILE, which is missing")
    if waves is not None and device != "sim":
        raise ValueError(f"--waves needs --device sim, not {device}")
    with Progress(console=console, transient=True) as progress:
        bar = progress.add_task(f"running on {device}", total=1.0)

        def building(step: str, share: float) -> None:
            progress.update(bar, completed=share, description=step)

        options = RunOptions(
            device,
            out,
            task or [],
            check_resize(resize),
            trace,
            None if waves is None else (waves, waves_from, waves_to),
            building if console.is_terminal else None,
            lambda text: progress.console.print(f"note: {text}", markup=False, highlight=False, soft_wrap=True),
        )
        exact = run_images(
            Bundle.load(bundle),
            images,
            options,
            lambda share: progress.update(bar, completed=share, description=f"running on {device}"),
        )
    console.print(f"results are in {out}")
    if not exact:
        raise DeviceError("tensors differ from the integer reference; see the report")


@app.command()
def sim(
    model: Model = "m3vit-micro",
    config: Config = "pynq-z2",
    images: Annotated[int, typer.Option(min=1, help="number of scenes")] = 1,
    out: Annotated[Path, typer.Option(help="folder for the report and the pictures")] = Path("build/sim"),
) -> None:
    """Run a model on the Verilated accelerator and compare every tensor with the integer reference."""
    from edgemoe.cli.simulate import is_trained, simulate
    from edgemoe.compiler import build_bundle
    from edgemoe.reports.cycles import build_report, save_report, table
    from edgemoe.runtime.verify import open_verified
    from edgemoe.workloads import load_graph, model_label

    accelerator = find_config(config)
    with console.status("quantizing and compiling"):
        graph = load_graph(model)
        bundle = build_bundle(graph, accelerator)
    bundle.save(out / f"{model_label(model)}-{accelerator.name}.emoe")
    with Progress(console=console, transient=True) as progress:
        bar = progress.add_task("building the simulator", total=1.0)

        def building(step: str, share: float) -> None:
            progress.update(bar, completed=share, description=step)

        with open_verified(bundle, building=building if console.is_terminal else None) as verifier:
            result = simulate(  # where this is no terminal, one line says that it builds
                verifier,
                graph,
                images,
                out,
                lambda what, share: progress.update(bar, completed=share, description=f"simulating {what}"),
                is_trained(model),
            )
    report = build_report(bundle, result.runs, result.metrics, result.comparisons)
    save_report(report, out / "report.json")
    console.print(table(report))
    _summary(report, out)
    if not report["bit_exact"]:
        raise DeviceError(
            f"{report['mismatches']} values differ from the integer reference; first: {result.first_mismatch}"
        )


def _summary(report: dict[str, Any], out: Path) -> None:
    """The figures below the table."""
    exact = {True: "equal the integer reference, bit for bit", False: "do NOT all equal the reference"}
    console.print(
        f"{report['tensors_compared']:,} tensors of {report['inferences']} inferences "
        + exact.get(report["bit_exact"], "compared: run with --trace to compare them all")
    )
    share = report["dram_bytes_read"] + report["dram_bytes_written"]
    console.print(
        f"DRAM {share:,} bytes, {share / report['dram_lower_bound_bytes']:.3f} x the lower bound; "
        f"{report['assumed_latency_ms']:.2f} ms at an assumed {report['assumed_clock_mhz']:g} MHz; "
        f"simulated {report['sim_cycles_per_second'] / 1e3:,.0f} k cycles/s"
    )
    for task, values in report["metrics"].items():
        console.print(f"{task}: " + ", ".join(f"{name} {value:.3f}" for name, value in values.items()))
    console.print(f"report and pictures are in {out}")


@app.command()
def report(path: Annotated[Path, typer.Argument(help="report.json")] = Path("build/sim/report.json")) -> None:
    """Print a report that ``sim`` or ``run`` wrote."""
    from edgemoe.reports.cycles import load_report, table

    values = load_report(path)
    console.print(table(values))
    _summary(values, path.parent)


@app.command()
def ablation(
    model: Model = "m3vit-micro",
    config: Config = "pynq-z2",
    out: Annotated[Path, typer.Option(help="folder for ablation.json and .md")] = Path("build"),
) -> None:
    """Cycles and DRAM bytes with each technique replaced by its naive form, on the RTL."""
    from edgemoe.studies.ablation import (
        ablation_markdown,
        ablation_table,
        gelu_markdown,
        gelu_table_view,
        run_ablation,
    )
    from edgemoe.workloads import load_graph

    result = run_ablation(load_graph(model), find_config(config), lambda what: console.print(f"simulating: {what}"))
    console.print(ablation_table(result))
    console.print(gelu_table_view(result))
    _write(out / "ablation.json", result)
    (out / "ablation.md").write_text(ablation_markdown(result) + "\n" + gelu_markdown(result))


app.command()(bench)
app.command()(demo)


def _write(path: Path, values: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values, indent=1) + "\n")


@app.command()
def accuracy(
    model: Annotated[str, typer.Option(help="trained preset or float checkpoint")] = "m3vit-micro",
    config: Config = "pynq-z2",
    scenes: Annotated[int, typer.Option(min=1, help="held-out scenes")] = 512,
    rtl_images: Annotated[int, typer.Option(min=1, help="of these through the RTL")] = 8,
    brevitas_images: Annotated[int, typer.Option(min=1, help="of these through the Brevitas model")] = 16,
    path: Annotated[Path, typer.Option("--json", help="file for the rows")] = Path("build/accuracy.json"),
) -> None:
    """Metrics of every precision and executor on held-out scenes, and the drop against float."""
    from edgemoe.studies.accuracy import (
        AccuracyOptions,
        accuracy_table,
        differing,
        run_accuracy,
        summary,
    )
    from edgemoe.workloads import float_weights

    options = AccuracyOptions(find_config(config), scenes, brevitas_images, rtl_images)
    rows: list[dict[str, Any]] = []

    def done(row: dict[str, Any]) -> None:
        rows.append(row)
        progress.console.print(summary(row), highlight=False, soft_wrap=True)

    with Progress(console=console, transient=True) as progress:
        bar = progress.add_task("", total=1.0)
        missing = run_accuracy(
            float_weights(model),
            options,
            lambda what, share: progress.update(bar, completed=share, description=what),
            done,
        )
    _write(path, rows)
    console.print(accuracy_table(rows))
    for line in missing:
        console.print(f"missing: {line}", highlight=False, soft_wrap=True)
    console.print(f"rows are in {path}")
    if wrong := differing(rows):
        raise DeviceError(f"outputs differ from the integer reference: {'; '.join(wrong)}")


@app.command("expert-load")
def expert_load(
    model: Annotated[str | None, typer.Option(help="default: m3vit-micro, QAT W8A8 if there")] = None,
    scenes: Annotated[int, typer.Option(min=1, help="held-out scenes")] = 64,
    out: Annotated[Path, typer.Option(help="folder for expert_load.json and .png")] = Path("build"),
) -> None:
    """Which experts each task uses, how evenly, and how far the tasks agree; with a picture."""
    from edgemoe.studies.expert_load import expert_load_table, held_out_load
    from edgemoe.studies.expert_plot import draw_expert_load
    from edgemoe.workloads import best_model, load_graph

    chosen = model or best_model()
    with Progress(console=console, transient=True) as progress:
        bar = progress.add_task("expert load", total=1.0)
        statistics = held_out_load(
            chosen, load_graph(chosen), scenes, lambda share: progress.update(bar, completed=share)
        )
    console.print(expert_load_table(statistics))
    _write(out / "expert_load.json", statistics)
    draw_expert_load(statistics, out / "expert_load.png")
    console.print(f"figures and picture are in {out}")


@app.command()
def synth(
    config: Config = "pynq-z2",
    out: Annotated[Path, typer.Option(help="folder for <config>.json")] = Path("build/synth"),
) -> None:
    """Resources of a configuration by Yosys; fails if it does not fit its device."""
    from edgemoe.boards.synth import synth_command

    device = load_board(config).device if config in board_names() else None
    raise typer.Exit(synth_command(find_config(config), out, device))


@app.command()
def fit(
    target: Annotated[str, typer.Option(help="board with a target.toml")] = "ulx3s",
    seed: Annotated[int | None, typer.Option(help="of the placer, default: the target's")] = None,
    out: Annotated[Path, typer.Option(help="folder for bitstream, reports and logs")] = Path("build/fit"),
    path: Annotated[Path, typer.Option("--json", help="file for the result")] = Path("build/fit.json"),
) -> None:
    """Place and route the accelerator with open tools only; fails if the board's clock is not met."""
    from edgemoe.boards.fit import fit_command

    raise typer.Exit(fit_command(target, out, path, seed))


def main() -> None:
    """Entry point: runs the command and turns refusals into one line."""
    try:
        app(standalone_mode=True)
    except (ValueError, DeviceError, SynthesisError, OSError) as error:
        sys.stderr.write(f"edgemoe: {' '.join(str(error).split())}\n")
        sys.exit(_FAILED)


if __name__ == "__main__":
    main()
