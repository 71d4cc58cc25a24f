"""One driver an accelerator: in this process, and across all processes of the machine.

The lock is the system's (``flock``) on a file that has the accelerator's name, so it ends with the process that has it,
however that ends. What is in the file is only who has the lock.
"""

from __future__ import annotations

import contextlib
import gc
import os
import threading
import weakref
from pathlib import Path

from edgemoe.errors import DeviceInUse
from edgemoe.runtime.platforms.lock_file import HAS_LOCKS, LockFile, lock_folder

__all__ = ["AcceleratorLock"]


class AcceleratorLock:
    """The right to use one accelerator. Its platform has it; a driver claims it before it touches anything.

    Args:
        key: names the accelerator on this machine, equally for everybody who can open it: a device's file, an address;
            None: nobody can reach it but through the platform that has this lock (a simulation)
        part_of: names what the accelerator is a part of, as an FPGA that is loaded as a whole, and what ``key`` is a
            name in. Others may have other parts at the same time, but nobody may have that as their own ``key``
        folder: where the lock files are; default: ``edgemoe.runtime.platforms.lock_file.lock_folder``
    """

    def __init__(self, key: str | None = None, *, part_of: str | None = None, folder: Path | None = None) -> None:
        self.key = key if part_of is None else f"{part_of} {key}"
        self._part_of, self._folder = part_of, folder
        self._files: list[LockFile] = []
        self._is_claimed = self._is_reserved = False
        self._process = os.getpid()
        _locks.add(self)

    def reserve(self) -> None:
        """Keep other processes, and other platforms of this one, from the accelerator until ``release``.

        For whoever touches the hardware before there is a driver.

        Raises:
            DeviceInUse: somebody has it; the message has the process's number
            DeviceError: the lock file cannot be used; or this process is a fork of the one that opened the accelerator
        """
        self._lock_files()
        self._is_reserved = True

    def claim(self) -> None:
        """Become the one who drives the accelerator, until ``unclaim`` or ``release``.

        Raises:
            DeviceInUse: as ``reserve``; or there is another driver on the same platform
            DeviceError: as ``reserve``
        """
        self._lock_files()
        with _guard:
            if self._is_claimed:
                raise DeviceInUse(self.key, os.getpid())
            self._is_claimed = True

    def unclaim(self) -> None:
        """Take a claim back, as if it had not been made."""
        with _guard:
            self._is_claimed = False
            if not self._is_reserved:
                self._unlock_files()

    def release(self) -> None:
        """Let others have the accelerator; a second call does nothing."""
        with _guard:
            self._is_claimed = self._is_reserved = False
            self._unlock_files()

    @property
    def is_lost(self) -> bool:
        """Whether this process is a fork of the one that opened the accelerator, which keeps it."""
        return self.key is not None and self._process != os.getpid()

    def check(self) -> None:
        """Raise DeviceInUse where ``is_lost``."""
        if self.is_lost:
            raise DeviceInUse(self.key, self._process, is_fork=True)

    def _lock_files(self) -> None:
        self.check()
        try:
            self._try_lock_files()
        except DeviceInUse as error:
            if error.process != os.getpid():
                raise
            gc.collect()  # perhaps by a driver here that nobody can reach any more, or close
            self._try_lock_files()

    def _try_lock_files(self) -> None:
        with _guard:
            if self._files or self.key is None or not HAS_LOCKS:
                return
            folder = lock_folder() if self._folder is None else self._folder
            try:
                if self._part_of is not None:
                    self._files.append(LockFile(folder, self._part_of, shared=True))
                self._files.append(LockFile(folder, self.key))
            except BaseException:
                self._unlock_files()
                raise

    def _unlock_files(self) -> None:
        for file in self._files:
            file.close()
        self._files.clear()

    def _forget(self) -> None:
        """In a fork: the lock is the parent's alone, and ends with the parent."""
        for file in self._files:
            file.abandon()
        self._files.clear()

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError):  # of an object that was never made
            self._unlock_files()


_guard = threading.Lock()  # of the state of all locks of this process
_locks: weakref.WeakSet[AcceleratorLock] = weakref.WeakSet()


def _after_fork() -> None:
    global _guard
    _guard = threading.Lock()  # the old one may be held by a thread that the fork does not have
    for lock in list(_locks):
        lock._forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
