"""An accelerator that does nothing, at once: what is left is the host's own time, and the driver's behaviour."""

from __future__ import annotations

import time

import numpy as np
import numpy.typing as npt

from edgemoe.layout import align
from edgemoe.runtime.platforms.lock import AcceleratorLock
from edgemoe.runtime.platforms.registers import mask
from edgemoe_hw.spec import regs
from edgemoe_hw.spec.config import ISA_VERSION, AcceleratorConfig
from edgemoe_hw.spec.pages import PAGE

__all__ = ["NullBuffer", "NullPlatform"]


class NullBuffer:
    """Plain memory; counts what the driver asks for."""

    def __init__(self, platform: NullPlatform, address: int, nbytes: int) -> None:
        self._platform = platform
        self.physical_address = address
        self.array: npt.NDArray[np.uint8] = np.zeros(nbytes, np.uint8)
        self.flushes = self.invalidates = 0

    def flush(self) -> None:
        self.flushes += 1

    def invalidate(self) -> None:
        self.invalidates += 1

    def free(self) -> None:
        if self in self._platform.buffers:
            self._platform.buffers.remove(self)


class NullPlatform:
    """Registers that remember what was written; a started program has ended when it is looked at.

    Args:
        config: whose hash the register has
        base: physical address of the first buffer

    Attributes:
        registers: by offset; a test may change them
        buffers: what is allocated
    """

    name = "null"
    has_interrupt = False

    def __init__(self, config: AcceleratorConfig, base: int = 0) -> None:
        self.clock_mhz, self.lock = config.assumed_clock_mhz, AcceleratorLock()
        self.registers = {
            regs.find(name).offset: value
            for name, value in (("ID", regs.ID), ("ISA_VERSION", ISA_VERSION), ("CONFIG_HASH", config.hash32))
        }
        self.buffers: list[NullBuffer] = []
        self.is_open = True
        self._next = base

    def read(self, offset: int) -> int:
        return self.registers.get(offset, 0)

    def write(self, offset: int, value: int) -> None:
        self.registers[offset] = value
        if offset == regs.find("CONTROL").offset and value & mask("CONTROL", "start"):
            self.registers[regs.find("STATUS").offset] = mask("STATUS", "done")

    def allocate(self, nbytes: int) -> NullBuffer:
        buffer = NullBuffer(self, self._next, nbytes)
        self._next += align(nbytes, PAGE)
        self.buffers.append(buffer)
        return buffer

    def wait(self, seconds: float) -> None:
        """There is nothing to wait for."""

    def now(self) -> float:
        return time.perf_counter()

    def power(self) -> dict[str, float]:
        return {}

    def close(self) -> None:
        self.is_open = False
