"""Images as the model takes them: uint8 [H, W, 3] of its size. Pillow is imported only where it is needed."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from edgemoe_models.config import ModelConfig

__all__ = ["ImageLike", "prepare", "read_image"]

RGB = npt.NDArray[np.uint8]
ImageLike: TypeAlias = "RGB | Path | str"


def read_image(path: Path | str) -> RGB:
    """An RGB image file as uint8 [H, W, 3].

    Raises
    ------
    ValueError: no readable image, or another mode; the message says which and what to do
    """
    from PIL import Image
    try:
        with Image.open(path) as image:
            image.load()
            mode, pixels = image.mode, np.asarray(image)
    except (OSError, SyntaxError) as error:
        raise ValueError(f"{path}: not a readable image ({error})") from None
    if mode != "RGB":
        raise ValueError(f"{path}: its mode is {mode}, but the model takes RGB; convert it first")
    return np.asarray(pixels, np.uint8)


def prepare(image: ImageLike, model: ModelConfig, resize: bool = False) -> RGB:
    """An array or an image file as uint8 [H, W, 3] of the model's size.

    Parameters
    ----------
    resize: scale other sizes (bilinear, antialiased, without regard to the aspect ratio) instead of refusing them

    Raises
    ------
    ValueError: it is no RGB image of 8 bits, or has another size; the message says what to do
    """
    where = f"{image}: " if isinstance(image, (str, Path)) else ""
    pixels = read_image(image) if isinstance(image, (str, Path)) else image
    wanted = (model.image_height, model.image_width, 3)
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        found = f"{pixels.dtype.name} {list(pixels.shape)}" if isinstance(pixels, np.ndarray) else type(pixels).__name__
        raise ValueError(f"image must be uint8 {list(wanted)} (height, width, RGB) or a file's path, not {found}")
    if pixels.shape == wanted:
        return pixels
    if not resize or 0 in pixels.shape:
        raise ValueError(f"{where}it is {pixels.shape[1]}x{pixels.shape[0]} pixels, but the model takes "
                         f"{model.image_width}x{model.image_height} (width x height); resize it first, or let "
                         f"it be done: edgemoe.open(..., resize=True), edgemoe run --resize")
    from PIL import Image
    size = (model.image_width, model.image_height)
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR), np.uint8)
