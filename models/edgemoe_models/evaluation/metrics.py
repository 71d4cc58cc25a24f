"""Metrics of the tasks, accumulated over images. NumPy only.

Each class takes predictions and labels of any number of images through ``update`` and gives a dict of floats
through ``result``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from edgemoe_models.config import DEPTH_SCALE, TaskConfig
from edgemoe_models.datasets.arrays import IGNORE

Array = npt.NDArray[Any]


def _same_shape(prediction: Array, label: Array) -> None:
    if prediction.shape != label.shape:
        raise ValueError(f"prediction must be of the label's shape {label.shape}, not {prediction.shape!r}")


class SegmentationMetrics:
    """``miou`` over the classes that occur, ``pixel_accuracy``; ``iou`` [classes] is NaN where none occurs."""

    def __init__(self, classes: int) -> None:
        if classes < 2:
            raise ValueError(f"classes must be at least 2, not {classes!r}")
        self.classes = classes
        self.confusion = np.zeros((classes, classes), np.int64)  # [label, prediction]

    def update(self, prediction: Array, label: Array) -> None:
        """Class numbers of any equal shape."""
        _same_shape(prediction, label)
        for name, value in (("prediction", prediction), ("label", label)):
            if value.size and not (0 <= value.min() and value.max() < self.classes):
                bounds = (int(value.min()), int(value.max()))
                raise ValueError(f"{name} must be classes in 0..{self.classes - 1}, not {bounds!r}")
        pairs = label.astype(np.int64).ravel() * self.classes + prediction.ravel()
        self.confusion += np.bincount(pairs, minlength=self.classes**2).reshape(self.classes, self.classes)

    @property
    def iou(self) -> npt.NDArray[np.float64]:
        """Intersection over union of each class."""
        hits = np.diag(self.confusion)
        union = self.confusion.sum(0) + self.confusion.sum(1) - hits
        return np.where(union > 0, hits / np.maximum(union, 1), np.nan)

    @property
    def class_accuracy(self) -> npt.NDArray[np.float64]:
        """Share of each class's pixels that are found [classes]; NaN where a class has none."""
        labelled = self.confusion.sum(1)
        return np.where(labelled > 0, np.diag(self.confusion) / np.maximum(labelled, 1), np.nan)

    def result(self) -> dict[str, float]:
        total = self.confusion.sum()
        if not total:
            return {"miou": float("nan"), "pixel_accuracy": float("nan")}
        return {"miou": float(np.nanmean(self.iou)), "pixel_accuracy": float(np.trace(self.confusion) / total)}


class BoundaryMetrics:
    """``boundary_f1``: how well the borders of classes are met (Csurka et al., BMVC 2013).

    Precision and recall of a class's border pixels within ``tolerance``, their F1 averaged over the classes that have
    a border in the label, then over the images that have one. A border is between labelled pixels.

    Args:
        classes: their number
        tolerance: Euclidean distance in pixels; None: 0.75 % of the picture's diagonal, as in the source
    """

    def __init__(self, classes: int, tolerance: float | None = None) -> None:
        if tolerance is not None and tolerance < 0:
            raise ValueError(f"tolerance must be at least 0 pixels, not {tolerance!r}")
        self.classes, self.tolerance = classes, tolerance
        self.total, self.images = 0.0, 0

    def update(self, prediction: Array, label: Array) -> None:
        """Class numbers [B, H, W]; ``IGNORE`` in the label where there is none."""
        _same_shape(prediction, label)
        for predicted, actual in zip(np.where(label == IGNORE, IGNORE, prediction), label, strict=True):
            found, wanted = _borders(predicted, self.classes), _borders(actual, self.classes)
            there = wanted.any((1, 2))
            if not there.any():
                continue
            found, wanted = found[there], wanted[there]
            reach = 0.0075 * float(np.hypot(*actual.shape)) if self.tolerance is None else self.tolerance
            hits, met = (found & _widened(wanted, reach)).sum((1, 2)), (wanted & _widened(found, reach)).sum((1, 2))
            precision, recall = hits / np.maximum(found.sum((1, 2)), 1), met / wanted.sum((1, 2))
            self.total += float((2 * precision * recall / np.maximum(precision + recall, 1e-12)).mean())
            self.images += 1

    def result(self) -> dict[str, float]:
        return {"boundary_f1": self.total / self.images if self.images else float("nan")}


def _borders(classes: Array, count: int) -> Array:
    """Each class's pixels with a neighbour of another class, bool [count, H, W]."""
    labelled = classes != IGNORE
    border = np.zeros(classes.shape, bool)
    down = (classes[1:] != classes[:-1]) & labelled[1:] & labelled[:-1]
    across = (classes[:, 1:] != classes[:, :-1]) & labelled[:, 1:] & labelled[:, :-1]
    border[1:] |= down
    border[:-1] |= down
    border[:, 1:] |= across
    border[:, :-1] |= across
    result: Array = (classes == np.arange(count)[:, None, None]) & border
    return result


