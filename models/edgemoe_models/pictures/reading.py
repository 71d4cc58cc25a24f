"""Files of pictures as upright RGB of a wanted size, and files of labels as the numbers in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgemoe_models.pictures.files import PictureError, kind_of, shown
from edgemoe_models.pictures.fitting import Resize, Size, check_resize, fit, misfit, resized
from edgemoe_models.pictures.modes import depth_notes, to_rgb
from edgemoe_models.pictures.notes import Notes
from edgemoe_models.pictures.opening import allowed, opened, pixel_limit
from edgemoe_models.pictures.orientation import DamagedExif, checked, orientation_of, turned, turned_size
from edgemoe_models.storage.array_file import ArrayFileError, read_array

__all__ = ["read_picture", "read_values", "size_of"]

RGB = npt.NDArray[np.uint8]

_TURNED = "pictures are turned upright, as their EXIF orientation says"
_DAMAGED = "the EXIF orientation is damaged: the picture is taken as it lies"
_FIRST = "of several pictures or frames in a file the first is taken"
_WIDTH, _LENGTH, _ORIENTATION = 256, 257, 274  # tags of TIFF


def read_picture(
    path: Path | str,
    size: Size | None = None,
    resize: Resize | None = None,
    *,
    notes: Notes | None = None,
    max_pixels: int | None = None,
    may_turn: bool = True,
) -> RGB:
    """A file of a picture, or of an array uint8 [H, W, 3] as ``numpy.save`` writes it, as uint8 RGB [H, W, 3].

    Args:
        size: height and width that it must have, or gets; None: its own
        resize: how it gets them, as ``fit`` has it; None: another size is refused, before anything is decoded
        notes: told what was done to it; default: a warning for each kind of thing
        max_pixels: a larger picture is refused by its header; default: ``pixel_limit``
        may_turn: obey an EXIF orientation; else refuse it, where labels lie beside the picture

    Raises:
        PictureError: it cannot be read, is too large, or does not have the size; one line that names the file
    """
    check_resize(resize)
    kind = kind_of(path)
    if kind == "array" or (kind is None and Path(path).suffix.lower() == ".npy"):
        return _sized_array(path, size, resize, pixel_limit(max_pixels))
    said: list[str] = []  # told when the file is closed: whoever is told may raise, or read another
    with opened(path, pixel_limit(max_pixels)) as image:
        orientation = _orientation(image)
        if size is not None and resize is None and size[::-1] not in (image.size, image.size[::-1]):
            raise misfit(f"{shown(path)}: ", _upright_size(image, orientation), size)
        said += depth_notes(image)
        said += [_FIRST] if _has_more(image) else []
        image.load()
        orientation = orientation if image.format == "TIFF" else _orientation(image)  # in a PNG it may come last
        if orientation > 1 and not may_turn:
            raise _no_turn(path, orientation)
        said += {0: [_DAMAGED], 1: []}.get(orientation, [_TURNED])
        upright = to_rgb(image, said.append)
        if orientation > 1 and image.format != "TIFF":  # which Pillow itself turns
            upright = turned(upright, orientation)
        if size is not None and upright.size != size[::-1]:
            if resize is None:
                raise misfit(f"{shown(path)}: ", upright.size, size)
            upright = resized(upright, size, resize)
        pixels = np.asarray(upright, np.uint8)
    notes = notes or Notes()
    for text in said:
        notes.say(text, path)
    return pixels


def read_values(path: Path | str, max_pixels: int | None = None) -> npt.NDArray[Any]:
    """The numbers that a file of labels stores, unchanged: classes of a palette, disparities of 16 bits, bytes.

    Raises:
        PictureError: it cannot be read, is too large, or has an EXIF orientation: whether the labels or only the
            picture were turned is not known
    """
    with opened(path, pixel_limit(max_pixels)) as image:
        orientation = _orientation(image)
        image.load()
        orientation = max(orientation, 1 if image.format == "TIFF" else _orientation(image))
        if orientation > 1:
            raise _no_turn(path, orientation)
        return np.asarray(image)


def size_of(path: Path | str) -> tuple[int, int]:
    """Width and height of a picture as it lies, by its header.

    Raises:
        PictureError: it is no picture that can be read
    """
    with opened(path, pixel_limit(None)) as image:
        return int(image.width), int(image.height)


def _no_turn(path: Path | str, orientation: int) -> PictureError:
    return PictureError(
        f"{shown(path)}: its EXIF orientation is {orientation}, and whether the labels are turned with it is not "
        f"known; turn the pixels and remove the orientation, for picture and labels alike"
    )


def _has_more(image: Any) -> bool:
    """Whether more pictures follow the first; what is wrong with those does not matter."""
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # a decoder may raise anything, also here
        return True


def _orientation(image: Any) -> int:
    """1 to 8, or 0 where it is damaged."""
    try:
        if image.format != "TIFF":
            return orientation_of(image.info)
        return checked(image.tag_v2.get(_ORIENTATION, 1))
    except DamagedExif:
        return 0


def _upright_size(image: Any, orientation: int) -> tuple[int, int]:
    size: tuple[int, int] = image.size
    if image.format == "TIFF":  # Pillow tells the upright size only in later versions
        size = image.tag_v2[_WIDTH], image.tag_v2[_LENGTH]
    return turned_size(size, orientation)


def _sized_array(path: Path | str, size: Size | None, resize: Resize | None, limit: int) -> RGB:
    try:
        pixels = read_array(path, mapped=True)
    except (ArrayFileError, OSError) as error:
        raise PictureError(" ".join(str(error).split())) from None
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        found = f"{pixels.dtype.name} {list(pixels.shape)}"
        raise PictureError(f"{shown(path)}: must be uint8 [height, width, 3] (RGB), not {found}")
    if pixels.size > 3 * limit:
        raise PictureError(f"{shown(path)}: it has {pixels.shape[1]}x{pixels.shape[0]} pixels, {allowed(limit)}")
    try:
        return np.array(pixels if size is None else fit(pixels, size, resize))  # in memory, not in the file
    except PictureError as error:
        raise PictureError(f"{shown(path)}: {error}") from None
