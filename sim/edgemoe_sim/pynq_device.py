"""A board that PYNQ cannot tell from a real one, as far as registers, memory and the interrupt go: the Verilated RTL.

The real ``pynq`` package loads the board's ``.hwh``, sets its clocks, binds drivers and allocates buffers on it:

    device = SimulatedDevice()
    overlay = pynq.Overlay("build/simulated/pynq-z2-0123456789ab.bit")

Time passes where somebody looks: while the accelerator works, a read of one of its registers lets ``ACCESS_CYCLES`` go
by, and waiting for the interrupt as many as it takes. Buffers lie behind a cache that is not coherent, so a missing
flush or invalidate is seen.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pynq
import pynq.ps
from pynq.buffer import PynqBuffer
from pynq.interrupt import _InterruptController
from pynq.metadata.runtime_metadata_parser import RuntimeMetadataParser
from pynqmetadata.frontends import Metadata

from edgemoe_hw.spec.config import AcceleratorConfig
from edgemoe_hw.spec.pages import Pages
from edgemoe_models.storage.json_text import read_json
from edgemoe_sim.verilated import Stop, VerilatedModel

__all__ = ["ACCESS_CYCLES", "SimulatedDevice"]

ACCESS_CYCLES = 1000
_NUMBERS = itertools.count()
_ARCHITECTURES = {"processing_system7": "armv7l", "zynq_ultra_ps_e": "aarch64"}
# What PYNQ reads to know the PL's clocks, as after a boot. Zynq-7000 (UG585, appendix B.28): all three PLLs are
# 20 x 50 MHz, FPGA0 to 3 divide the IO PLL by 10. ZynqMP (UG1087): IOPLL is 45 x 33.333 MHz, PL0 to 3 divide it by 15.
_BOOTED = {
    **{0xF800_0100 + 4 * pll: 20 << 12 for pll in range(3)},
    **{0xF800_0170 + 16 * clock: 1 << 20 | 10 << 8 for clock in range(4)},
    0xFF5E_0020: 45 << 8,
    0xFF5E_0030: 36 << 8,
    **{0xFF5E_00C0 + 4 * clock: 1 << 24 | 1 << 16 | 15 << 8 for clock in range(4)},
}


@dataclass(frozen=True, eq=False)
class _Allocation:
    """Pages of the simulated DRAM, and the host's view of them, which is a copy where the processor caches it."""

    address: int
    host: npt.NDArray[np.uint8]


class _SimulatedBuffer(PynqBuffer):
    """PYNQ's buffer, given back to the simulation instead of the operating system. ``memory``: not in views of it."""

    memory: SimulatedDevice | None = None

    def freebuffer(self) -> None:
        if self.memory is not None:
            self.memory.release(self.bo)
            self.memory = None


class _AxiInterruptController:
    """The registers of AMD's AXI INTC (PG099) that PYNQ uses; its inputs are levels."""

    def __init__(self) -> None:
        self._pending = self._enabled = self._master = 0

    def read(self, offset: int) -> int:
        return {0x00: self._pending, 0x04: self._pending & self._enabled, 0x08: self._enabled}.get(offset, 0)

    def write(self, offset: int, value: int) -> None:
        if offset == 0x08:
            self._enabled = value
        elif offset == 0x0C:
            self._pending &= ~value
        elif offset == 0x10:
            self._enabled |= value
        elif offset == 0x14:
            self._enabled &= ~value
        elif offset == 0x1C:
            self._master = value

    def output(self, inputs: int) -> bool:
        """The line to the processor, after these inputs."""
        self._pending |= inputs
        return self._master == 3 and bool(self._pending & self._enabled)


class _SimulatedUio:
    """What stands behind ``/dev/uio``: lets the simulation run until the interrupt that somebody waits for."""

    def __init__(self, device: SimulatedDevice) -> None:
        self._device = device
        self._events: list[Any] = []

    def add_event(self, event: Any, number: int) -> None:
        """Called by PYNQ in its event loop, where the event is to be set."""
        self._events.append(event)
        if len(self._events) == 1:
            loop = asyncio.get_running_loop()
            threading.Thread(target=self._run, args=(loop,), name="simulated interrupt", daemon=True).start()

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        while not self._device.interrupt():
            if not self._device.is_open:
                return
            time.sleep(5e-5)  # the host wants the registers too
        loop.call_soon_threadsafe(self._set)

    def _set(self) -> None:
        self._device.interrupts += 1
        events, self._events = self._events, []
        for event in events:
            event.set()


