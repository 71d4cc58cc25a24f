"""The Verilated accelerator as a platform: the driver cannot tell it from a board."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from edgemoe.bundle import Bundle
from edgemoe.errors import DeviceError
from edgemoe.layout import align
from edgemoe.runtime.platforms.lock import AcceleratorLock
from edgemoe_hw.spec.config import AcceleratorConfig
from edgemoe_hw.spec.pages import PAGE, Pages
from edgemoe_sim.verilated import ModelError, VerilatedModel

__all__ = ["SimBuffer", "SimPlatform", "open_platform"]

_FRAME_BYTES = 32 << 20  # for programs, inputs and outputs
_LONGEST_RUN = 50_000  # cycles of one wait, so that the host gets a word in


class SimBuffer:
    """Pages of the simulated DRAM behind a cache that is not coherent: ``array`` is a copy until it is flushed."""

    def __init__(self, platform: SimPlatform, address: int, nbytes: int) -> None:
        self._platform = platform
        self.physical_address = address
        self.array: npt.NDArray[np.uint8] = np.zeros(nbytes, np.uint8)

    @property
    def _dram(self) -> npt.NDArray[np.uint8]:
        return self._platform.model.dram[self.physical_address : self.physical_address + self.array.size]

    def flush(self) -> None:
        self._dram[:] = self.array

    def invalidate(self) -> None:
        self.array[:] = self._dram

    def free(self) -> None:
        self._platform.release(self.physical_address)


class SimPlatform:
    """Registers, DRAM pages and time of one Verilated accelerator. Time is cycles at the config's assumed clock.

    Args:
        config: the accelerator that is simulated
        dram_bytes: size of its DRAM; pages that nobody uses cost nothing
        options: ``dram_model``, ``stall``, ``seed``, ``quiet`` and ``trace`` of ``VerilatedModel``

    Attributes:
        model: the simulation; its ``inject`` makes memory fail

    Raises:
        DeviceError: the simulator cannot be built
    """

    name = "sim"
    has_interrupt = True

    def __init__(self, config: AcceleratorConfig, *, dram_bytes: int = _FRAME_BYTES, **options: Any) -> None:
        self.clock_mhz, self.lock = config.assumed_clock_mhz, AcceleratorLock()
        try:
            self.model = VerilatedModel(config, dram_bytes=align(dram_bytes, PAGE), **options)
        except (RuntimeError, OSError) as error:
            raise DeviceError(f"cannot build the simulated accelerator: {error}") from error
        self._pages = Pages(self.model.dram.size, "the simulated DRAM")
        self._is_open = True

    @property
    def buffers(self) -> int:
        """How many buffers are allocated."""
        return len(self._pages)

    def read(self, offset: int) -> int:
        with self._errors():
            return self.model.read_word(offset)

    def write(self, offset: int, value: int) -> None:
        with self._errors():
            self.model.write_word(offset, value)

    def allocate(self, nbytes: int) -> SimBuffer:
        try:
            return SimBuffer(self, self._pages.take(nbytes), nbytes)
        except MemoryError as error:
            raise DeviceError(f"{error}; open the device with a larger dram_bytes") from None

    def release(self, address: int) -> None:
        """Give a buffer's pages back."""
        self._pages.give(address)

    def wait(self, seconds: float) -> None:
        with self._errors():
            self.model.run(min(max(round(seconds * self.clock_mhz * 1e6), 1), _LONGEST_RUN))

    def now(self) -> float:
        return self.model.cycles / (self.clock_mhz * 1e6)

    def power(self) -> dict[str, float]:
        return {}

    def close(self) -> None:
        self._is_open = False
        self.model.close()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        if not self._is_open:
            raise DeviceError("the simulated accelerator is closed; open it again")
        try:
            yield
        except ModelError as error:
            raise DeviceError(f"simulated accelerator: {error}") from error


def open_platform(
    bundle: Bundle,
    *,
    config: AcceleratorConfig | None = None,
    dram_bytes: int | None = None,
    dram_model: str = "plain",
    stall: float = 0.0,
    seed: int = 0,
    trace: bool = False,
    quiet: bool = False,
) -> SimPlatform:
    """The accelerator of the bundle's own configuration, or of another one, with memory enough for the bundle."""
    size = bundle.data.size + _FRAME_BYTES if dram_bytes is None else dram_bytes
    options = {"dram_model": dram_model, "stall": stall, "seed": seed, "trace": trace, "quiet": quiet}
    return SimPlatform(config or bundle.config, dram_bytes=size, **options)
