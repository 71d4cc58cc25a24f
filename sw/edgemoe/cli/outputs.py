"""What a verb will write is looked at before the work, so that no work is lost to a folder that cannot be written."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

__all__ = ["output_file", "output_folder"]


def output_file(path: Path, inputs: Iterable[Path] = ()) -> Path:
    """The path, if a file can be written there; nothing is made yet.

    Args:
        path: of a file that is to be written or replaced; its folders may be missing
        inputs: files that are read and must not be replaced

    Raises:
        ValueError: says why nothing can be written there
    """
    if path.is_dir():
        raise ValueError(f"{path} is a folder; give the name of a file to write")
    if path.exists() and any(given.exists() and path.samefile(given) for given in inputs):
        raise ValueError(f"{path} is read and would be replaced by what is written; give another name")
    if path.exists() and not os.access(path, os.W_OK):
        raise ValueError(f"{path} cannot be replaced: it is write-protected")
    _check_folder(path.parent)
    return path


def output_folder(path: Path) -> Path:
    """The path, if files can be written into a folder there; it may be missing, and is not made yet.

    Raises:
        ValueError: says why nothing can be written there
    """
    _check_folder(path)
    return path


def _check_folder(path: Path) -> None:
    """Raise unless the folder is there and writable, or can be made."""
    nearest = path
    while not os.path.lexists(nearest):
        nearest = nearest.parent
    if not nearest.is_dir():
        raise ValueError(f"{path} cannot be a folder: {nearest} is a file")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise ValueError(f"{path} cannot be written: no permission in {nearest}")
