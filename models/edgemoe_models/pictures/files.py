"""Files of pictures: which of a folder's they are, what they hold by their first bytes, and a safe way to open them."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO, Literal

__all__ = ["PICTURE_SUFFIXES", "PictureError", "kind_of", "open_regular", "picture_files", "shown"]

#: Which files of a folder count as pictures. A file that is named by itself needs none of them.
PICTURE_SUFFIXES = frozenset(
    (".bmp", ".gif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp")
)
_ARRAY = b"\x93NUMPY"
_PICTURES = (
    b"\x89PNG",
    b"\xff\xd8\xff",  # JPEG
    b"GIF8",
    b"BM",
    b"II*\0",  # TIFF, little-endian, and below big-endian and the forms with 64-bit offsets
    b"MM\0*",
    b"II+\0",
    b"MM\0+",
    *(b"P%d" % number for number in range(1, 7)),  # PBM, PGM, PPM
    b"Pf",
)


class PictureError(ValueError):
    """A picture cannot be read, or not at the wanted size; one line that names the file."""


def shown(path: Path | str) -> str:
    """A path as text that every terminal and every JSON takes: names may hold any byte but two."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in str(path))


def open_regular(path: Path | str) -> BinaryIO:
    """A file for reading. What is no regular file is refused: a pipe would wait for its other end.

    Raises:
        PictureError: there is no such file, it may not be read, or it is something else
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    try:
        number = os.open(path, flags)
    except OSError as error:
        reason = "there is no such file" if isinstance(error, FileNotFoundError) else error.strerror or str(error)
        raise PictureError(f"{shown(path)}: {reason}") from None
    except ValueError as error:  # a zero byte in the name
        raise PictureError(f"{shown(path)}: {error}") from None
    mode = os.fstat(number).st_mode
    if not stat.S_ISREG(mode):
        os.close(number)
        raise PictureError(f"{shown(path)}: {'a folder' if stat.S_ISDIR(mode) else 'not a regular file'}, no picture")
    return os.fdopen(number, "rb")


def kind_of(path: Path | str) -> Literal["picture", "array"] | None:
    """What a file seems to hold by its first bytes: a picture, a NumPy array, or neither.

    Raises:
        PictureError: it cannot be opened
    """
    with open_regular(path) as file:
        try:
            start = file.read(12)
        except OSError as error:
            raise PictureError(f"{shown(path)}: {error.strerror}") from None
    if start.startswith(_ARRAY):
        return "array"
    return "picture" if start.startswith(_PICTURES) or (start[:4] == b"RIFF" and start[8:] == b"WEBP") else None


def picture_files(folder: Path | str, recursive: bool = False) -> list[Path]:
    """The pictures of a folder by suffix, in the order of their paths. Hidden files do not count, nor do pipes and the
    like, nor links that lead nowhere; linked folders are not followed.

    Args:
        recursive: those of its subfolders too

    Raises:
        PictureError: the folder cannot be read, or has no pictures
    """

    def refuse(error: OSError) -> None:
        if error.filename == str(folder):
            raise PictureError(f"{shown(folder)}: {error.strerror}") from None

    found = []
    for place, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if recursive and not name.startswith(".")]
        for name in names:
            path = Path(place, name)
            if path.suffix.lower() in PICTURE_SUFFIXES and not name.startswith(".") and os.path.isfile(path):
                found.append(path)
    if not found:
        known = ", ".join(sorted(PICTURE_SUFFIXES))
        raise PictureError(f"{shown(folder)}: no pictures in this folder; known are {known}")
    return sorted(found)
