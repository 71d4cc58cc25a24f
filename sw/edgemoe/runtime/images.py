"""Images as the model takes them: uint8 [H, W, 3] of its size."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from edgemoe_models.config import ModelConfig
from edgemoe_models.model_image import ModelImage
from edgemoe_models.pictures import Notes, Resize, fit, read_picture

__all__ = ["ImageLike", "prepare"]

RGB = npt.NDArray[np.uint8]
ImageLike: TypeAlias = "RGB | Path | str"


def prepare(
    image: ImageLike, model: ModelConfig, resize: Resize | None = None, notes: Notes | None = None
) -> ModelImage:
    """An array, or the file of a picture or an array, as uint8 [H, W, 3] of the model's size.

    Args:
        resize: ``crop`` or ``squeeze`` (see ``edgemoe_models.pictures.fit``); None: refuse another size
        notes: told how files were converted

    Raises:
        ValueError: it cannot be read, is no RGB image of 8 bits, or has another size; the message says what to do
    """
    size = (model.image_height, model.image_width)
    if isinstance(image, (str, Path)):
        return ModelImage(read_picture(image, size, resize, notes=notes))
    return ModelImage(fit(image, size, resize))