class SimulatedDevice(pynq.Device):
    """A board on which overlays have one accelerator, simulated. Becomes PYNQ's active device.

    The configuration comes from the ``.json`` beside the bitstream, which ``edgemoe.boards`` writes.

    Args:
        dram_bytes: size of the memory; pages that nobody uses cost nothing
        dram_begin: first address that is given to buffers
        has_uio: whether the kernel has a ``/dev/uio`` for the accelerator's interrupt
        options: ``stall``, ``seed``, ``quiet`` and ``trace`` of ``VerilatedModel``

    Attributes:
        model: the simulation of the overlay that was loaded last
        interrupts: how many PYNQ has been told of
    """

    def __init__(
        self, *, dram_bytes: int = 256 << 20, dram_begin: int = 0, has_uio: bool = True, **options: Any
    ) -> None:
        super().__init__(f"simulated-{os.getpid()}-{next(_NUMBERS)}")  # no process has another's
        self.name, self.arch = "simulated", ""
        self.capabilities = {"REGISTER_RW": True}
        self.is_open, self.interrupts = True, 0
        self._dram_bytes, self._options = dram_bytes, options
        self._pages = Pages(dram_bytes, "the simulated DRAM")
        self._registers = dict(_BOOTED)
        self._lock = threading.RLock()
        self._accelerator = self._controller_base = 0  # addresses
        self._controller = _AxiInterruptController()
        self._config: AcceleratorConfig | None = None
        self._model: VerilatedModel | None = None
        if dram_begin:
            self._pages.take(dram_begin)
        self._uio = _SimulatedUio(self) if has_uio else None
        pynq.Device.active_device = self

    @property
    def model(self) -> VerilatedModel:
        if self._config is None:
            raise RuntimeError("the simulated board has no overlay: pynq.Overlay(...) loads one")
        if self._model is None:
            self._model = VerilatedModel(self._config, dram_bytes=self._dram_bytes, **self._options)
        return self._model

    @property
    def buffers(self) -> int:
        """How many buffers are allocated."""
        return len(self._pages)

    def close(self) -> None:
        """End the simulation; a second call does nothing."""
        with self._lock:
            self.is_open = False
            if self._model is not None:
                self._model.close()

    # Overlays

    def get_bitfile_metadata(self, bitfile_name: str, partial: bool = False) -> RuntimeMetadataParser:
        """PYNQ's own parse of the ``.hwh``; from now on these are the addresses."""
        path = Path(bitfile_name)
        parser = RuntimeMetadataParser(Metadata(input=path.with_suffix(".hwh")))
        manifest = read_json(path.with_suffix(".json"))
        config = AcceleratorConfig.from_dict(manifest["config"])
        ip = {details["type"].split(":")[2]: details for details in parser.ip_dict.values()}
        if missing := {"edgemoe", "axi_intc"} - ip.keys():
            raise RuntimeError(f"the simulated board has no overlays without {', '.join(sorted(missing))}")
        with self._lock:
            if config != self._config:
                self._config, self._model = config, None
            self._accelerator, self._controller_base = ip["edgemoe"]["phys_addr"], ip["axi_intc"]["phys_addr"]
            self._controller = _AxiInterruptController()
        self.arch = pynq.ps.CPU_ARCH = _ARCHITECTURES[parser.family_ps]  # 3.0.1's clocks ask for the processor, not us
        with contextlib.suppress(AttributeError):  # the clocks of the device that was active before
            del pynq.Clocks._real_instance
        for entry in parser.interrupt_controllers.values():  # here PYNQ looks before it asks for /dev/uio
            _InterruptController._uio_devices.pop(entry["raw_irq"], None)
            if self._uio is not None:
                _InterruptController._uio_devices[entry["raw_irq"]] = self._uio
        return parser

    def download(self, bitstream: pynq.Bitstream, parser: RuntimeMetadataParser | None = None) -> None:
        """Load the overlay: the accelerator is as after power-on."""
        with self._lock:
            self._model = None
        self.post_download(bitstream, parser, self.name)

    # Registers

    def read_registers(self, address: int, length: int) -> bytes:
        with self._lock:
            words = [self._read(address + offset) for offset in range(0, length, 4)]
        return np.array(words, "<u4").tobytes()

    def write_registers(self, address: int, data: bytes) -> None:
        with self._lock:
            for index, value in enumerate(np.frombuffer(data, "<u4").tolist()):
                self._write(address + 4 * index, value)

    def _read(self, address: int) -> int:
        if address >> 12 == self._accelerator >> 12:
            self._pass_time()
            return self.model.read_word(address - self._accelerator)
        if address >> 12 == self._controller_base >> 12:
            return self._controller.read(address - self._controller_base)
        return self._registers.get(address, 0)

    def _write(self, address: int, value: int) -> None:
        if address >> 12 == self._accelerator >> 12:
            self.model.write_word(address - self._accelerator, value)
        elif address >> 12 == self._controller_base >> 12:
            self._controller.write(address - self._controller_base, value)
        else:
            self._registers[address] = value

    def interrupt(self) -> bool:
        """Whether the processor is interrupted, after a few more cycles."""
        with self._lock:
            return self.is_open and self._controller.output(int(self._pass_time() is Stop.IRQ))

    def _pass_time(self) -> Stop:
        """Some cycles, few of them where nothing runs."""
        return self.model.run(ACCESS_CYCLES if self.model.read_field("STATUS", "busy") else 1)

    # Memory

    def allocate(self, shape: Sequence[int] | int, dtype: npt.DTypeLike, cacheable: int = 0, **_: Any) -> PynqBuffer:
        """What ``pynq.allocate`` gives. As on a board it is not zero at first, and cached only where that is asked."""
        nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        address = self._pages.take(nbytes)
        host = np.empty(nbytes, np.uint8) if cacheable else self.model.dram[address : address + nbytes]
        host[:] = 0xA5
        allocation = _Allocation(address, host)
        buffer = _SimulatedBuffer(
            shape,
            dtype,
            buffer=allocation.host.data,
            device=self,
            bo=allocation,
            device_address=allocation.address,
            coherent=False,
        )
        buffer.memory = self
        return buffer

    def release(self, allocation: _Allocation) -> None:
        """Give a buffer's pages back."""
        self._pages.give(allocation.address)

    def flush(self, bo: _Allocation, offset: int, ptr: int, size: int) -> None:
        begin = bo.address + offset
        self.model.dram[begin : begin + size] = bo.host[offset : offset + size]

    def invalidate(self, bo: _Allocation, offset: int, ptr: int, size: int) -> None:
        begin = bo.address + offset
        bo.host[offset : offset + size] = self.model.dram[begin : begin + size]
