"""NumPy's files of one array (``.npy``), read without trust and written whole or not at all.

``numpy.load`` parses the header as Python text and allocates what it says. Here the header is matched, not evaluated,
and its shape must be that of the bytes that follow.
"""

from __future__ import annotations

import io
import math
import os
import re
import stat
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgemoe_models.storage.atomic import write_bytes
from edgemoe_models.storage.checks import shown

__all__ = ["ArrayFileError", "array_bytes", "read_array", "write_array"]

_MAGIC = b"\x93NUMPY"
_LONGEST_HEADER = 10_000  # bytes; NumPy's own limit
_MOST_DIMENSIONS = 16
_LARGEST_EXTENT, _LONGEST_NUMBER = 1 << 48, 15
_VALUE = r"'[^']*'|True|False|\([\d,L ]*\)"
_ITEM = re.compile(rf"\s*['\"](descr|fortran_order|shape)['\"]\s*:\s*({_VALUE})\s*(?:,|(?=\}}))")
_HEADER = re.compile(rf"\s*\{{(?:{_ITEM.pattern}){{3}}\s*\}}\s*")
_TYPE = re.compile(r"'[<>|=]?[biuf]\d{1,2}'")


class ArrayFileError(ValueError):
    """A file that is no array of numbers, or damaged; the message names it."""


def read_array(path: Path | str, mapped: bool = False) -> npt.NDArray[Any]:
    """The array of numbers or booleans in a ``.npy`` file.

    Args:
        path: the file
        mapped: read-only, its values read from the file when they are used

    Raises:
        FileNotFoundError: there is no such file
        ArrayFileError: it cannot be read, or is not such a file; the message names it
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe would be waited for, a folder is none
            raise ValueError("it is no regular file")
        with Path(path).open("rb") as file:
            dtype, order, shape = _header(file)
            start = file.tell()
            found, needed = os.fstat(file.fileno()).st_size - start, math.prod(shape) * dtype.itemsize
            if found != needed:
                raise ValueError(f"its {dtype.name} {list(shape)} needs {needed} bytes, and {found} follow its header")
            if mapped and needed:
                array: npt.NDArray[Any] = np.memmap(path, dtype, "r", start, shape, order)
                return array
            array = np.empty(math.prod(shape), dtype)
            if file.readinto(array.view(np.uint8).data) != needed:
                raise ValueError("it became shorter while it was read")
            if dtype.kind == "b":
                array = np.not_equal(array.view(np.uint8), 0)
            return array.reshape(shape, order=order)
    except FileNotFoundError:
        raise
    except MemoryError:
        raise ArrayFileError(f"{path}: not a readable array (it is larger than the free memory)") from None
    except (OSError, ValueError) as error:
        raise ArrayFileError(f"{path}: not a readable array ({error})") from None


def _header(file: io.BufferedIOBase) -> tuple[np.dtype[Any], Any, tuple[int, ...]]:
    """Type, order (``C`` or ``F``) and shape; ValueError says what is wrong."""
    start = file.read(8)
    if start[:6] != _MAGIC or len(start) < 8:
        raise ValueError("it does not begin as a .npy file does")
    if start[6] not in (1, 2, 3):
        raise ValueError(f"version {start[6]} of the format is not known")
    length = int.from_bytes(file.read(2 if start[6] == 1 else 4), "little")
    if length > _LONGEST_HEADER:
        raise ValueError(f"its header has {length} bytes, and at most {_LONGEST_HEADER} are read")
    header = file.read(length).decode("latin1")
    values = dict(_ITEM.findall(header)) if _HEADER.fullmatch(header) else {}
    if len(header) < length or len(values) < 3:
        raise ValueError("its header is cut off, or not of an array of numbers")
    if not _TYPE.fullmatch(values["descr"]) or values["fortran_order"][0] not in "TF" or values["shape"][0] != "(":
        raise ValueError(f"its type is {shown(values['descr'])}, and only numbers and booleans are read")
    try:
        dtype = np.dtype(values["descr"].strip("'"))
    except TypeError:
        raise ValueError(f"its type is {shown(values['descr'])}, which NumPy does not have") from None
    numbers = re.findall(r"\d+", values["shape"])
    extents = [int(number) for number in numbers if len(number) <= _LONGEST_NUMBER]
    is_sane = len(extents) == len(numbers) <= _MOST_DIMENSIONS
    if not is_sane or math.prod(max(extent, 1) for extent in extents) > _LARGEST_EXTENT:
        raise ValueError(f"its shape {shown(values['shape'])} is larger than any array")
    return dtype, "F" if values["fortran_order"] == "True" else "C", tuple(extents)


def array_bytes(array: npt.NDArray[Any]) -> bytes:
    """The content of a ``.npy`` file."""
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


def write_array(path: Path | str, array: npt.NDArray[Any]) -> None:
    """Write a ``.npy`` file whole or not at all; raises SaveError."""
    write_bytes(path, array_bytes(array))
