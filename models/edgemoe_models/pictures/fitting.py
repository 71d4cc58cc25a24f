"""Pictures at a model's size: as they are, the middle cut out, or squeezed."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from edgemoe_models.pictures.files import PictureError

__all__ = ["RESIZES", "Resize", "Size", "check_resize", "fit", "load_pillow", "misfit", "resized"]

RGB = npt.NDArray[np.uint8]
Size = tuple[int, int]  # height, width
Resize: TypeAlias = Literal["crop", "squeeze"]
RESIZES: tuple[str, ...] = get_args(Resize)


def check_resize(resize: object) -> Resize | None:
    """``crop``, ``squeeze`` or None as it is; ValueError when it is something else."""
    if resize is None or resize == "crop" or resize == "squeeze":
        return resize
    raise ValueError(f"resize must be 'crop' (the middle), 'squeeze' (all of it) or None, not {resize!r}")


def fit(pixels: object, size: Size, resize: Resize | None = None) -> RGB:
    """An array uint8 [H, W, 3] as one of the wanted size.

    Args:
        size: height and width
        resize: ``crop``: the largest window in the middle of the wanted aspect ratio, scaled; ``squeeze``: all of the
            picture, height and width scaled each by itself; both bilinear and antialiased. None: refuse other sizes

    Raises:
        ValueError: it is no such array, or has another size and may not be resized
    """
    check_resize(resize)
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        found = f"{pixels.dtype.name} {list(pixels.shape)}" if isinstance(pixels, np.ndarray) else type(pixels).__name__
        raise ValueError(f"image must be uint8 {[*size, 3]} (height, width, RGB) or a file's path, not {found}")
    if pixels.shape[:2] == size:
        return pixels
    if resize is None or 0 in pixels.shape:
        raise misfit("", (pixels.shape[1], pixels.shape[0]), size)
    pillow = load_pillow("resizing images")
    return np.asarray(resized(pillow.fromarray(pixels), size, resize), np.uint8)


def misfit(where: str, found: tuple[int, int], size: Size) -> PictureError:
    """What to say of a picture of another size; ``found`` is width and height, as people say it."""
    return PictureError(
        f"{where}it is {found[0]}x{found[1]} pixels, but the model takes {size[1]}x{size[0]} (width x height); resize "
        f"it first, or let it be done, by resize='crop' or 'squeeze' (--resize)"
    )


def resized(image: Any, size: Size, resize: Resize) -> Any:
    """A Pillow image of mode RGB at the wanted size."""
    height, width = size
    box = (0.0, 0.0, float(image.width), float(image.height))
    if resize == "crop":
        scale = max(width / image.width, height / image.height)
        across, down = min(width / scale, image.width), min(height / scale, image.height)
        left, top = (image.width - across) / 2, (image.height - down) / 2
        box = (left, top, min(left + across, image.width), min(top + down, image.height))
    return image.resize((width, height), load_pillow("resizing images").Resampling.BILINEAR, box)


def load_pillow(what: str) -> Any:
    """``PIL.Image``; PictureError where Pillow is missing, with what needs it."""
    try:
        from PIL import Image
    except ImportError as error:
        raise PictureError(
            f"{what} needs Pillow ({error}): pip install pillow; arrays and .npy files of the model's size do without"
        ) from None
    return Image
