"""Files of pictures and labels as arrays of the wanted size. A picture is squeezed to it whole, nothing is cut off."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgemoe_models import pictures
from edgemoe_models.storage import array_file

Array = npt.NDArray[Any]
Size = tuple[int, int]

_NOTES = pictures.Notes()
_SILENT = pictures.Notes(lambda text: None)  # a palette's colours are what is wanted of a label


def size_of(text: str, name: str = "label_size") -> Size | None:
    """Height and width of ``HEIGHTxWIDTH``; None of an empty text. ``name`` is the option's.

    Raises:
        ValueError: it is no such text
    """
    if not text:
        return None
    match = re.fullmatch(r"(\d{1,4})x(\d{1,4})", text, re.ASCII)
    if match is None or not int(match[1]) * int(match[2]):
        raise ValueError(f"{name} must be HEIGHTxWIDTH, as 192x256, not {text!r}")
    return int(match[1]), int(match[2])


def read_picture(path: Path, size: Size) -> Array:
    """An image file as uint8 RGB [height, width, 3], averaged down.

    Raises:
        ValueError: it cannot be read, or has an EXIF orientation: labels may lie as its pixels do, or as it is shown
    """
    _require(path)
    return pictures.read_picture(path, size, "squeeze", notes=_NOTES, may_turn=False)


def resize_picture(image: Array, size: Size) -> Array:
    """uint8 [H, W, 3] -> [height, width, 3]."""
    return pictures.fit(image, size, "squeeze")


def read_image_values(path: Path) -> Array:
    """An image file's stored numbers: classes of a palette image, 16-bit disparities, bytes. [H, W] or [H, W, 3]

    Raises:
        ValueError: it cannot be read, or has an EXIF orientation, as ``read_picture``
    """
    _require(path)
    return pictures.read_values(path)


def read_colours(path: Path) -> Array:
    """An image file of labels in colours as uint8 RGB [H, W, 3], each pixel as it is stored.

    Raises:
        ValueError: it cannot be read, or has an EXIF orientation, as ``read_picture``
    """
    _require(path)
    return pictures.read_picture(path, notes=_SILENT, may_turn=False)


def require_same_size(picture: Path, label: Path) -> None:
    """Refuse a label that is of another size than its picture: it would lie elsewhere than what it names.

    Raises:
        FileNotFoundError: one is missing
        ValueError: they differ, or cannot be read
    """
    _require(picture)
    _require(label)
    (wide, high), (across, down) = pictures.size_of(picture), pictures.size_of(label)
    if (wide, high) != (across, down):
        raise ValueError(f"{label}: it is {across}x{down} pixels, but its picture {picture} is {wide}x{high}")


def _require(path: Path) -> None:
    if not path.exists():  # the data set says where it is to be had
        raise FileNotFoundError(2, "no such file", str(path))


def read_array(folder: Path, name: str, key: str = "") -> Array:
    """``name`` with .npy, .png or .mat, whichever is there; ``key`` is the variable of a .mat file.

    Raises:
        FileNotFoundError: none is there.
        ValueError: a .mat file without SciPy, or without its variable; an .npy file with pickled objects.
    """
    for suffix, read in ((".npy", array_file.read_array), (".png", read_image_values)):
        if (path := folder / f"{name}{suffix}").is_file():
            return read(path)
    if (path := folder / f"{name}.mat").is_file():
        return _read_mat(path, key)
    raise FileNotFoundError(2, "no such file", str(folder / f"{name}.npy (or .png, .mat)"))


def _read_mat(path: Path, key: str) -> Array:
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise ValueError(f"{path} is a MATLAB file: install SciPy to read it (pip install scipy)") from error
    try:
        variables = loadmat(path)
    except Exception as error:  # a damaged file ends in any of Python's errors
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ValueError(f"{path}: not a readable MATLAB file ({reason})") from None
    own = [name for name in variables if not name.startswith("__")]
    chosen = key if key in own or len(own) != 1 else own[0]
    if chosen not in own:
        raise ValueError(f"{path} must have the variable {key!r}, not only {sorted(own)!r}")
    return np.asarray(variables[chosen])


def nearest(array: Array, size: Size) -> Array:
    """[H, W, ...] -> [height, width, ...]: the value at each new pixel's centre, so that no label is mixed."""
    rows, columns = (((np.arange(n) + 0.5) * old / n).astype(int) for n, old in zip(size, array.shape, strict=False))
    result: Array = array[rows[:, None], columns]
    return result


def any_in_cell(array: Array, size: Size) -> Array:
    """Booleans [H, W] -> [height, width]: whether any old pixel of a new one is set, so that thin lines stay whole."""
    rows, columns = (np.arange(n) * old // n for n, old in zip(size, array.shape, strict=False))
    return np.logical_or.reduceat(np.logical_or.reduceat(array, rows, 0), columns, 1)


def boundaries(labels: Array) -> Array:
    """Where the right or the lower neighbour has another label, as scenes mark edges. [H, W] -> bool [H, W]"""
    edges = np.zeros(labels.shape, bool)
    edges[:, :-1] = labels[:, :-1] != labels[:, 1:]
    edges[:-1] |= labels[:-1] != labels[1:]
    return edges


def class_borders(classes: Array, ignore: int) -> Array:
    """Where the right or the lower neighbour is of another class and neither is ``ignore``. [H, W] -> bool [H, W]"""
    edges = np.zeros(classes.shape, bool)
    labelled = classes != ignore
    edges[:, :-1] = (classes[:, :-1] != classes[:, 1:]) & labelled[:, :-1] & labelled[:, 1:]
    edges[:-1] |= (classes[:-1] != classes[1:]) & labelled[:-1] & labelled[1:]
    return edges


def signed(array: Array) -> Array:
    """Vectors from their file: bytes 0..255 stand for -1..1, floats for themselves."""
    return array * (2.0 / 255) - 1 if array.dtype == np.uint8 else array.astype(np.float64)


def unit_vectors(array: Array) -> Array:
    """[..., 3] scaled to length 1; what is not finite or (nearly) 0 becomes 0."""
    vectors = np.where(np.isfinite(array).all(-1, keepdims=True), array, 0)
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.where(length > 1e-3, vectors / np.maximum(length, 1e-3), 0)


def read_text(path: Path) -> str:
    """A list or table that belongs to a data set; it may begin with a byte order mark.

    Raises:
        ValueError: it is not text in UTF-8
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{path}: it is not text in UTF-8; unpack or download the data set again") from None


def read_names(path: Path) -> list[str]:
    """One name a line."""
    return read_text(path).split()


def contents(root: Path, without: Path) -> list[str]:
    """Every file of a folder with its size and the time of its last change, sorted: what was made of it is stale when
    this is another. Hidden ones do not count, nor does the folder ``without``; links are followed, each folder once."""
    found: list[str] = []
    known = {_identity(without)}
    folders = [root]
    while folders:
        folder = folders.pop()
        if (identity := _identity(folder)) is None or identity in known:
            continue
        known.add(identity)
        for entry in os.scandir(folder):
            with contextlib.suppress(OSError):  # a link to nowhere
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    folders.append(Path(entry.path))
                elif entry.is_file():
                    about = entry.stat()
                    found.append(f"{os.path.relpath(entry.path, root)} {about.st_size} {about.st_mtime_ns}")
    return sorted(found)


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        about = folder.stat()
    except OSError:
        return None
    return about.st_dev, about.st_ino
