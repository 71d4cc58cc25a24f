"""What the host needs from an accelerator: registers, memory that both sides see, and a way to wait."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from edgemoe.runtime.platforms.lock import AcceleratorLock

__all__ = ["Buffer", "Platform"]


class Buffer(Protocol):
    """Contiguous memory of host and accelerator; their views of it may differ until ``flush`` or ``invalidate``.

    Attributes:
        array: uint8[nbytes], the host's view
        physical_address: the accelerator's view; a multiple of 64
    """

    @property
    def array(self) -> npt.NDArray[np.uint8]: ...

    @property
    def physical_address(self) -> int: ...

    def flush(self) -> None:
        """Make what the host has written visible to the accelerator."""

    def invalidate(self) -> None:
        """Make what the accelerator has written visible to the host."""

    def free(self) -> None:
        """Give the memory back; a second call does nothing."""


class Platform(Protocol):
    """One accelerator as the host sees it. All errors are ``DeviceError``.

    Attributes:
        name: for messages
        has_interrupt: ``wait`` returns at the accelerator's interrupt
        clock_mhz: the accelerator's clock
        lock: who may use it: made with a name that the accelerator has for every process of this machine, or without
            one where no other process can reach it. The driver claims it first of all, and releases it after ``close``
    """

    name: str
    has_interrupt: bool
    clock_mhz: float
    lock: AcceleratorLock

    def read(self, offset: int) -> int:
        """32 bits of the register map (``edgemoe_hw.spec.regs``)."""

    def write(self, offset: int, value: int) -> None:
        """Write 32 bits of the register map."""

    def allocate(self, nbytes: int) -> Buffer:
        """A new buffer; DeviceError when there is no such memory left."""

    def wait(self, seconds: float) -> None:
        """Let the accelerator work for at most ``seconds`` of ``now``, perhaps less; if its interrupt is enabled, until
        that is pending, which it may be already."""

    def now(self) -> float:
        """Seconds on the accelerator's clock: a board's own time, or a simulation's cycles."""

    def power(self) -> dict[str, float]:
        """Watts that each supply rail gives now; empty where nothing measures them."""

    def close(self) -> None:
        """Let go of the accelerator; a second call does nothing."""
