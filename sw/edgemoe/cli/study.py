"""``edgemoe study``: smaller studies, one a sub-verb."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from edgemoe.bundle import Bundle
from edgemoe.cli.application import new_application
from edgemoe.cli.options import RESULTS, SCENES, Model, Rows, Scenes, load_bundle, write_json
from edgemoe.cli.output import note, say, show, working
from edgemoe.cli.outputs import output_file, output_folder
from edgemoe.configs import CONFIGS, find_config
from edgemoe.errors import DeviceError
from edgemoe.extras import require
from edgemoe.reports.tables import TextTable, loss_text
from edgemoe.workloads import best_model, float_weights, load_graph
from edgemoe_models.checkpoint import load_checkpoint
from edgemoe_models.config import ModelConfig
from edgemoe_models.evaluation.evaluate import compare_with_float
from edgemoe_models.studies import harsh as harsh_study
from edgemoe_models.studies.compare_ptq import Row, columns_of, compare
from edgemoe_models.studies.function_errors import TABLES, cell

__all__ = ["command"]

command = new_application(no_args_is_help=True, help="Smaller studies, with tables and rows as JSON.")

Weights = Annotated[str, typer.Option("--model", help="trained preset or float checkpoint")]
Count = Annotated[int, typer.Option("--scenes", min=1, help="validation scenes, from the first")]
#: Short titles of the columns of the functions' tables.
_SHORT = {
    "int8 max, LSB": "int8 max",
    "mean, LSB": "mean",
    "from rounded, LSB": "rounded",
}


def _outputs(path: Path | None, cache: Path) -> None:
    if path is not None:
        output_file(path)
    output_folder(cache)


@command.command("evaluate")
def evaluate(model: Weights = "m3vit-micro", scenes: Count = 512, cache: Scenes = SCENES, path: Rows = None) -> None:
    """Accuracy of a float checkpoint and of its integer graph, side by side."""
    _outputs(path, cache)
    weights = float_weights(model)
    with working(f"quantizing and measuring {model} on {scenes} scenes"):
        rows = list(compare_with_float(weights, scenes, cache))
    table = TextTable(f"{rows[0]['model']}, {scenes} validation scenes", ["", *(f">{row['executor']}" for row in rows)])
    for task, values in rows[0]["metrics"].items():
        table.heading(task)
        for metric, value in values.items():
            if isinstance(value, float):
                table.add(f"  {metric}", *(f"{row['metrics'][task][metric]:.4f}" for row in rows))
    show(table)
    if path is not None:
        write_json(path, rows)


@command.command("ptq")
def ptq(model: Weights = "m3vit-micro", scenes: Count = 256, cache: Scenes = SCENES, path: Rows = None) -> None:
    """Post-training quantization: ours, ours without each of its parts, and other papers' functions."""
    _outputs(path, cache)
    state, config = load_checkpoint(float_weights(model))
    rows: list[Row] = []
    with working(f"measuring {config.name} on {scenes} scenes") as work:
        for row in compare(state, config, scenes, cache):
            rows.append(row)
            work.step(f"measured: {row['precision']}")
    show(_ptq_table(config, rows))
    if path is not None:
        write_json(path, rows)


def _ptq_table(config: ModelConfig, rows: list[Row]) -> TextTable:
    """Each task's metric and in brackets its loss against float, more is worse."""
    columns = columns_of(config)
    table = TextTable(
        f"{config.name}, {rows[0]['images']} validation scenes",
        ["", *(f">{column.title}" for column in columns.values())],
        caption="in brackets the loss against float:\n"
        + ", ".join(f"{task} in {column.unit}" for task, column in columns.items()),
        gap=1,
    )
    for row in rows:
        cells = []
        for task, column in columns.items():
            value = column.shown(row["metrics"][task][column.metric])
            cells.append(f"{value:.{1 if value >= 10 else 3}f} ({loss_text(row['drop'][task])})")
        table.add(row["precision"], *cells)
    return table


@command.command("harsh")
def harsh(
    model: Annotated[str, typer.Option(help=f"shape of the weights, one of {', '.join(harsh_study.MODELS)}")] = "small",
    seeds: Annotated[int, typer.Option(min=1, help="sets of weights, from seed 0")] = 2,
    path: Rows = None,
) -> None:
    """Post-training quantization of weights with the statistics of Edge-MoE's published ones (docs/ptq.md)."""
    if model not in harsh_study.MODELS:
        raise typer.BadParameter(f"model must be one of {', '.join(harsh_study.MODELS)}, not {model!r}")
    if path is not None:
        output_file(path)
    rows: list[dict[str, Any]] = []
    with working("making weights") as work:
        for row in harsh_study.compare(model, seeds):
            rows.append(row)
            work.step(f"measured: {row['variant']}")
    titles = {"block0": "block 0", "final": "last block", "first_gate": "first gate", "gates": "all gates"}
    many = "s" if seeds != 1 else ""
    table = TextTable(
        f"harsh weights, {model}, {seeds} seed{many}: against float, on 6 unseen scenes",
        ["", *(f">{title}" for title in titles.values())],
        caption="blocks: relative error of the tokens; gates: choices of experts that are equal",
    )
    for row in rows:
        table.add(row["variant"], *(f"{100 * row[key]:.1f} %" for key in titles))
    show(table)
    if path is not None:
        write_json(path, rows)


