"""Files appear whole or not at all: they are written beside their place, then renamed.

Whatever fails meanwhile (no space, no permission, an interruption), the file that was there before stays as it was,
and nothing partial stays. All of the project's files are written here; a test looks for others.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

__all__ = ["SaveError", "new_file", "new_folder", "write_bytes", "write_text"]

_REMEDIES = {
    errno.ENOSPC: "free some space, or choose another folder",
    errno.EDQUOT: "free some of your quota, or choose another folder",
    errno.EFBIG: "the file system or a limit of this process allows no file of this size",
    errno.EACCES: "choose a folder that you may write to",
    errno.EPERM: "choose a folder that you may write to",
    errno.EROFS: "choose a folder that you may write to",
}


class SaveError(OSError):
    """A file or folder could not be written; what was there before is still there."""


def write_text(path: Path | str, text: str) -> None:
    """``write_bytes`` of a text in UTF-8, its lines ended as they are."""
    write_bytes(path, text.encode())


def write_bytes(path: Path | str, content: bytes) -> None:
    """Write a file with this content, and the folders above it that do not exist.

    A link stays a link to what is written; what is no regular file (``/dev/stdout``, a pipe) is written to in place.

    Raises:
        SaveError: it cannot be written; a file that was there before is unchanged
    """
    try:
        target = Path(os.path.realpath(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        mode = _mode(target)
        if mode is not None and not stat.S_ISREG(mode):
            target.write_bytes(content)  # a folder is refused here
            return
        partial = _beside(target)
        try:
            with partial.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            if mode is not None:
                partial.chmod(stat.S_IMODE(mode))
            os.replace(partial, target)
        except BaseException:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            raise
        _sync_folder(target.parent)
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        raise _save_error(path, error) from error


@contextlib.contextmanager
def new_file(path: Path | str) -> Iterator[Path]:
    """A file that appears whole, for a library that writes by a name: what is yielded is that name, with the suffix of
    ``path``, whose place it takes at the end of the block.

    Raises:
        SaveError: it cannot be written, or the library left nothing; a file that was there before is unchanged
    """
    target = Path(os.path.realpath(path))
    partial = _beside(target).with_suffix(f".partial{target.suffix}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial.touch(exist_ok=False)
    except (OSError, ValueError) as error:
        raise _save_error(path, error) from error
    try:
        yield partial
        try:
            if not partial.stat().st_size:
                raise OSError("nothing was written")
            with partial.open("rb") as file:
                os.fsync(file.fileno())
            if (mode := _mode(target)) is not None:
                partial.chmod(stat.S_IMODE(mode))
            os.replace(partial, target)
        except OSError as error:
            raise _save_error(path, error) from error
        _sync_folder(target.parent)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


@contextlib.contextmanager
def new_folder(path: Path | str, keep: Callable[[], bool] = lambda: False) -> Iterator[Path]:
    """A folder that appears whole: what is yielded is empty and takes the place of ``path`` at the end of the block.

    A folder that is there already is replaced. Where several processes make the same folder, the last one's stays.

    Args:
        path: of the folder
        keep: asked at the end; where it is true, what is at ``path`` stays and the new folder is dropped

    Raises:
        SaveError: it cannot be made; a folder that was there before is unchanged
    """
    target = Path(os.path.realpath(path))
    partial = _beside(target)
    try:
        try:
            partial.mkdir(parents=True)
            yield partial
            if not keep():
                _replace_folder(partial, target)
        except OSError as error:
            if _is_own(error, partial):
                raise _save_error(path, error) from error
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _replace_folder(partial: Path, target: Path) -> None:
    """Rename ``partial`` to ``target``; what is there goes away, unless that fails."""
    for _ in range(100):  # other processes may do the same at the same time
        try:
            os.rename(partial, target)  # also over an empty folder
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):  # these say that a folder was there at that moment
                raise
        old = _beside(target)
        with contextlib.suppress(FileNotFoundError):
            os.rename(target, old)
        shutil.rmtree(old, ignore_errors=True)
    raise OSError(errno.EBUSY, "other processes write it all the time", str(target))


def _is_own(error: OSError, partial: Path) -> bool:
    """Whether an error comes from writing the partial folder, not from what its maker reads elsewhere."""
    names = [str(name) for name in (error.filename, error.filename2) if name is not None]
    if not names:
        return error.errno in _REMEDIES
    return any(name.startswith(str(partial)) for name in names) or error.errno in (errno.ENOSPC, errno.EDQUOT)


def _beside(target: Path) -> Path:
    """A new name in the same folder; short, since the file's own may be as long as names can be."""
    return target.parent / f".{secrets.token_hex(8)}.partial"


def _mode(target: Path) -> int | None:
    try:
        return target.stat().st_mode
    except FileNotFoundError:
        return None


def _sync_folder(folder: Path) -> None:
    """Make a rename last through a loss of power, where the system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _save_error(path: Path | str, error: OSError | ValueError) -> SaveError:
    number = getattr(error, "errno", None)
    reason = os.strerror(number) if number else str(error)
    remedy = _REMEDIES.get(number) if number else None
    return SaveError(f"{path} cannot be written: {reason}" + (f"; {remedy}" if remedy else ""))
