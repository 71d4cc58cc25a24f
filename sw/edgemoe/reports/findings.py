"""What a prediction found, in a line or a few for people."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from edgemoe.reports.legends import class_names
from edgemoe.runtime.predictions import Classification, Depth, Edges, Features, Normals, Prediction, Segmentation

__all__ = ["finding"]

_MOST = 5  # classes that are named
_LEAST = 0.0005  # share that is named
#: Where a surface faces whose normal is most along -x, -y, -z, x, y, z of the camera (x right, y down, z forward).
_DIRECTIONS = ("facing left", "facing up", "facing the camera", "facing right", "facing down", "facing away")


def finding(prediction: Prediction, without: npt.NDArray[np.bool_] | None = None) -> str:
    """Of a class the best five, a line each: probability and name (or number); of a dense prediction its statistics.

    Args:
        prediction: of any kind
        without: pixels [H, W] whose normals mean nothing, as ``reports.legends.unlabelled`` gives them
    """
    if isinstance(prediction, Classification):
        return "\n".join(f"{best.probability:6.1%}  {best.name}" for best in prediction.topk(_MOST))
    if isinstance(prediction, Segmentation):
        return _shares(prediction)
    if isinstance(prediction, Features):
        norm = float(np.linalg.norm(prediction.vector.astype(float)))
        return f"{prediction.vector.size} features of norm {norm:.4g}"
    if isinstance(prediction, Depth):
        low, middle, high = (float(value) for value in np.percentile(prediction.metres, (0, 50, 100)))
        return f"{low:.2f} to {high:.2f} m, median {middle:.2f} m"
    if isinstance(prediction, Edges):
        return f"{prediction.mask.mean():.1%} of the pixels are edges"
    if isinstance(prediction, Normals):
        return _facing(prediction, without)
    raise TypeError(f"there are no words for {type(prediction).__name__}")


def _shares(prediction: Segmentation) -> str:
    """The largest classes and their shares of the pixels; how many others there are."""
    task = prediction.model.task(prediction.task)
    counts = np.bincount(prediction.labels.ravel(), minlength=task.channels)
    best = [int(number) for number in np.argsort(-counts, kind="stable") if counts[number]]
    names = class_names(task.channels, task.labels)
    parts = [f"{names[number]} {counts[number] / counts.sum():.1%}" for number in best[:_MOST]]
    return _with_rest(parts, len(best) - _MOST, "classes")


def _with_rest(parts: Iterable[str], rest: int, what: str) -> str:
    return ", ".join([*parts, *([f"{rest} more {what}"] if rest > 0 else [])])


def _facing(prediction: Normals, without: npt.NDArray[np.bool_] | None) -> str:
    """The pixels' shares by the direction that their surface faces most."""
    vectors = prediction.vectors.reshape(-1, 3)
    if without is not None:
        vectors = vectors[~without.ravel()]
    axis = np.abs(vectors).argmax(1)
    positive = np.take_along_axis(vectors, axis[:, None], 1)[:, 0] > 0
    counts = np.bincount(axis + 3 * positive, minlength=len(_DIRECTIONS))
    shares = counts / max(len(vectors), 1)
    best = [int(number) for number in np.argsort(-counts, kind="stable") if shares[number] >= _LEAST]
    return ", ".join(f"{_DIRECTIONS[number]} {shares[number]:.1%}" for number in best) or "no surface"
