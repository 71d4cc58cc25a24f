"""``edgemoe quantize``: a float checkpoint as an integer graph, by post-training quantization."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from edgemoe.cli.options import write_json
from edgemoe.cli.output import hint, say, show, working
from edgemoe.cli.outputs import output_file
from edgemoe.reports.tables import TextTable, short_name
from edgemoe.workloads import warn_of_scenes
from edgemoe_models.checkpoint import load_checkpoint
from edgemoe_models.graph.file import write_graph
from edgemoe_models.graph.integer_graph import IntegerGraph
from edgemoe_models.pictures import Notes
from edgemoe_models.ptq.calibrate import calibration_pictures
from edgemoe_models.ptq.options import DEFAULT, RANGES
from edgemoe_models.ptq.quantize import QuantizeOptions, calibration_images, held_out_images, quantize
from edgemoe_models.ptq.report import COLUMNS, LayerErrors, clipping_note, layer_errors, report

__all__ = ["command"]

#: Pictures that had no part in calibration, on which errors are measured, at most.
HELD_OUT = 8
_SHORT = {"residual1": "res1", "context": "ctx", "output": "out"}


def command(
    checkpoint: Annotated[Path, typer.Argument(help="float checkpoint (edgemoe import, train)", show_default=False)],
    out: Annotated[Path, typer.Option(help="integer graph to write (.graph.safetensors)", show_default=False)],
    images: Annotated[
        Path | None, typer.Option(help="folder of typical pictures that calibrate it (default: generated scenes)")
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="how many of them at most")] = 16,
    expert_bits: Annotated[int, typer.Option(help="bits of the experts' weights, 8 or 4")] = 8,
    int4_share: Annotated[
        float, typer.Option(min=0, max=1, help="share of attention's and MLPs' weights with 4 bits, 0 to 1")
    ] = 0.0,
    power_of_two: Annotated[bool, typer.Option("--power-of-two", help="make every scale a power of two")] = False,
    ranges: Annotated[
        str, typer.Option(help=f"how ranges are chosen, one of {', '.join(sorted(RANGES))}")
    ] = DEFAULT.ranges,
    path: Annotated[
        Path | None, typer.Option("--report", help="also write SNR and clipping of every tensor to this JSON file")
    ] = None,
) -> None:
    """Quantize a float checkpoint without training; compile, sim and the others take the graph as --model."""
    options = QuantizeOptions(expert_bits, power_of_two, ranges, int4_share=int4_share)  # type: ignore[arg-type]
    output_file(out, [checkpoint])
    if path is not None:
        output_file(path, [checkpoint, out])
    with working(f"quantizing {checkpoint}") as work:
        state, config = load_checkpoint(checkpoint)
        if images is None:
            warn_of_scenes(checkpoint, count)
            pictures, others = calibration_images(config, count), held_out_images(config, HELD_OUT)
        else:
            pictures, others = calibration_pictures(images, config, count, notes=Notes(hint), held_out=HELD_OUT)
        graph = quantize(state, config, pictures, options, notes=None if len(others) else hint)
        write_graph(graph, out)
        work.step("measuring each tensor's errors")
        errors = layer_errors(state, graph, others if len(others) else pictures)
    many = "s" if len(others) != 1 else ""
    where = f"on {len(others)} held-out picture{many}" if len(others) else "on the calibration pictures themselves"
    show(_table(report(errors, graph), where))
    show(_worst(errors, where))
    if len(others) and (text := clipping_note(errors.clipped, where)):
        hint(text)
    if path is not None:
        write_json(path, _document(errors, graph, options, len(pictures), len(others)))
    what = "generated scenes" if images is None else "images"
    if graph.int4_layers:
        say(f"4-bit weights: {', '.join(graph.int4_layers)}")
    say(f"{out}: {config.name} from {len(pictures)} {what}, {out.stat().st_size:,} bytes")


def _document(
    errors: LayerErrors, graph: IntegerGraph, options: QuantizeOptions, pictures: int, others: int
) -> dict[str, Any]:
    """What ``--report`` writes."""
    tensors = {
        name: {"snr_db": ratio, "clipped": errors.clipped.get(name, 0.0)} for name, ratio in errors.ratios.items()
    }
    return {
        "model": graph.config.name,
        "options": dataclasses.asdict(options),
        "calibration_pictures": pictures,
        "measured_on": {"pictures": others or pictures, "held_out": bool(others)},
        "tensors": tensors,
        "worst": errors.worst(),
        "same_expert": errors.same_expert,
    }


def _worst(errors: LayerErrors, where: str) -> TextTable:
    table = TextTable(f"the worst tensors {where}", ["tensor", ">dB", ">clipped"])
    for name in errors.worst():
        clipped = f"{100 * errors.clipped[name]:.2f} %" if name in errors.clipped else ""
        table.add(name, f"{errors.ratios[name]:.1f}", clipped)
    return table


def _table(rows: Iterable[dict[str, Any]], where: str) -> TextTable:
    titles = [f">{_SHORT.get(name, name)}" for name in COLUMNS]
    table = TextTable(
        f"signal-to-noise ratio in dB, float against integer, {where}",
        ["layer", *titles, ">same expert"],
        gap=1,
    )
    for row in rows:
        cells = [f"{row[name]:.1f}" if name in row else "" for name in COLUMNS]
        share = f"{100 * row['same_expert']:.1f} %" if "same_expert" in row else ""
        table.add(short_name(row["layer"]), *(cell.rjust(5) for cell in cells), share)
    return table
