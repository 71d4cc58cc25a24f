"""Opens a file of a picture: known formats only, the size looked at before anything is decoded, errors of one line."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from edgemoe_models.pictures.files import PictureError, kind_of, open_regular, shown
from edgemoe_models.pictures.fitting import load_pillow

__all__ = ["FORMATS", "MAX_PIXELS", "opened", "pixel_limit"]

#: What is read; of Pillow's other formats some start programs or libraries, and some do not tell their size at once.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
#: Pixels that a picture may have; the environment variable EDGEMOE_MAX_PIXELS sets another limit.
MAX_PIXELS = 64 * 1024 * 1024
#: How often a pixel counts where the decoder needs several times the memory of the others.
_SHARE = {"WEBP": 4}
#: Bytes of a file that a pixel of the limit may take.
_BYTES = 8
_BITS, _TILE_WIDTH, _TILE_LENGTH = 258, 322, 323  # tags of TIFF
#: Python's filters of warnings, and Pillow's limit and log, are the whole process's.
_GLOBALS = threading.Lock()


def pixel_limit(limit: int | None = None) -> int:
    """The limit that holds: the given one, else the environment's, else ``MAX_PIXELS``.

    Raises:
        ValueError: the environment's is no number of pixels
    """
    if limit is not None:
        return limit
    text = os.environ.get("EDGEMOE_MAX_PIXELS", "").strip()
    if not text:
        return MAX_PIXELS
    if not text.isdecimal() or len(text) > 15 or int(text) == 0:
        raise ValueError(f"EDGEMOE_MAX_PIXELS must be a number of pixels, at least 1, not {text!r}")
    return int(text)


@contextlib.contextmanager
def opened(path: Path | str, limit: int) -> Iterator[Any]:
    """A picture of which only the header has been read, as Pillow's; what fails in it is told with the file's name."""
    pillow = load_pillow(f"reading {shown(path)}")
    with open_regular(path) as file, _quiet(pillow, limit):
        try:
            with pillow.open(file, formats=FORMATS) as image:
                if trouble := _too_large(image, file, limit):
                    raise PictureError(f"{shown(path)}: {trouble}, {allowed(limit)}")
                yield image
        except PictureError:
            raise
        except Exception as error:  # a decoder may raise anything on bytes that were not made for it
            raise PictureError(f"{shown(path)}: not a readable image ({_reason(path, error, limit)})") from None


@contextlib.contextmanager
def _quiet(pillow: Any, limit: int) -> Iterator[None]:
    """No warnings and no log of Pillow's, and its own limit of pixels not below ours."""
    log = logging.getLogger("PIL")
    with _GLOBALS, warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        most, level = pillow.MAX_IMAGE_PIXELS, log.level
        pillow.MAX_IMAGE_PIXELS = None if most is None else max(most, limit)
        log.setLevel(logging.CRITICAL + 1)
        try:
            yield
        finally:
            pillow.MAX_IMAGE_PIXELS = most
            log.setLevel(level)


def _reason(path: Path | str, error: Exception, limit: int) -> str:
    name = type(error).__name__
    if name == "UnidentifiedImageError" and kind_of(path) == "picture":
        return "its header is damaged, or it has a form of pixels that is not supported"
    if name == "UnidentifiedImageError":
        return f"it is none of {', '.join(FORMATS)}"
    if name == "DecompressionBombError":
        return f"it has several times the pixels that are read, {allowed(limit)}"
    if isinstance(error, MemoryError):
        return "there is not enough memory"
    text = shown(" ".join(str(error).split()))
    return text if text and isinstance(error, (OSError, SyntaxError, ValueError)) else f"damaged: {name} {text}".strip()


def allowed(limit: int) -> str:
    """The end of a message about too many pixels."""
    return f"and up to {limit:,} are read (EDGEMOE_MAX_PIXELS sets another limit)"


def _too_large(image: Any, file: BinaryIO, limit: int) -> str:
    """What is too much, by the header; empty when nothing is."""
    width, height = image.size
    share = _SHARE.get(image.format, 1)
    if min(width, height) < 1:
        return f"it has {width}x{height} pixels"
    if width * height * share > limit:
        return f"it has {width}x{height} pixels" + (f", each of which counts {share} times" if share > 1 else "")
    if (tags := getattr(image, "tag_v2", None)) is not None:
        stored = -(-sum(tags.get(_BITS, (1,))) // 32)  # libtiff holds a whole strip or tile, as it is stored
        tile = tags.get(_TILE_WIDTH, 0) * tags.get(_TILE_LENGTH, 0)
        if max(width * height, tile) * stored > limit:
            return f"its {width}x{height} pixels or its tiles take as much memory as {limit:,} pixels and more"
    if (size := os.fstat(file.fileno()).st_size) > _BYTES * limit:
        return f"its file has {size:,} bytes, more than its pixels need"
    return ""
