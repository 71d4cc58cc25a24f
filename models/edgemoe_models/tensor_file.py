"""Reading tensors and metadata of a safetensors file; in plain NumPy where the safetensors package is not installed.

A board has NumPy and PYNQ. The format: 8 bytes with the header's length, the header (JSON: ``dtype``, ``shape`` and
``data_offsets`` of each tensor, and ``__metadata__``), the tensors' bytes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["TensorFileError", "read_tensors"]

Array = npt.NDArray[Any]
_DTYPES = {
    "U8": "u1",
    "I8": "i1",
    "I16": "<i2",
    "U16": "<u2",
    "I32": "<i4",
    "U32": "<u4",
    "I64": "<i8",
    "U64": "<u8",
    "F16": "<f2",
    "F32": "<f4",
    "F64": "<f8",
    "BOOL": "?",
}
_LONGEST_HEADER = 100_000_000  # bytes; safetensors' own limit


class TensorFileError(ValueError):
    """A file that is no safetensors file, or damaged."""


def read_tensors(path: Path) -> tuple[dict[str, Array], dict[str, str]]:
    """Tensors by name, and the metadata.

    Raises:
        FileNotFoundError: there is no such file
        TensorFileError: it cannot be read
    """
    try:
        import safetensors
    except ImportError:
        return _read_plain(path)
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except FileNotFoundError:
        raise
    except (safetensors.SafetensorError, OSError) as error:
        raise TensorFileError(str(error)) from None


def _read_plain(path: Path) -> tuple[dict[str, Array], dict[str, str]]:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise TensorFileError(str(error)) from None
    length = int.from_bytes(content[:8], "little")
    if len(content) < 8 or length > min(len(content) - 8, _LONGEST_HEADER):
        raise TensorFileError("its header is cut off")
    try:
        header = json.loads(content[8 : 8 + length])
        metadata = header.pop("__metadata__", {})
        data = memoryview(content)[8 + length :]
        return {name: _tensor(data, **entry) for name, entry in header.items()}, metadata
    except (UnicodeDecodeError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise TensorFileError(f"its header is wrong: {error}") from None


def _tensor(data: memoryview, dtype: str, shape: list[int], data_offsets: list[int]) -> Array:
    begin, end = data_offsets
    if not 0 <= begin <= end <= len(data):
        raise ValueError(f"bytes {begin} to {end} do not exist")
    return np.frombuffer(data[begin:end], _DTYPES[dtype]).reshape(shape).copy()
