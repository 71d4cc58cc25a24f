"""Images as the model takes them: uint8 [H, W, 3] of its size. Pillow is imported only where it is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from edgemoe_models.config import ModelConfig

__all__ = ["ImageLike", "prepare", "read_image"]

RGB = npt.NDArray[np.uint8]
ImageLike: TypeAlias = "RGB | Path | str"


def read_image(path: Path | str) -> RGB:
    """An RGB image file as uint8 [H, W, 3], or an array from a ``.npy`` file, which needs no Pillow.

    Raises:
        ValueError: no readable image, or another mode; the message says which and what to do
    """
    if Path(path).suffix.lower() == ".npy":
        return _read_array(path)
    pillow = _pillow(f"reading {path}")
    try:
        with pillow.open(path) as image:
            image.load()
            mode, pixels = image.mode, np.asarray(image)
    except (OSError, SyntaxError, ValueError, pillow.DecompressionBombError) as error:
        raise ValueError(f"{path}: not a readable image ({error})") from None
    if mode != "RGB":
        raise ValueError(f"{path}: its mode is {mode}, but the model takes RGB; convert it first")
    return np.asarray(pixels, np.uint8)


def _read_array(path: Path | str) -> RGB:
    try:
        pixels = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{path}: not a readable array ({error})") from None
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        found = f"{pixels.dtype.name} {list(pixels.shape)}" if isinstance(pixels, np.ndarray) else "several arrays"
        raise ValueError(f"{path}: must be uint8 [height, width, 3] (RGB), not {found}")
    return pixels


def _pillow(what: str) -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise ValueError(
            f"{what} needs Pillow ({error}): pip install pillow; arrays and .npy files of the model's size do without"
        ) from None
    return Image


def prepare(image: ImageLike, model: ModelConfig, resize: bool = False) -> RGB:
    """An array or an image file as uint8 [H, W, 3] of the model's size.

    Args:
        resize: scale other sizes (bilinear, antialiased, without regard to the aspect ratio) instead of refusing them

    Raises:
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
        raise ValueError(
            f"{where}it is {pixels.shape[1]}x{pixels.shape[0]} pixels, but the model takes "
            f"{model.image_width}x{model.image_height} (width x height); resize it first, or let "
            f"it be done: edgemoe.open(..., resize=True), edgemoe run --resize"
        )
    pillow, size = _pillow("resizing images"), (model.image_width, model.image_height)
    return np.asarray(pillow.fromarray(pixels).resize(size, pillow.Resampling.BILINEAR), np.uint8)