def _widened(masks: Array, reach: float) -> Array:
    """Pixels at most ``reach`` away from one that is set, bool [count, H, W]."""
    whole = int(reach)
    _, height, width = masks.shape
    padded = np.pad(masks, ((0, 0), (whole, whole), (whole, whole)))
    result = np.zeros_like(masks)
    for y in range(-whole, whole + 1):
        for x in range(-whole, whole + 1):
            if y * y + x * x <= reach * reach:
                result |= padded[:, whole + y : whole + y + height, whole + x : whole + x + width]
    return result


class DepthMetrics:
    """``rmse`` in metres and ``abs_rel`` over valid pixels."""

    def __init__(self) -> None:
        self.count = 0
        self.squares = 0.0
        self.relative = 0.0

    def update(self, prediction: Array, label: Array, valid: Array | None = None) -> None:
        """Metres of any equal shape; ``valid`` chooses the pixels that count (default: all)."""
        _same_shape(prediction, label)
        chosen = np.ones(label.shape, bool) if valid is None else np.asarray(valid, bool)
        predicted, actual = prediction[chosen].astype(np.float64), label[chosen].astype(np.float64)
        self.count += actual.size
        self.squares += float(((predicted - actual) ** 2).sum())
        self.relative += float((np.abs(predicted - actual) / actual).sum())

    def result(self) -> dict[str, float]:
        if not self.count:
            return {"rmse": float("nan"), "abs_rel": float("nan")}
        return {"rmse": float(np.sqrt(self.squares / self.count)), "abs_rel": self.relative / self.count}


class NormalsMetrics:
    """``mean_angle`` in degrees between predicted and true normals, over valid pixels."""

    def __init__(self) -> None:
        self.count = 0
        self.degrees = 0.0

    def update(self, prediction: Array, label: Array, valid: Array | None = None) -> None:
        """Vectors [..., 3] of any length; by default every pixel whose label is not 0 counts."""
        _same_shape(prediction, label)
        chosen = np.any(label != 0, -1) if valid is None else np.asarray(valid, bool)
        a, b = prediction[chosen].astype(np.float64), label[chosen].astype(np.float64)
        lengths = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
        cosine = np.clip((a * b).sum(-1) / np.maximum(lengths, 1e-12), -1, 1)
        self.count += cosine.size
        self.degrees += float(np.degrees(np.arccos(cosine)).sum())

    def result(self) -> dict[str, float]:
        return {"mean_angle": self.degrees / self.count if self.count else float("nan")}


class EdgeMetrics:
    """``f1``, ``precision`` and ``recall`` of edge pixels, without tolerance."""

    def __init__(self) -> None:
        self.hits = self.predicted = self.actual = 0

    def update(self, prediction: Array, label: Array) -> None:
        """Booleans of any equal shape."""
        _same_shape(prediction, label)
        predicted, actual = np.asarray(prediction, bool), np.asarray(label, bool)
        self.hits += int((predicted & actual).sum())
        self.predicted += int(predicted.sum())
        self.actual += int(actual.sum())

    def result(self) -> dict[str, float]:
        both = self.predicted + self.actual
        return {
            "f1": 2 * self.hits / both if both else float("nan"),
            "precision": self.hits / self.predicted if self.predicted else float("nan"),
            "recall": self.hits / self.actual if self.actual else float("nan"),
        }


class TaskMetrics:
    """The metrics of one dense task, from raw head outputs at image size; the same for float and integer models.

    Pixels without a label (``edgemoe_models.datasets.arrays``) do not count, nor does depth of ``far``
    metres or more. With ``details`` segmentation also gives ``class_accuracy``, ``boundary_f1`` and each class's IoU
    as ``iou_0``, ``iou_1``, ...
    """

    def __init__(self, task: TaskConfig, far: float = DEPTH_SCALE, details: bool = False) -> None:
        self.task = task
        self.far = far
        self.borders = BoundaryMetrics(task.channels) if details and task.kind == "segmentation" else None
        kinds: dict[str, Any] = {"depth": DepthMetrics, "normals": NormalsMetrics, "edges": EdgeMetrics}
        if task.kind == "segmentation":
            self.metrics: Any = SegmentationMetrics(task.channels)
        elif task.kind in kinds:
            self.metrics = kinds[task.kind]()
        else:
            raise ValueError(f"task must be dense to be measured on scenes, not {task.kind!r}")

    def update(self, output: Array, label: Array) -> None:
        """Output [B, channels, H, W] in the head's units; label as a ``scenes.Scene`` has it, with B in front."""
        if self.task.kind == "segmentation":
            labelled = label != IGNORE
            classes = output.argmax(1).astype(np.uint8)
            self.metrics.update(classes[labelled], label[labelled])
            if self.borders:
                self.borders.update(classes, label)
        elif self.task.kind == "depth":
            metres = output[:, 0] * self.task.output_scale
            self.metrics.update(metres, label, (label > 0) & (label < self.far))
        elif self.task.kind == "normals":
            self.metrics.update(output.transpose(0, 2, 3, 1), label)
        else:
            self.metrics.update(output[:, 0] > 0, label)

    def result(self) -> dict[str, float]:
        result: dict[str, float] = self.metrics.result()
        if self.borders:
            result["class_accuracy"] = float(np.nanmean(self.metrics.class_accuracy))
            result |= self.borders.result() | {f"iou_{c}": float(iou) for c, iou in enumerate(self.metrics.iou)}
        return result
