"""``edgemoe evaluate``: how right a bundle is on pictures with labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from edgemoe.bundle import Bundle
from edgemoe.cli.options import RESULTS, BundlePath, load_bundle, write_json
from edgemoe.cli.output import hint, say, show, working
from edgemoe.cli.outputs import output_file
from edgemoe.extras import require
from edgemoe.jobs.evaluation import Evaluation, EvaluationOptions, FloatModel, choose_task, evaluation_key
from edgemoe.jobs.evaluation_state import EvaluationState, key_hash
from edgemoe.reports.evaluations import evaluation_report, evaluation_summary, evaluation_tables
from edgemoe.runtime.opening import DEVICES
from edgemoe_models.config import TaskConfig
from edgemoe_models.datasets.arrays import IGNORE
from edgemoe_models.evaluation.labelled import LabelError, Labelled, evenly, from_csv, from_folders, from_masks
from edgemoe_models.pictures import RESIZES, PictureError, check_resize, shown

__all__ = ["command"]


def command(
    bundle: BundlePath,
    folder: Annotated[
        Path, typer.Argument(help="folder with a folder of pictures for each class; or see --labels, --masks")
    ],
    device: Annotated[str, typer.Option(help=", ".join(DEVICES))] = "reference",
    task: Annotated[str | None, typer.Option(help="task (default: the only one of its kind)")] = None,
    labels: Annotated[
        Path | None, typer.Option(help="CSV of FOLDER's pictures: file,label; the label a class's name or number")
    ] = None,
    by_order: Annotated[
        bool, typer.Option("--by-order", help="FOLDER's folders are the classes in sorted order, whatever their names")
    ] = False,
    masks: Annotated[
        Path | None,
        typer.Option(help="folder of a PNG with class numbers for each picture (segmentation)"),
    ] = None,
    void: Annotated[int, typer.Option(min=0, help="what masks have where a pixel has no label")] = IGNORE,
    float_checkpoint: Annotated[
        Path | None, typer.Option("--float", help="float checkpoint of the model, measured beside it")
    ] = None,
    resize: Annotated[
        str | None,
        typer.Option(help=f"pictures of another size: {' or '.join(RESIZES)} (crop: the middle); default: refuse them"),
    ] = None,
    crop_share: Annotated[
        float,
        typer.Option(help="of what crop takes the middle: this share of width and height; ImageNet's custom: 0.875"),
    ] = 1.0,
    count: Annotated[int | None, typer.Option(min=1, help="pictures at most, evenly spaced; default: all")] = None,
    rows: Annotated[Path | None, typer.Option("--json", help="also write all figures to this file")] = None,
    state: Annotated[
        Path | None,
        typer.Option(help="file that keeps what was measured so far (default: beside --json, or in the results)"),
    ] = None,
    bitstream: Annotated[Path | None, typer.Option(help="bitstream to load (pynq)")] = None,
    port: Annotated[str | None, typer.Option(help="serial port of the board (serial)")] = None,
) -> None:
    """Accuracy of a bundle on pictures with labels: top-1, top-5, worst classes, confusions; of masks mIoU.

    What is measured is kept as it goes: the same command goes on where an earlier one was broken off.
    """
    if device not in DEVICES:
        raise ValueError(f"device must be one of {', '.join(DEVICES)}, not {device!r}")
    if device == "sim":
        require("edgemoe evaluate --device sim", "sim")
    inputs = [bundle, *filter(None, (labels, float_checkpoint))]
    for written in filter(None, (rows, state)):
        output_file(written, inputs)
    given = {name: value for name, value in {"bitstream": bitstream, "port": port}.items() if value is not None}
    options = EvaluationOptions(device, check_resize(resize), crop_share, void, given, hint)
    if masks is not None and crop_share < 1:
        raise ValueError("--crop-share is of whole pictures' labels; masks get the model's size by --resize")
    with working("reading") as work:
        loaded = load_bundle(bundle)
        about, pictures = _pictures(loaded, folder, task, labels, masks, by_order)
        pictures = evenly(pictures, count)
        floats = None if float_checkpoint is None else FloatModel(float_checkpoint, loaded, about)
        key = evaluation_key(loaded, about, options, floats)
        kept = output_file(state or _state_file(rows, bundle, about, key), inputs)
        run = Evaluation(loaded, about, pictures, EvaluationState(kept, key), options, floats)
        if run.before:
            hint(f"{run.before:,} of {len(pictures):,} pictures were measured before ({kept})")
        text = f"{len(pictures):,} pictures on {device}"
        work.step(text)
        try:
            run.run(lambda done: work.detail(text, done / len(pictures)))
        except BaseException:
            if run.records:
                hint(f"{len(run.records):,} of {len(pictures):,} pictures are measured ({kept}); the next call goes on")
            raise
    sources = {"bundle": shown(bundle), "folder": shown(folder), **_named(labels=labels, masks=masks)}
    told = {**sources, "model": loaded.model.name, "config": loaded.config.name, **key}
    told |= {"bundle": sources["bundle"], "bundle_hash": key["bundle"]}
    report = evaluation_report(about, pictures, run.records, told | {"skipped": sorted(run.skipped)})
    _show(report, rows)
    if run.skipped:
        raise PictureError(f"{len(run.skipped):,} of {len(pictures):,} pictures could not be read and do not count")


def _pictures(
    bundle: Bundle, folder: Path, task: str | None, labels: Path | None, masks: Path | None, by_order: bool
) -> tuple[TaskConfig, list[Labelled]]:
    """The task that is evaluated, and its pictures."""
    given = [name for name, value in {"--labels": labels, "--masks": masks, "--by-order": by_order}.items() if value]
    if len(given) > 1:
        raise LabelError(f"{' and '.join(given)} exclude each other")
    about = choose_task(bundle, task, "classification" if masks is None else "segmentation")
    if masks is not None:
        return about, from_masks(folder, masks)
    return about, from_csv(labels, folder, about) if labels is not None else from_folders(folder, about, by_order)


def _named(**paths: Path | None) -> dict[str, str]:
    return {name: shown(path) for name, path in paths.items() if path is not None}


def _state_file(rows: Path | None, bundle: Path, task: TaskConfig, key: Mapping[str, str]) -> Path:
    """Of each evaluation its own, so that a bundle that was compiled anew is measured anew."""
    if rows is not None:
        return rows.with_name(f"{rows.name}.{key_hash(key)}.state")
    return RESULTS / "evaluate" / f"{bundle.stem}-{task.name}.{key_hash(key)}.state"


def _show(report: Mapping[str, Any], rows: Path | None) -> None:
    tables: Sequence[Any] = evaluation_tables(report)
    say(f"{report['model']}, {report['task']}: {report['images']:,} pictures on {report['device']}")
    say(*evaluation_summary(report))
    for table in tables:
        say("")
        show(table)
    if rows is not None:
        write_json(rows, report)
