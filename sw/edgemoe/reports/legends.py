"""What the colours of pictures mean: of predictions and labels alike, on pages and in files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import numpy.typing as npt

from edgemoe_models.config import ModelConfig
from edgemoe_models.datasets.scenes import CLASS_NAMES, MAX_DEPTH, PALETTE, SKY

__all__ = ["NO_LABEL", "Predicted", "colour", "colours", "has_scene_classes", "legend", "ramp", "unlabelled"]

RGB = npt.NDArray[np.uint8]
Rgb = tuple[int, int, int]

#: Grey: pixels that have no label, such as the normals of the sky.
NO_LABEL: Rgb = (128, 128, 128)
_MOST_CLASSES = 24  # in a legend
#: Unit vectors in the camera frame (x right, y down, z forward) that the legend of normals explains.
_FACING = {"right": (1, 0, 0), "left": (-1, 0, 0), "up": (0, -1, 0), "the camera": (0, 0, -1)}
#: Depth colours from near to far (a dark-to-bright ramp that is monotonic in lightness).
_RAMP = np.array([(253, 231, 37), (94, 201, 98), (33, 145, 140), (59, 82, 139), (68, 1, 84)], float)


class Predicted(Protocol):
    """Of a ``Prediction``, what its colours need."""

    @property
    def task(self) -> str:
        """Name of its task."""

    @property
    def kind(self) -> str:
        """Kind of its task."""

    @property
    def model(self) -> ModelConfig:
        """Which made it."""

    @property
    def values(self) -> npt.NDArray[np.generic]:
        """The prediction."""


def colour(kind: str, values: npt.NDArray[np.generic], without: npt.NDArray[np.bool_] | None = None) -> RGB:
    """A prediction or label of a dense kind as colours [..., 3].

    Args:
        values: [H, W] or, of normals, [H, W, 3]
        without: pixels without a label [H, W], which become grey
    """
    colours: RGB
    if kind == "segmentation":
        colours = PALETTE[np.asarray(values, int) % len(PALETTE)].astype(np.uint8)
    elif kind == "depth":
        colours = ramp(np.asarray(values, float) / MAX_DEPTH)
    elif kind == "normals":
        colours = np.rint((np.asarray(values, float) + 1) * 127.5).clip(0, 255).astype(np.uint8)
    else:
        colours = np.repeat(np.where(np.asarray(values, bool), 255, 0).astype(np.uint8)[..., None], 3, -1)
    if without is not None:
        colours = np.where(without[..., None], np.array(NO_LABEL, np.uint8), colours).astype(np.uint8)
    return colours


def colours(predictions: Mapping[str, Predicted]) -> dict[str, RGB]:
    """The dense predictions of one image as colours, by task; grey where they have no label."""
    return {
        name: colour(found.kind, found.values, unlabelled(found.kind, predictions))
        for name, found in predictions.items()
        if found.model.task(found.task).is_dense
    }


def unlabelled(kind: str, predictions: Mapping[str, Predicted]) -> npt.NDArray[np.bool_] | None:
    """Where a prediction of this kind means nothing, as far as the image's other predictions say; None: nowhere.

    Those are normals of the sky, which has none, where a segmentation with the scenes' classes sees it.
    """
    if kind != "normals":
        return None
    return next((np.equal(found.values, SKY) for found in predictions.values() if _tells_sky(found)), None)


def _tells_sky(found: Predicted) -> bool:
    return found.kind == "segmentation" and has_scene_classes(found.model.task(found.task).channels)


def has_scene_classes(channels: int) -> bool:
    """Whether a segmentation of so many classes is taken to have the generated scenes' classes."""
    return channels == len(CLASS_NAMES)


def legend(kind: str, channels: int = len(CLASS_NAMES)) -> list[tuple[str, Rgb]]:
    """Names and colours; of depth none, which has a ramp. ``channels``: classes of a segmentation."""
    if kind == "segmentation":
        count = min(channels, _MOST_CLASSES)
        names = CLASS_NAMES if has_scene_classes(channels) else [f"class {number}" for number in range(count)]
        return [(name, _one(colour(kind, np.array(number)))) for number, name in enumerate(names)]
    if kind == "normals":
        return [(name, _one(colour(kind, np.array(vector)))) for name, vector in _FACING.items()] + [
            ("no label", NO_LABEL)
        ]
    return [("edge", (255, 255, 255)), ("no edge", (0, 0, 0))] if kind == "edges" else []


def ramp(values: npt.NDArray[np.float64]) -> RGB:
    """Depth's colours of values 0..1."""
    position = np.clip(values, 0, 1) * (len(_RAMP) - 1)
    low = np.minimum(position.astype(int), len(_RAMP) - 2)
    share = (position - low)[..., None]
    found: RGB = np.rint(_RAMP[low] * (1 - share) + _RAMP[low + 1] * share).astype(np.uint8)
    return found


def _one(rgb: RGB) -> Rgb:
    red, green, blue = (int(value) for value in rgb)
    return red, green, blue
