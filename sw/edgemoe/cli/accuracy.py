"""``edgemoe accuracy``: every precision and executor on the same held-out scenes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from edgemoe.cli.options import RESULTS, Config, write_json
from edgemoe.cli.output import note, say, show, working
from edgemoe.cli.outputs import output_file
from edgemoe.configs import find_config
from edgemoe.errors import DeviceError
from edgemoe.extras import require
from edgemoe.workloads import float_weights

__all__ = ["command"]


def command(
    model: Annotated[str, typer.Option(help="trained preset or float checkpoint")] = "m3vit-micro",
    config: Config = "pynq-z2",
    scenes: Annotated[int, typer.Option(min=1, help="held-out scenes")] = 512,
    rtl_images: Annotated[int, typer.Option(min=1, help="of these through the RTL")] = 8,
    brevitas_images: Annotated[int, typer.Option(min=1, help="of these through the Brevitas model")] = 16,
    path: Annotated[Path, typer.Option("--json", help="file for the rows")] = RESULTS / "accuracy.json",
) -> None:
    """Metrics of every precision and executor on held-out scenes, and the drop against float."""
    require("edgemoe accuracy", "sim")
    from edgemoe.studies.accuracy import AccuracyOptions, accuracy_table, differing, run_accuracy, summary

    options = AccuracyOptions(find_config(config), scenes, brevitas_images, rtl_images)
    weights = float_weights(model)
    output_file(path, [weights])
    rows: list[dict[str, Any]] = []

    def done(row: dict[str, Any]) -> None:
        rows.append(row)
        note(summary(row))

    with working(f"reading {weights}") as work:
        missing = run_accuracy(weights, options, work.detail, done)
    write_json(path, rows)
    show(accuracy_table(rows))
    for line in missing:
        say(f"missing: {line}")
    say(f"rows are in {path}")
    if wrong := differing(rows):
        raise DeviceError(f"outputs differ from the integer reference: {'; '.join(wrong)}")
