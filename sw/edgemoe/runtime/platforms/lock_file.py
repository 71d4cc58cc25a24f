"""Files that say which process has an accelerator: where they are, and how everybody may use them."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import time
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from edgemoe.errors import DeviceError, DeviceInUse

try:
    import fcntl

    HAS_LOCKS = True
except ImportError:  # Windows; a serial port is opened once there, by the system
    HAS_LOCKS = False

__all__ = ["FOLDER_VARIABLE", "HAS_LOCKS", "LockFile", "lock_folder"]

FOLDER_VARIABLE = "EDGEMOE_LOCKS"
#: The first of these in which every user may make files is everybody's, the administrator's too.
FOLDERS = (Path("/run/lock"), Path("/var/lock"), Path("/tmp"))
_ELSEWHERE = f"or set {FOLDER_VARIABLE} to a folder that is the same for everybody who uses the accelerator"
_FOR_ALL = stat.S_ISVTX | stat.S_IWOTH
_PATIENCE, _PAUSE = 0.2, 0.01  # seconds, for what another process does between two calls
_LONGEST_NAME = 200


class LockFile:
    """A locked file, until it is closed.

    Args:
        folder: where it is
        key: what is locked
        shared: others may have it too, as long as they share it

    Raises:
        DeviceInUse: somebody else has it
        DeviceError: it cannot be opened or locked
    """

    def __init__(self, folder: Path, key: str, shared: bool = False) -> None:
        self._path = path = _path(folder, key)
        end = time.monotonic() + _PATIENCE
        self._descriptor: int | None = None
        while self._descriptor is None:
            descriptor = _open(path, key)
            try:
                if not _try_lock(descriptor, key, shared):
                    holder = _holder(descriptor) or _holder_of_a_part(path)
                    if holder or time.monotonic() >= end:  # else its number is not written yet, or it has just died
                        raise DeviceInUse(key, holder)
                elif _is_at(descriptor, path):
                    self._descriptor = descriptor
            finally:
                if self._descriptor is None:
                    os.close(descriptor)
            if self._descriptor is None:
                time.sleep(_PAUSE)
        if not shared:
            with contextlib.suppress(OSError):  # a full disk: the lock holds, only who has it is not known
                os.ftruncate(self._descriptor, 0)
                os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def close(self) -> None:
        """Unlock it, and remove it if nobody shares it; a second call does nothing."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.ftruncate(self._descriptor, 0)  # first: it may be another user's, who alone may remove it
                os.unlink(self._path)
            self.abandon()

    def abandon(self) -> None:
        """Close it in a fork, which leaves it locked by the parent."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def lock_folder(candidates: Sequence[Path] = FOLDERS) -> Path:
    """Where the lock files of all users are: what ``EDGEMOE_LOCKS`` names, else the first folder that they share.

    It must not depend on who asks, or two users would lock different files.

    Raises:
        DeviceError: there is no such folder
    """
    if chosen := os.environ.get(FOLDER_VARIABLE):
        return Path(chosen)
    for folder in candidates:
        with contextlib.suppress(OSError):
            mode = folder.stat().st_mode
            if stat.S_ISDIR(mode) and mode & _FOR_ALL == _FOR_ALL:
                return folder
    raise DeviceError(
        f"accelerators cannot be locked: none of {', '.join(map(str, candidates))} is a folder in which every user may "
        f"make files (mode 1777); make one, {_ELSEWHERE}"
    )


def _path(folder: Path, key: str) -> Path:
    name = f"edgemoe-{quote(key, safe=' @,+=')}"
    if len(name) > _LONGEST_NAME:
        name = f"{name[:_LONGEST_NAME]}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    return folder / f"{name}.lock"


def _open(path: Path, key: str) -> int:
    """The file, made for all users if there is none.

    It is first opened and then made, since a sticky folder lets nobody "make" (O_CREAT) what is there and another's.
    """
    end = time.monotonic() + _PATIENCE
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
    while True:
        try:
            return os.open(path, flags)
        except FileNotFoundError:
            with contextlib.suppress(FileExistsError):  # another process was faster
                return _make(path, key, flags)
        except PermissionError as error:  # perhaps it has just been made, and is not yet everybody's
            if time.monotonic() >= end:
                raise DeviceError(
                    f"accelerator {key}: its lock file {path} cannot be opened ({error.strerror}); "
                    f"let its owner remove it, {_ELSEWHERE}"
                ) from None
            time.sleep(_PAUSE)
        except OSError as error:
            raise DeviceError(
                f"accelerator {key}: its lock file cannot be opened: {error}; remove it, {_ELSEWHERE}"
            ) from None


def _make(path: Path, key: str, flags: int) -> int:
    try:
        descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError:
        raise
    except OSError as error:
        raise DeviceError(
            f"accelerator {key}: its lock file cannot be made: {error}; make that folder everybody's (mode 1777), "
            f"{_ELSEWHERE}"
        ) from None
    os.fchmod(descriptor, 0o666)  # whatever the umask is
    return descriptor


def _try_lock(descriptor: int, key: str, shared: bool) -> bool:
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise DeviceError(
            f"accelerator {key} cannot be locked: {error}; let that folder be on another file system, {_ELSEWHERE}"
        ) from None
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether a file is still the one at a path: who had it locked may have removed it since it was opened."""
    with contextlib.suppress(OSError):
        return os.path.samestat(os.fstat(descriptor), os.stat(path, follow_symlinks=False))
    return False


def _holder(descriptor: int) -> int:
    """The process whose number is in a lock file, if it lives; else 0."""
    try:
        process = max(int(os.pread(descriptor, 32, 0)), 0)
        os.kill(process, 0)
    except PermissionError:  # it lives, and is another user's
        return process
    except (OSError, ValueError, OverflowError):
        return 0
    return process


def _holder_of_a_part(path: Path) -> int:
    """A process that has a part of what is locked at ``path``, for parts' names begin with the whole's; else 0."""
    for part in sorted(path.parent.glob("*.lock")):
        if part.name.startswith(f"{path.stem} "):
            with contextlib.suppress(OSError):
                descriptor = os.open(part, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
                try:
                    if holder := _holder(descriptor):
                        return holder
                finally:
                    os.close(descriptor)
    return 0
