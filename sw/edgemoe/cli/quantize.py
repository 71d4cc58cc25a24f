"""``edgemoe quantize``: a float checkpoint as an integer graph, by post-training quantization."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from edgemoe.cli.output import hint, say, show, working
from edgemoe.cli.outputs import output_file
from edgemoe.reports.tables import TextTable, short_name
from edgemoe.workloads import warn_of_scenes
from edgemoe_models.checkpoint import load_checkpoint
from edgemoe_models.graph.file import write_graph
from edgemoe_models.pictures import Notes
from edgemoe_models.ptq.calibrate import calibration_folder
from edgemoe_models.ptq.options import DEFAULT, RANGES
from edgemoe_models.ptq.quantize import QuantizeOptions, calibration_images, quantize
from edgemoe_models.ptq.report import COLUMNS, report

__all__ = ["command"]

_SHORT = {"residual1": "res1", "context": "ctx", "output": "out"}


def command(
    checkpoint: Annotated[Path, typer.Argument(help="float checkpoint (edgemoe import, train)", show_default=False)],
    out: Annotated[Path, typer.Option(help="integer graph to write (.graph.safetensors)", show_default=False)],
    images: Annotated[
        Path | None, typer.Option(help="folder of typical pictures that calibrate it (default: generated scenes)")
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="how many of them at most")] = 16,
    expert_bits: Annotated[int, typer.Option(help="bits of the experts' weights, 8 or 4")] = 8,
    power_of_two: Annotated[bool, typer.Option("--power-of-two", help="make every scale a power of two")] = False,
    ranges: Annotated[
        str, typer.Option(help=f"how ranges are chosen, one of {', '.join(sorted(RANGES))}")
    ] = DEFAULT.ranges,
) -> None:
    """Quantize a float checkpoint without training; compile, sim and the others take the graph as --model."""
    options = QuantizeOptions(expert_bits, power_of_two, ranges)  # type: ignore[arg-type] # it checks the value
    output_file(out, [checkpoint])
    with working(f"quantizing {checkpoint}") as work:
        state, config = load_checkpoint(checkpoint)
        if images is None:
            warn_of_scenes(checkpoint, count)
            pictures = calibration_images(config, count)
        else:
            pictures = calibration_folder(images, config, count, notes=Notes(hint))
        graph = quantize(state, config, pictures, options)
        write_graph(graph, out)
        work.step("measuring each layer's errors")
        rows = list(report(state, graph, pictures))
    show(_table(rows))
    what = "generated scenes" if images is None else "images"
    say(f"{out}: {config.name} from {len(pictures)} {what}, {out.stat().st_size:,} bytes")


def _table(rows: Iterable[dict[str, Any]]) -> TextTable:
    titles = [f">{_SHORT.get(name, name)}" for name in COLUMNS]
    table = TextTable(
        "signal-to-noise ratio of each layer's outputs, float against integer, in dB",
        ["layer", *titles, ">same expert"],
        gap=1,
    )
    for row in rows:
        cells = [f"{row[name]:.1f}" if name in row else "" for name in COLUMNS]
        share = f"{100 * row['same_expert']:.1f} %" if "same_expert" in row else ""
        table.add(short_name(row["layer"]), *(cell.rjust(5) for cell in cells), share)
    return table
