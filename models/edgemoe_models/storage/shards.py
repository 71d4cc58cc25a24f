"""Tensors in several files that count as one, each small enough for any place: ``NAME-00001-of-00002.safetensors``, ...

The first file stands for all of them, so it is what is named wherever a weights file is wanted. All have the same
metadata. The names are those that Hugging Face's libraries give to parts of a checkpoint. NumPy only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt

from edgemoe_models.storage.tensor_file import TensorFileError, read_tensors

__all__ = ["read_shards", "shard_name", "shard_paths", "split_tensors", "whole_name"]

_NAME = re.compile(r"(?P<stem>.+)-(?P<number>[0-9]{5})-of-(?P<count>[0-9]{5})(?P<suffix>\.safetensors)", re.ASCII)
_MOST = 1000


def shard_name(stem: str, number: int, count: int) -> str:
    """File name of part ``number`` (from 1) of ``count``."""
    return f"{stem}-{number:05d}-of-{count:05d}.safetensors"


def whole_name(path: Path | str) -> str:
    """A file's name without its number: ``NAME.safetensors``; of a file that is no part its own name."""
    name = Path(path).name
    return f"{match['stem']}{match['suffix']}" if (match := _NAME.fullmatch(name)) else name


def shard_paths(path: Path | str) -> list[Path]:
    """The files for which ``path`` stands: all parts of which it is the first, else itself alone.

    Raises:
        TensorFileError: it is another part than the first, or there are impossibly many
    """
    path = Path(path)
    match = _NAME.fullmatch(path.name)
    if match is None:
        return [path]
    number, count = int(match["number"]), int(match["count"])
    if number != 1 or not 1 <= count <= _MOST:
        raise TensorFileError(f"it is part {number} of {count}; give the first, {shard_name(match['stem'], 1, count)}")
    return [path.with_name(shard_name(match["stem"], part, count)) for part in range(1, count + 1)]


def read_shards(path: Path | str) -> tuple[dict[str, npt.NDArray[Any]], dict[str, str]]:
    """Tensors by name and the metadata of a file, or of all parts of which it is the first.

    Raises:
        FileNotFoundError: there is no such file
        TensorFileError: a part is missing, cannot be read, or does not belong to the others
    """
    first, *others = shard_paths(path)
    tensors, metadata = read_tensors(first)
    for other in others:
        try:
            more, its_metadata = read_tensors(other)
        except FileNotFoundError:
            raise TensorFileError(f"its part {other.name} is missing; copy it beside the first") from None
        except TensorFileError as error:
            raise TensorFileError(f"its part {other.name}: {error}") from None
        if its_metadata != metadata or more.keys() & tensors.keys():
            raise TensorFileError(f"its part {other.name} is of another checkpoint; copy all parts again")
        tensors |= more
    return tensors, metadata


def split_tensors(sizes: Mapping[str, int], most: int) -> list[list[str]]:
    """Names of tensors, in their order, in as few runs as fit.

    Args:
        sizes: bytes of each tensor
        most: bytes of the tensors of a run, unless one tensor alone has more

    Returns:
        The names of each run; none is empty
    """
    runs: list[list[str]] = []
    used = 0
    for name, size in sizes.items():
        if not runs or used + size > most:
            runs.append([])
            used = 0
        runs[-1].append(name)
        used += size
    return runs
