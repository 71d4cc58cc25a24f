"""The image as a model takes it: uint8 [H, W, 3], RGB, of the model's size. NumPy only."""

from __future__ import annotations

from typing import Any, NewType

import numpy as np
import numpy.typing as npt

from edgemoe_models.config import ModelConfig

__all__ = ["ModelImage", "check_image", "patchify"]

#: An image that has been checked: whatever takes one need not look again. Only ``check_image`` and the reader of
#: pictures make it.
ModelImage = NewType("ModelImage", npt.NDArray[np.uint8])


def check_image(model: ModelConfig, image: Any) -> ModelImage:
    """The image itself, if it is what the model takes.

    Raises:
        ValueError: it is no array uint8 [H, W, 3] of the model's size
    """
    wanted = (model.image_height, model.image_width, 3)
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.shape != wanted:
        found = f"{image.dtype.name} {list(image.shape)}" if isinstance(image, np.ndarray) else type(image).__name__
        raise ValueError(f"image must be uint8 {list(wanted)} (height, width, RGB), not {found}")
    return ModelImage(image)


def patchify(image: npt.NDArray[np.uint8], patch: int) -> npt.NDArray[np.uint8]:
    """An image [H, W, 3] as patches [P, 3 * patch * patch], row by row, pixels in (channel, y, x) order."""
    height, width, channels = image.shape
    grid = image.reshape(height // patch, patch, width // patch, patch, channels)
    return np.ascontiguousarray(grid.transpose(0, 2, 4, 1, 3)).reshape(-1, channels * patch * patch)