@command.command("functions")
def functions(path: Rows = None) -> None:
    """Errors of softmax, activations and LayerNorm against float64, ours and published ones (docs/functions.md)."""
    if path is not None:
        output_file(path)
    every: list[dict[str, Any]] = []
    for name, (measure, columns) in TABLES.items():
        with working(f"measuring {name}"):
            rows = list(measure())
        every += rows
        titles = [_SHORT.get(title, title) for title in columns.values()]
        table = TextTable(name, ["", *(f">{title}" for title in titles)], gap=1)
        inputs = ""
        for row in rows:
            if inputs != (inputs := row["inputs"]):
                table.heading(inputs)
            table.add(f"  {row['method']}", *(cell(key, row[key]) for key in columns))
        show(table)
        say("")
    say("int8 max, mean, rounded: in LSB of the int8 output", "rounded: distance from float64, rounded to int8")
    if path is not None:
        write_json(path, every)


@command.command("overhead")
def overhead(
    bundle: Annotated[
        Path | None,
        typer.Argument(
            help="bundle (.emoe) or a packaged one's name; default: m3vit-micro for pynq-z2", show_default=False
        ),
    ] = None,
    frames: Annotated[int, typer.Option(min=1, help="inferences a task")] = 300,
    path: Annotated[Path, typer.Option("--json", help="file for the figures")] = RESULTS / "overhead.json",
) -> None:
    """The host's own time a frame: everything but the device, on an accelerator that needs no time."""
    from edgemoe.studies.overhead import STEPS, measure_overhead

    output_file(path)
    with working("measuring the host API"):
        result = measure_overhead(load_bundle(bundle) if bundle else _default_bundle(), frames)
    table = TextTable(
        f"{result['model']} for {result['config']}, {result['frames']} inferences a task: milliseconds of the host",
        ["task", ">p50", ">p90", *(f">{step}" for step in STEPS)],
    )
    for task, values in result["tasks"].items():
        names = ("p50_ms", "p90_ms", *(f"{step}_ms" for step in STEPS))
        table.add(task, *(f"{values[name]:.3f}" for name in names))
    show(table)
    write_json(path, result)
    note(f"figures are in {path}")


@command.command("simspeed")
def simspeed(
    model: Model = "m3vit-tiny",
    configs: Annotated[
        list[str] | None,
        typer.Option("--config", help="configuration, may be given again; default: pynq-z2", show_default=False),
    ] = None,
    path: Annotated[Path, typer.Option("--json", help="file for the figures")] = RESULTS / "simspeed.json",
) -> None:
    """Speed of the simulated accelerator: one inference, without and with the comparison of every tensor."""
    accelerators = [find_config(name) for name in configs or ["pynq-z2"]]
    require("edgemoe study simspeed", "sim")
    output_file(path)
    from edgemoe.compiler import build_bundle
    from edgemoe.studies.simulation_speed import measure_speed

    rows = []
    with working(f"quantizing and compiling {model}") as work:
        for accelerator in accelerators:
            graph = load_graph(model, target=accelerator)
            bundle = build_bundle(graph, accelerator)
            work.step(f"measuring {accelerator.name}")
            rows.append(measure_speed(graph, bundle, work.detail))
            write_json(path, rows)
    table = TextTable(
        "speed of the simulated accelerator, one inference",
        ["configuration", "model", "RTL", "compared", ">cycles", ">wall s", ">CPU s", ">cycles/s", ">cycles/CPU s"],
    )
    for row in rows:
        for name, title in (("plain", "outputs"), ("compared", "every tensor")):
            timed = row[name]
            numbers = (f"{timed[key]:,.0f}" for key in ("cycles_per_second", "cycles_per_cpu_second"))
            seconds = (f"{timed[key]:.1f}" for key in ("wall_seconds", "cpu_seconds"))
            table.add(row["config"], row["model"], row["rtl"], title, f"{row['cycles']:,}", *seconds, *numbers)
    show(table)
    note(f"figures are in {path}")
    if wrong := sum(row[name]["mismatches"] for row in rows for name in ("plain", "compared")):
        raise DeviceError(f"{wrong} values differ from the integer reference")


def _default_bundle() -> Bundle:
    from edgemoe.compiler import build_bundle

    return build_bundle(load_graph(best_model()), CONFIGS["pynq-z2"])


