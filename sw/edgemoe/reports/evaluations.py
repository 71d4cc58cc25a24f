"""Figures of an evaluation on pictures with labels: the report's JSON and the tables on the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgemoe.reports.tables import TextTable
from edgemoe_models.config import TaskConfig
from edgemoe_models.evaluation.classes import ClassificationMetrics, largest_confusions
from edgemoe_models.evaluation.labelled import Labelled
from edgemoe_models.evaluation.metrics import SegmentationMetrics

__all__ = ["evaluation_report", "evaluation_summary", "evaluation_tables"]

_CONFUSIONS, _SHOWN, _LONGEST = 20, 10, 30
_HEADINGS = {"top1": "top-1", "top5": "top-5", "miou": "mIoU", "pixel_accuracy": "pixel accuracy"}
_TITLES = {"integer": "int8", "float": "float"}

Record = Mapping[str, Any]
Metrics = ClassificationMetrics | SegmentationMetrics


def evaluation_report(
    task: TaskConfig, pictures: Sequence[Labelled], records: Mapping[str, Record], about: Mapping[str, Any]
) -> dict[str, Any]:
    """What the records say.

    Args:
        task: a classification or a segmentation
        pictures: with their labels; those that have no record do not count
        records: as ``edgemoe.jobs.evaluation`` makes them
        about: what else the report has: bundle, device, ...

    Returns:
        ``about``; ``task``, ``kind``, ``images``; ``metrics`` of ``integer`` and ``float``; ``agreement``, the share of
        pictures or pixels in which both have the same class; ``classes``, all that occur: ``number``, ``name``,
        ``count`` (pictures or pixels) and accuracy or IoU of each; ``confusions`` of the integers, the most frequent
        first: numbers and names of ``label`` and ``predicted``, and ``count``
    """
    found = [one for one in pictures if one.name in records]
    kinds = [kind for kind in _TITLES if found and kind in records[found[0].name]]
    metrics = {kind: _measured(task, found, records, kind) for kind in kinds}
    own = metrics["integer"]
    counts, pairs = _counts(own)
    shares = {
        kind: one.iou if isinstance(one, SegmentationMetrics) else one.class_accuracy for kind, one in metrics.items()
    }
    report = {
        **about,
        "task": task.name,
        "kind": task.kind,
        "images": len(found),
        "metrics": {
            kind: {name: value for name, value in one.result().items() if math.isfinite(value)}
            for kind, one in metrics.items()
        },
        "classes": [
            {"number": int(number), "name": task.class_name(int(number)), "count": int(counts[number])}
            | {kind: float(values[number]) for kind, values in shares.items() if math.isfinite(values[number])}
            for number in np.flatnonzero(counts)
        ],
        "confusions": [
            {
                "label": label,
                "label_name": task.class_name(label),
                "predicted": predicted,
                "predicted_name": task.class_name(predicted),
                "count": count,
            }
            for label, predicted, count in largest_confusions(pairs, _CONFUSIONS)
        ],
    }
    if "float" in kinds:
        report["agreement"] = _agreement(task, [records[one.name] for one in found])
    return report


def _measured(task: TaskConfig, found: Sequence[Labelled], records: Mapping[str, Record], kind: str) -> Metrics:
    if task.kind == "classification":
        classes = ClassificationMetrics(task.channels)
        for one in found:
            classes.update(records[one.name][kind], one.label)
        return classes
    pixels = SegmentationMetrics(task.channels)
    flat: npt.NDArray[np.int64] = pixels.confusion.reshape(-1)
    for one in found:
        pairs = records[one.name][kind]
        np.add.at(flat, pairs[::2], pairs[1::2])
    return pixels


def _counts(metrics: Metrics) -> tuple[npt.NDArray[np.int64], Mapping[tuple[int, int], int]]:
    """How often each class occurs, and each pair of label and prediction."""
    if isinstance(metrics, ClassificationMetrics):
        return metrics.counts, metrics.pairs
    found = np.argwhere(metrics.confusion)
    pairs = {(int(label), int(other)): int(metrics.confusion[label, other]) for label, other in found}
    return metrics.confusion.sum(1), pairs


def _agreement(task: TaskConfig, records: Sequence[Record]) -> float:
    if task.kind == "classification":
        pairs = [(int(one["integer"][0] == one["float"][0]), 1) for one in records]
    else:
        pairs = [(one["agreement"][0], one["agreement"][1]) for one in records]
    return float(sum(same for same, _ in pairs) / max(sum(total for _, total in pairs), 1))


def evaluation_summary(report: Mapping[str, Any]) -> list[str]:
    """The metrics, a line each precision, and the agreement."""
    lines = []
    for kind, values in report["metrics"].items():
        figures = ", ".join(f"{_HEADINGS[name]} {value:.2%}" for name, value in values.items())
        lines.append(f"{_TITLES[kind]:6}{figures or 'nothing is labelled'}")
    if "agreement" in report:
        what = "pictures" if report["kind"] == "classification" else "pixels"
        lines.append(f"float and int8 have the same class in {report['agreement']:.2%} of the {what}")
    return lines


def evaluation_tables(report: Mapping[str, Any]) -> list[TextTable]:
    """The worst classes, and what is taken for what most often."""
    dense = report["kind"] != "classification"
    kinds = list(report["metrics"])
    ranked = sorted(report["classes"], key=lambda entry: (entry.get("integer", 0.0), -entry["count"], entry["number"]))
    shown = ranked if dense else ranked[:_SHOWN]
    what, measure = ("pixels", "IoU") if dense else ("pictures", "right")
    title = f"{'classes' if len(shown) == len(ranked) else 'worst classes'}, of {len(ranked)} that occur"
    worst = TextTable(title, [">number", "class", f">{what}", *(f">{measure}, {_TITLES[kind]}" for kind in kinds)])
    for entry in shown:
        shares = [f"{entry[kind]:.1%}" if kind in entry else "" for kind in kinds]
        worst.add(str(entry["number"]), _short(entry["name"]), f"{entry['count']:,}", *shares)
    if not report["confusions"]:
        return [worst]
    confusions = TextTable("taken for another class most often (int8)", ["class", "taken for", f">{what}", ">of its"])
    totals = {entry["number"]: entry["count"] for entry in report["classes"]}
    for entry in report["confusions"][:_SHOWN]:
        share = f"{entry['count'] / totals[entry['label']]:.1%}"
        confusions.add(_short(entry["label_name"]), _short(entry["predicted_name"]), f"{entry['count']:,}", share)
    return [worst, confusions]


def _short(name: str) -> str:
    """A name without its synonyms, and its beginning where that is long: the report's JSON has all of it."""
    first = name.partition(",")[0]
    return first if len(first) <= _LONGEST else f"{first[: _LONGEST - 1]}…"
