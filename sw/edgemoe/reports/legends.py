"""What the colours of pictures mean: of predictions and labels alike, on pages and in files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from colorsys import hsv_to_rgb
from typing import Protocol

import numpy as np
import numpy.typing as npt

from edgemoe_models.config import ModelConfig
from edgemoe_models.datasets import camvid, camvid_official
from edgemoe_models.datasets.scenes import CLASS_NAMES, MAX_DEPTH, PALETTE

__all__ = ["NO_LABEL", "Predicted", "class_names", "colour", "colours", "legend", "ramp", "unlabelled"]

RGB = npt.NDArray[np.uint8]
Rgb = tuple[int, int, int]

#: Grey: pixels that have no label, such as the normals of the sky.
NO_LABEL: Rgb = (128, 128, 128)
_MOST_CLASSES = 40  # in a legend
#: Colours of classes, by their names; other classes have ``_ANY``.
_PALETTES = {
    CLASS_NAMES: PALETTE,
    camvid.CLASSES: camvid.PALETTE,
    camvid_official.CLASSES: camvid_official.PALETTE,
}
#: Of any classes, uint8 [256, 3]: the generated scenes' eight, then colours whose hues lie a golden section apart, so
#: that neighbours differ, in three saturations and three values.
_ANY = np.array(
    PALETTE.tolist()
    + [
        [round(255 * c) for c in hsv_to_rgb(n * 0.618034 % 1, (0.9, 0.5, 0.7)[n % 3], (0.9, 0.6, 0.75)[n // 3 % 3])]
        for n in range(256 - len(PALETTE))
    ],
    np.uint8,
)
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


def colour(
    kind: str,
    values: npt.NDArray[np.generic],
    without: npt.NDArray[np.bool_] | None = None,
    classes: Sequence[str] = (),
) -> RGB:
    """A prediction or label of a dense kind as colours [..., 3].

    Args:
        values: [H, W] or, of normals, [H, W, 3]
        without: pixels without a label [H, W], which become grey
        classes: names of a segmentation's classes, as its ``TaskConfig`` has them
    """
    colours: RGB
    if kind == "segmentation":
        palette = _PALETTES.get(tuple(classes), _ANY)
        colours = palette[np.asarray(values, int) % len(palette)].astype(np.uint8)
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
        name: colour(found.kind, found.values, unlabelled(found.kind, predictions), found.model.task(found.task).labels)
        for name, found in predictions.items()
        if found.model.task(found.task).is_dense
    }


def unlabelled(kind: str, predictions: Mapping[str, Predicted]) -> npt.NDArray[np.bool_] | None:
    """Where a prediction of this kind means nothing, as far as the image's other predictions say; None: nowhere.

    Those are normals of the sky, which has none, where a segmentation has a class of this name.
    """
    if kind != "normals":
        return None
    for found in predictions.values():
        if found.kind == "segmentation":
            task = found.model.task(found.task)
            if "sky" in (names := class_names(task.channels, task.labels)):
                return np.equal(found.values, names.index("sky"))
    return None


def class_names(channels: int, classes: Sequence[str] = ()) -> list[str]:
    """Names of a segmentation's classes: its own, else the scenes' if there are as many, else numbers.

    Args:
        channels: how many classes there are
        classes: their names, as ``TaskConfig`` has them
    """
    if classes:
        return list(classes)
    return list(CLASS_NAMES) if channels == len(CLASS_NAMES) else [f"class {number}" for number in range(channels)]


def legend(kind: str, channels: int = len(CLASS_NAMES), classes: Sequence[str] = ()) -> list[tuple[str, Rgb]]:
    """Names and colours, of the first classes if there are many; of depth none, which has a ramp.

    Args:
        kind: of the task
        channels: how many classes a segmentation has
        classes: their names, as ``TaskConfig`` has them
    """
    if kind == "segmentation":
        names = class_names(channels, classes)[:_MOST_CLASSES]
        return [(name, _one(colour(kind, np.array(number), None, classes))) for number, name in enumerate(names)]
    if kind == "normals":
        return [(name, _one(colour(kind, np.array(vector)))) for name, vector in _FACING.items()] + [
            ("sky, or no label", NO_LABEL)
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
