"""Where results lie that can be made again, and how: one rule for quantized graphs, scenes, Verilog and simulators.

An entry's name comes from the contents of all that it depends on, so an entry is never stale. Entries appear whole
(``storage.atomic``); what is torn, or not what its maker left, is made again. Processes that need the same entry at
the same time may each make it, and none fails.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from edgemoe_models.storage.atomic import SaveError, new_folder, write_bytes

__all__ = ["cache_root", "cached", "cached_folder", "cached_text", "checkout", "is_sealed", "results_root", "seal"]

_Entry = TypeVar("_Entry")
_ATTEMPTS, _PAUSE = 20, 0.01  # to read a folder that another process may be replacing


def checkout() -> Path | None:
    """The root of the checkout that this package is part of; None where it is installed."""
    folder = Path(__file__).resolve().parents[2]
    return folder.parent if folder.name == "models" and (folder.parent / "pyproject.toml").is_file() else None


def cache_root() -> Path:
    """``$EDGEMOE_BUILD``, or ``build/`` of the checkout, or the user's cache folder where edgemoe is installed."""
    if chosen := os.environ.get("EDGEMOE_BUILD"):
        return Path(chosen).expanduser().absolute()
    if (root := checkout()) is not None:
        return root / "build"
    try:
        from platformdirs import user_cache_path
    except ImportError:  # on a board, which is a Linux
        return _linux_cache()
    return Path(user_cache_path("edgemoe", appauthor=False))


def results_root() -> Path:
    """Folder of the current one for what commands write unless told where: ``build`` with a checkout.

    Where edgemoe is installed it is ``edgemoe-results``: ``build`` may be somebody else's there.
    """
    return Path("build") if checkout() is not None else Path("edgemoe-results")


def _linux_cache() -> Path:
    if chosen := os.environ.get("XDG_CACHE_HOME"):
        return Path(chosen) / "edgemoe"
    try:
        return Path.home() / ".cache" / "edgemoe"
    except RuntimeError:  # a user without a home
        return Path(tempfile.gettempdir()) / "edgemoe-cache"


def _always() -> bool:
    return True


def cached(
    path: Path,
    read: Callable[[Path], _Entry],
    make: Callable[[], _Entry],
    content: Callable[[_Entry], bytes],
    keep: Callable[[], bool] = _always,
) -> _Entry:
    """The entry at ``path``; where there is none that can be read, it is made and kept.

    An entry that cannot be kept (no space, no permission) is a warning, since it was made.

    Args:
        path: its name changes with all that the entry depends on
        read: the entry of a file; OSError or ValueError where it is no good
        make: the entry, at any cost
        content: the entry as the bytes that ``read`` takes
        keep: asked when it is made; where it is false, the entry is not kept
    """
    with contextlib.suppress(OSError, ValueError):
        return read(path)
    entry = make()
    if not keep():
        return entry
    try:
        write_bytes(path, content(entry))
    except SaveError as error:
        warnings.warn(f"{error}; it will be made again the next time", RuntimeWarning, stacklevel=2)
    return entry


def cached_text(path: Path, make: Callable[[], str], keep: Callable[[], bool] = _always) -> str:
    """A text that is kept with its own hash, so that what is left of a torn one is not taken for it; see ``cached``."""
    return cached(
        path, lambda path: _unsealed(path.read_bytes()).decode(), make, lambda text: _sealed(text.encode()), keep
    )


def _sealed(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode() + b"\n" + content


def _unsealed(stored: bytes) -> bytes:
    digest, _, content = stored.partition(b"\n")
    if digest.decode(errors="replace") != hashlib.sha256(content).hexdigest():
        raise ValueError("it is torn")
    return content


def cached_folder(folder: Path, read: Callable[[Path], _Entry], fill: Callable[[Path], None]) -> _Entry:
    """What ``read`` finds in a folder; where that is no good, ``fill`` makes the folder anew.

    Args:
        folder: its name changes with all that it depends on
        read: the entry; OSError or ValueError where the folder is missing, torn or another's
        fill: writes all files into an empty folder

    Raises:
        SaveError: the folder cannot be written
    """
    with contextlib.suppress(OSError, ValueError):
        return read(folder)

    def is_good() -> bool:  # another process was faster
        with contextlib.suppress(OSError, ValueError):
            read(folder)
            return True
        return False

    try:
        with new_folder(folder, keep=is_good) as partial:
            fill(partial)
    except SaveError as error:
        raise SaveError(f"{error} (EDGEMOE_BUILD=FOLDER names one for caches)") from error
    for attempt in range(_ATTEMPTS):
        try:
            return read(folder)
        except (OSError, ValueError):
            if attempt == _ATTEMPTS - 1:
                raise
            time.sleep(_PAUSE * attempt)
    raise AssertionError("unreachable")


def seal(path: Path) -> None:
    """Note a finished file's hash beside it, for ``is_sealed``."""
    write_bytes(_seal_of(path), hashlib.sha256(path.read_bytes()).hexdigest().encode())


def is_sealed(path: Path) -> bool:
    """Whether a file is there, and as it was when it was sealed."""
    try:
        return _seal_of(path).read_bytes() == hashlib.sha256(path.read_bytes()).hexdigest().encode()
    except OSError:
        return False


def _seal_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")