@command.command("frames")
def frames(
    model: Annotated[list[str] | None, typer.Option(help="of the cases' models, only these; may be repeated")] = None,
    config: Annotated[list[str] | None, typer.Option(help="likewise, configurations")] = None,
    path: Annotated[Path, typer.Option("--json", help="file for the rows")] = RESULTS / "frames.json",
) -> None:
    """All tasks of a frame in one program, and batches of images, on the RTL, against one program after the other."""
    from edgemoe.studies.frames import CASES, frame_rows, frame_table

    chosen = [
        case for case in CASES if case.model in (model or [case.model]) and case.config in (config or [case.config])
    ]
    if not chosen:
        known = ", ".join(sorted({f"{case.model} on {case.config}" for case in CASES}))
        raise typer.BadParameter(f"there is no such case; there are {known}")
    output_file(path)
    rows: list[dict[str, Any]] = []
    for name, target in dict.fromkeys((case.model, case.config) for case in chosen):
        cases = [case for case in chosen if (case.model, case.config) == (name, target)]
        with working(f"{name} on {target}"):
            rows += frame_rows(load_graph(name), CONFIGS[target], cases)
        write_json(path, rows)
    show(frame_table(rows))
    note(f"rows are in {path}")
    if not all(row["bit_exact"] for row in rows):
        raise typer.Exit(1)


@command.command("scaling")
def scaling(
    rtl: Annotated[
        bool, typer.Option("--rtl", help="run some points on the RTL too, on pynq-z2 and tiny: some minutes")
    ] = (False),
    path: Annotated[Path, typer.Option("--json", help="file for the rows")] = RESULTS / "scaling.json",
    out: Annotated[Path, typer.Option(help="folder for the pictures")] = RESULTS,
) -> None:
    """Cycles against array, tokens, experts, tasks, batch and DRAM, and where each technique pays (docs/scaling.md)."""
    from edgemoe.studies import scaling as study
    from edgemoe.studies.scaling_plot import draw_axes, draw_techniques
    from edgemoe.studies.scaling_report import scaling_tables
    from edgemoe.studies.scaling_rtl import RTL_POINTS, rtl_row

    output_file(path)
    output_folder(out)
    results: dict[str, list[dict[str, Any]]] = {"axes": [], "techniques": [], "rtl": []}
    with working("compiling") as work:
        results["axes"] = list(study.axis_rows(work.step))
        results["techniques"] = list(study.technique_rows(progress=work.step))
        for point in RTL_POINTS if rtl else ():
            results["rtl"].append(rtl_row(point))
            work.step(f"on the RTL: {len(results['rtl'])} of {len(RTL_POINTS)}")
            write_json(path, results)
    write_json(path, results)
    pictures = out / "scaling-axes.png", out / "scaling-techniques.png"
    draw_axes(results["axes"], pictures[0])
    draw_techniques(results["techniques"], pictures[1])
    for table in scaling_tables(results):
        show(table)
        say("")
    note(f"rows are in {path}, pictures in {out}")
    if not all(row["bit_exact"] for row in results["rtl"]):
        raise typer.Exit(1)


@command.command("serve")
def serve(
    bundle: Annotated[Path, typer.Argument(help="bundle (.emoe) or a packaged one's name", show_default=False)] = Path(
        "m3vit-micro-w4a8-pynq-z2"
    ),
    device: Annotated[str, typer.Option(help="of the servers")] = "reference",
    clients: Annotated[
        list[int] | None, typer.Option(min=1, max=256, help="may be repeated; default: 1, 2, 4, 8", show_default=False)
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.1, help="for each number of clients")] = 5.0,
    path: Annotated[Path, typer.Option("--json", help="file for the figures")] = RESULTS / "serve.json",
) -> None:
    """Requests a second and latencies of edgemoe serve: one server, and two behind HAProxy (docs/serve.md)."""
    require("edgemoe study serve", "serve")
    from edgemoe.studies.serving import has_balancer, serving_rows

    output_file(path)
    if not has_balancer():
        note("HAProxy is not installed (Debian: sudo apt-get install haproxy): only one server is measured")
    loaded = load_bundle(bundle)
    with working("starting servers") as work:
        result = serving_rows(bundle, loaded, device, clients or [1, 2, 4, 8], seconds, work.step)
    table = TextTable(
        f"{result['model']} on {device}, {result['task']}: one picture a request",
        [">servers", ">clients", ">requests/s", ">p50 ms", ">p99 ms"],
        caption=f"{result['machine']['cpu']}, {result['machine']['cores']} cores with a load average of "
        f"{result['machine']['load_average']:.1f} before; clients and servers share them",
    )
    for row in result["rows"]:
        numbers = (f"{row[key]:.1f}" for key in ("requests_per_second", "p50_ms", "p99_ms"))
        table.add(str(row["servers"]), str(row["clients"]), *numbers)
    show(table)
    write_json(path, result)
    note(f"figures are in {path}")
