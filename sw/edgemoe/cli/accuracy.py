"""``edgemoe accuracy``: every precision and executor on the same held-out pictures."""

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
from edgemoe.workloads import float_weights, weights_path
from edgemoe_models.datasets import DATA_SETS
from edgemoe_models.datasets.files import size_of
from edgemoe_models.trained_weights import CHECKOUT_ONLY, WEIGHTS_HOME

__all__ = ["command"]


def command(
    model: Annotated[str, typer.Option(help="trained preset or float checkpoint")] = "m3vit-micro",
    config: Config = "pynq-z2",
    scenes: Annotated[int, typer.Option(min=1, help="held-out scenes or photographs")] = 512,
    rtl_images: Annotated[int, typer.Option(min=1, help="of these through the RTL")] = 8,
    brevitas_images: Annotated[int, typer.Option(min=1, help="of these through the Brevitas model")] = 16,
    data: Annotated[str, typer.Option(help=f"data set: {', '.join(DATA_SETS)}")] = "scenes",
    data_root: Annotated[Path | None, typer.Option(help="folder of the photographs")] = None,
    split: Annotated[str, typer.Option(help="val or test")] = "val",
    label_size: Annotated[str, typer.Option(help="HEIGHTxWIDTH of the labels; default: the model's")] = "",
    skip_missing: Annotated[
        bool, typer.Option("--skip-missing", help="say so and go on where photographs or weights are absent")
    ] = False,
    path: Annotated[Path, typer.Option("--json", help="file for the rows")] = RESULTS / "accuracy.json",
) -> None:
    """Metrics of every precision and executor on held-out pictures, and the drop against float."""
    require("edgemoe accuracy", "sim")
    if skip_missing and (reason := _absent(model, data, data_root)):
        say(f"skipped {model} on {data}: {reason}")
        return
    from edgemoe.studies.accuracy import AccuracyOptions, accuracy_table, differing, run_accuracy, summary

    options = AccuracyOptions(
        find_config(config),
        scenes,
        brevitas_images,
        rtl_images,
        data=data,
        data_root=str(data_root or ""),
        split=split,
        label_shape=size_of(label_size),
    )
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


def _absent(model: str, data: str, root: Path | None) -> str | None:
    """What is not here to measure a model on photographs; None: nothing."""
    if data != "scenes" and not (root and root.is_dir()):
        return f"there is no folder {root}; docs/models.md says what must be in it"
    if model in CHECKOUT_ONLY and not weights_path(model).is_file():
        return f"its weights are in the repository only, in {WEIGHTS_HOME}"
    return None
