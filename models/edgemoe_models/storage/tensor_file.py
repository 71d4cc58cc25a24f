"""Tensors and metadata of a safetensors file, read in plain NumPy: a board has nothing else.

The format: 8 bytes with the header's length, the header (JSON: ``dtype``, ``shape`` and ``data_offsets`` of each
tensor, and ``__metadata__``), the tensors' bytes without gaps. All of the header is checked against the file's size
before anything is allocated.
"""

from __future__ import annotations

import io
import math
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgemoe_models.storage import checks
from edgemoe_models.storage.atomic import write_bytes
from edgemoe_models.storage.json_text import JsonError, parse_json

__all__ = [
    "TensorFileError",
    "parse_tensors",
    "read_metadata",
    "read_tensors",
    "tensor_bytes",
    "write_tensors",
]

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
    "BF16": "<u2",  # NumPy has no such type: read as float32, which holds every value
}
_LONGEST_HEADER = 100_000_000  # bytes; safetensors' own limit
_MOST_DIMENSIONS = 16
_LARGEST_EXTENT = 1 << 48


class TensorFileError(ValueError):
    """A file that is no safetensors file, or damaged; the message does not name it."""


@dataclass(frozen=True)
class _Tensor:
    """What the header says of a tensor.

    Attributes:
        dtype: as safetensors names it: ``I8``, ``F32``, ``BF16``, ...
        shape: of the tensor
        begin: where its bytes begin, after the header
    """

    dtype: str
    shape: tuple[int, ...]
    begin: int

    @property
    def size(self) -> int:
        """Bytes of the tensor."""
        return math.prod(self.shape) * np.dtype(_DTYPES[self.dtype]).itemsize


def read_tensors(path: Path | str, largest: int = 1 << 40) -> tuple[dict[str, Array], dict[str, str]]:
    """Tensors by name, and the metadata.

    Args:
        path: the file
        largest: bytes that it may have; a file with holes takes no room on the disk, but in memory

    Raises:
        FileNotFoundError: there is no such file
        TensorFileError: it cannot be read
    """
    with _open(path) as file:
        if (size := file.seek(0, io.SEEK_END)) > largest:
            raise TensorFileError(f"it has {size:,} bytes, and at most {largest:,} are read")
        return _read(file)


def parse_tensors(content: bytes) -> tuple[dict[str, Array], dict[str, str]]:
    """What ``read_tensors`` gives of a file with this content; raises TensorFileError like it."""
    return _read(io.BytesIO(content))


def read_metadata(source: Path | str | bytes) -> dict[str, str]:
    """The metadata of a file, or of its content; raises as the others, but does not look at the tensors."""
    with io.BytesIO(source) if isinstance(source, bytes) else _open(source) as file:
        return _header(file)[1]


def tensor_bytes(tensors: Mapping[str, Array], metadata: Mapping[str, str]) -> bytes:
    """The content of a safetensors file; equal tensors and (at most one entry of) metadata give equal bytes."""
    import safetensors.numpy  # not where files are only read: a board has NumPy and PYNQ

    arrays = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    content: bytes = safetensors.numpy.save(arrays, dict(metadata))
    return content


def write_tensors(path: Path | str, tensors: Mapping[str, Array], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file whole or not at all; raises SaveError."""
    write_bytes(path, tensor_bytes(tensors, metadata))


def _open(path: Path | str) -> io.BufferedIOBase:
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe would be waited for, a folder is none
            raise TensorFileError("it is no regular file")
        return Path(path).open("rb")
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise TensorFileError(str(error)) from None


def _read(file: io.BufferedIOBase) -> tuple[dict[str, Array], dict[str, str]]:
    header, metadata, start = _header(file)
    try:
        infos = {name: _info(name, value) for name, value in header.items()}
        _check_layout(infos, file.seek(0, io.SEEK_END) - start)
        return {name: _tensor(file, start, info) for name, info in infos.items()}, metadata
    except checks.FieldError as error:
        raise TensorFileError(f"its header is wrong: {error}") from None
    except OSError as error:
        raise TensorFileError(str(error)) from None
    except MemoryError:
        raise TensorFileError("it is larger than the free memory") from None


def _header(file: io.BufferedIOBase) -> tuple[dict[str, Any], dict[str, str], int]:
    """What the header says of the tensors, unchecked; the metadata; where the tensors' bytes begin in the file."""
    try:
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, _LONGEST_HEADER):
            raise TensorFileError("its header is cut off")
        header = checks.record(parse_json(file.read(length), _LONGEST_HEADER), "the header", (), others=True)
        metadata = checks.record(header.pop("__metadata__", {}), "metadata", (), others=True)
        if not all(isinstance(value, str) for value in metadata.values()):
            raise TensorFileError("its metadata must be strings")
    except TensorFileError:
        raise
    except (OSError, JsonError, checks.FieldError) as error:
        raise TensorFileError(f"its header is wrong: {error}") from None
    return header, metadata, 8 + length


def _info(name: str, value: object) -> _Tensor:
    entry = checks.record(value, f"tensor {checks.shown(name)}", ("dtype", "shape", "data_offsets"))
    if not isinstance(entry["dtype"], str) or entry["dtype"] not in _DTYPES:
        raise TensorFileError(f"tensor {name} has the type {checks.shown(entry['dtype'])}, which is not read")
    shape = checks.items(entry["shape"], f"shape of {name}", 0, _MOST_DIMENSIONS)
    extents = tuple(checks.integer(extent, f"shape of {name}", 0, _LARGEST_EXTENT) for extent in shape)
    offsets = checks.items(entry["data_offsets"], f"data_offsets of {name}", 2, 2)
    begin, end = (checks.integer(offset, f"data_offsets of {name}", 0, 1 << 62) for offset in offsets)
    info = _Tensor(entry["dtype"], extents, begin)
    if end - begin != info.size or math.prod(max(extent, 1) for extent in extents) > _LARGEST_EXTENT:
        raise TensorFileError(f"tensor {name} has {end - begin} bytes, and its shape {list(extents)} needs {info.size}")
    return info


def _check_layout(infos: Mapping[str, _Tensor], size: int) -> None:
    """Refuse gaps, overlaps, and bytes that are not there or belong to no tensor."""
    place = 0
    for name, info in sorted(infos.items(), key=lambda item: (item[1].begin, item[1].size)):
        if info.begin != place:
            raise TensorFileError(
                f"tensor {name} begins at byte {info.begin}, not at {place} where the one before ends"
            )
        place += info.size
    if place != size:
        raise TensorFileError(f"it has {size} bytes of tensors, but its header tells of {place}")


def _tensor(file: io.BufferedIOBase, start: int, info: _Tensor) -> Array:
    array: Array = np.empty(info.shape, _DTYPES[info.dtype])
    flat = array.reshape(-1).view(np.uint8)
    file.seek(start + info.begin)
    if file.readinto(flat.data) != info.size:
        raise TensorFileError("it became shorter while it was read")
    if info.dtype == "BOOL":
        return np.not_equal(array.view(np.uint8), 0)
    if info.dtype == "BF16":
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array
