"""Masks of classes at a model's size, under the pixels of their picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgemoe_models.config import TaskConfig
from edgemoe_models.datasets.arrays import IGNORE
from edgemoe_models.pictures import PictureError, Resize, read_values, shown
from edgemoe_models.pictures.fitting import Size, crop_box, misfit

__all__ = ["read_mask"]


def read_mask(
    path: Path, task: TaskConfig, size: Size, resize: Resize | None, void: int = IGNORE
) -> npt.NDArray[np.uint8]:
    """The class of each pixel at the model's size, uint8 [height, width]; ``IGNORE`` where a pixel has none.

    Each new pixel has the class at its centre, in the part of the mask that ``resize`` takes of a picture.

    Args:
        path: of a picture with one channel of class numbers, or with a palette
        task: a segmentation
        size: height and width
        resize: as the picture gets this size; None: the mask must have it
        void: what stands in the file where a pixel has no class

    Raises:
        PictureError: it cannot be read, has another size, more channels, or a class that the model does not have
    """
    values = read_values(path)
    if values.ndim != 2 or values.dtype.kind not in "bui":
        raise PictureError(f"{shown(path)}: a mask has one channel, the number of each pixel's class; this has colours")
    classes = np.where(values == void, IGNORE, values.astype(np.int64))
    wrong = ((classes < 0) | (classes >= task.channels)) & (values != void)
    if wrong.any():
        raise PictureError(
            f"{shown(path)}: it has the class {int(classes[wrong][0])}, and {task.name} has 0 to {task.channels - 1} "
            f"({void}: no label; --void)"
        )
    return _nearest(path, classes, size, resize).astype(np.uint8)


def _nearest(path: Path, values: npt.NDArray[Any], size: Size, resize: Resize | None) -> npt.NDArray[Any]:
    if values.shape == size:
        return values
    height, width = values.shape
    if resize is None:
        raise misfit(f"{shown(path)}: ", (width, height), size)
    left, top, right, bottom = crop_box((width, height), size) if resize == "crop" else (0.0, 0.0, width, height)
    rows = (top + (np.arange(size[0]) + 0.5) * ((bottom - top) / size[0])).astype(int)
    columns = (left + (np.arange(size[1]) + 0.5) * ((right - left) / size[1])).astype(int)
    result: npt.NDArray[Any] = values[np.minimum(rows, height - 1)[:, None], np.minimum(columns, width - 1)]
    return result
