"""Errors that more than one part of the package raises."""

from __future__ import annotations

import os

__all__ = ["DeviceError", "DeviceInUse", "MissingExtraError", "SynthesisError"]


class DeviceError(RuntimeError):
    """A device cannot run, or failed while it ran."""


class DeviceInUse(DeviceError):
    """Somebody else has the accelerator.

    Args:
        key: names the accelerator; None: it is this platform's own
        process: who has it; 0: not known
        is_fork: this process is a fork of that one, and has inherited the opened accelerator

    Attributes:
        process: who has it; 0: not known
    """

    def __init__(self, key: str | None, process: int, is_fork: bool = False) -> None:
        what = "this accelerator" if key is None else f"accelerator {key}"
        if is_fork:
            text = f"was opened by process {process}, of which this one is a fork; open it in the process that uses it"
        elif process == os.getpid():
            text = f"is in use by process {process}, this one; close it first (close(), or the end of its with)"
        elif process:
            text = f"is in use by process {process}; close it there first, or end that process"
        else:
            text = "is in use by another process; close it there first"
        super().__init__(f"{what} {text}")
        self.process = process


class MissingExtraError(RuntimeError):
    """Something needs an optional part of the package that is not installed; the message says how to install it."""


class SynthesisError(RuntimeError):
    """A synthesis tool is missing, failed, or gave something that cannot be counted or that does not fit."""
