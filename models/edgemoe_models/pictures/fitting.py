"""Pictures at a model's size: as they are, the middle cut out, or squeezed."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from edgemoe_models.pictures.files import PictureError

__all__ = [
    "RESIZES",
    "PictureSizeError",
    "Resize",
    "Size",
    "check_resize",
    "crop_box",
    "fit",
    "load_pillow",
    "middle",
    "misfit",
    "resized",
]

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


class PictureSizeError(PictureError):
    """A picture has another size than the model's, and may not be resized."""


def misfit(where: str, found: tuple[int, int], size: Size) -> PictureSizeError:
    """What to say of a picture of another size; ``found`` is width and height, as people say it."""
    return PictureSizeError(
        f"{where}it is {found[0]}x{found[1]} pixels, but the model takes {size[1]}x{size[0]} (width x height); resize "
        f"it first, or let it be done, by resize='crop' or 'squeeze' (--resize)"
    )


def resized(image: Any, size: Size, resize: Resize) -> Any:
    """A Pillow image of mode RGB at the wanted size."""
    whole = (0.0, 0.0, float(image.width), float(image.height))
    box = crop_box(image.size, size) if resize == "crop" else whole
    return image.resize(size[::-1], load_pillow("resizing images").Resampling.BILINEAR, box)


def middle(pixels: RGB, size: Size, share: float) -> RGB:
    """The middle of what ``crop`` takes of a picture, uint8 [H, W, 3]: a share of its width and of its height, 0..1.

    Accuracy on ImageNet is by custom measured on 0.875: 256 pixels for the shorter side, and 224 of them.
    """
    left, top, right, bottom = crop_box((pixels.shape[1], pixels.shape[0]), size)
    across, down = (right - left) * (1 - share) / 2, (bottom - top) * (1 - share) / 2
    rows, columns = slice(round(top + down), round(bottom - down)), slice(round(left + across), round(right - across))
    part = pixels[rows, columns]
    return part if part.size else pixels


def crop_box(picture: tuple[int, int], size: Size) -> tuple[float, float, float, float]:
    """The largest window in the middle of a picture (width, height) that has the wanted aspect ratio.

    Returns:
        Left, top, right and bottom
    """
    (across_all, down_all), (height, width) = picture, size
    scale = max(width / across_all, height / down_all)
    across, down = min(width / scale, across_all), min(height / scale, down_all)
    left, top = (across_all - across) / 2, (down_all - down) / 2
    return left, top, min(left + across, across_all), min(top + down, down_all)


def load_pillow(what: str) -> Any:
    """``PIL.Image``; PictureError where Pillow is missing, with what needs it."""
    try:
        from PIL import Image
    except ImportError as error:
        raise PictureError(
            f"{what} needs Pillow ({error}): pip install pillow; arrays and .npy files of the model's size do without"
        ) from None
    return Image
