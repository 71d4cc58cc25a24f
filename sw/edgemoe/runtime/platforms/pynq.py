"""The accelerator in a PYNQ overlay as a platform. Needs the ``pynq`` package, and only here."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import operator
import threading
import time
import warnings
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pynq
from pynq.pl_server.embedded_device import EmbeddedDevice

from edgemoe.bundle import Bundle
from edgemoe.errors import DeviceError
from edgemoe.extras import PYNQ_PINS
from edgemoe.runtime.platforms.lock import AcceleratorLock
from edgemoe.runtime.platforms.overlays import OverlayFiles, find_overlay
from edgemoe.runtime.platforms.power import Rails, hwmon_rails, pynq_rails
from edgemoe.runtime.platforms.registers import mask, pynq_registers
from edgemoe_hw.spec import regs
from edgemoe_hw.spec.constants import IP_VLNV, MODULE_VLNV

__all__ = ["BoardBuffer", "EdgeMoeIP", "PynqPlatform", "open_platform"]

_CONTROL, _IRQ_ENABLE = regs.find("CONTROL").offset, mask("CONTROL", "irq_enable")
_LOOP_SECONDS = 1.0  # for the event loop to answer, besides what it was asked to wait
_CLOCK_TOLERANCE, _CLOCK_STEP = 1.002, 0.97  # PYNQ takes a PLL's 1499.985 MHz for 1500
_SMALLEST_BUFFER = 8192  # PYNQ 3.1's images give smaller ones addresses that the accelerator may not reach


class EdgeMoeIP(pynq.DefaultIP):
    """PYNQ's driver of the accelerator: ``overlay.edgemoe_0`` is one. Registers by name are in ``register_map``.

    A module reference's ``.hwh`` describes no registers, so their names come from the declaration of the hardware.
    """

    bindto = [MODULE_VLNV, IP_VLNV]

    def __init__(self, description: dict[str, Any]) -> None:
        super().__init__({**description, "registers": pynq_registers()})


class BoardBuffer:
    """Contiguous memory from ``pynq.allocate``, behind the processor's cache."""

    def __init__(self, device: Any, nbytes: int) -> None:
        try:
            self._buffer = pynq.allocate((max(nbytes, _SMALLEST_BUFFER),), np.uint8, target=device, cacheable=1)
        except (RuntimeError, MemoryError, OSError) as error:
            raise DeviceError(
                f"PYNQ cannot allocate {nbytes} bytes of contiguous memory: {error}; close other "
                f"accelerators and overlays, or enlarge the kernel's CMA area (cma= in its command "
                f"line)"
            ) from error
        self.array: npt.NDArray[np.uint8] = np.asarray(self._buffer)[:nbytes]
        self.physical_address = int(self._buffer.physical_address)

    def flush(self) -> None:
        self._buffer.flush()

    def invalidate(self) -> None:
        self._buffer.invalidate()

    def free(self) -> None:
        if self._buffer is not None:
            self.array = np.empty(0, np.uint8)
            self._buffer.freebuffer()
            self._buffer = None


class PynqPlatform:
    """One accelerator of a loaded overlay.

    Args:
        ip: ``overlay.edgemoe_0``
        loop: the event loop in which ``ip`` was made; only there do PYNQ's interrupts work. None: there is no interrupt
        rails: the supply rails that count
        lock: of the whole device, by whoever has loaded the overlay; default: of this accelerator, so that a process
            may drive another one of the same overlay, but nobody may load another overlay meanwhile
    """

    name = "pynq"

    def __init__(
        self,
        ip: EdgeMoeIP,
        *,
        loop: asyncio.AbstractEventLoop | None = None,
        rails: Rails | None = None,
        lock: AcceleratorLock | None = None,
    ) -> None:
        self._ip, self._loop, self._rails = ip, loop, rails or {}
        self._waits_for_interrupt = False
        self.has_interrupt = loop is not None and getattr(ip, "irq", None) is not None
        self.clock_mhz = float(pynq.Clocks.fclk0_mhz)
        self.lock = lock or AcceleratorLock(f"at {ip.mmio.base_addr:#x}", part_of=_device_key(ip.device))

    def read(self, offset: int) -> int:
        return int(self._ip.mmio.read(offset))

    def write(self, offset: int, value: int) -> None:
        if offset == _CONTROL:
            self._waits_for_interrupt = self.has_interrupt and bool(value & _IRQ_ENABLE)
        self._ip.mmio.write(offset, value)

    def allocate(self, nbytes: int) -> BoardBuffer:
        return BoardBuffer(self._ip.device, nbytes)

    def wait(self, seconds: float) -> None:
        if self._waits_for_interrupt and self._loop is not None:
            done = asyncio.run_coroutine_threadsafe(self._interrupt(seconds), self._loop)
            with contextlib.suppress(concurrent.futures.TimeoutError):  # a loop that is stuck must not stop the clock
                done.result(seconds + _LOOP_SECONDS)
        else:
            time.sleep(seconds)

    async def _interrupt(self, seconds: float) -> None:
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._ip.irq.wait(), seconds)

    def now(self) -> float:
        return time.perf_counter()

    def power(self) -> dict[str, float]:
        watts = {}
        for name, read in self._rails.items():
            try:
                watts[name] = read()
            except (OSError, ValueError) as error:
                raise DeviceError(f"the power sensor of {name} does not answer: {error}") from error
        return watts

    def close(self) -> None:
        """The overlay stays loaded; its buffers are the driver's."""
        self.lock.release()


def open_platform(
    bundle: Bundle, *, bitstream: Path | str | None = None, download: bool = True, rails: Collection[str] | None = None
) -> PynqPlatform:
    """Load a bundle's overlay on PYNQ's active device.

    Args:
        bitstream: a ``.bit`` file, or a folder with overlays; default: see ``find_overlay``
        download: load it; False only if it is loaded already, else reading its registers stops the processor
        rails: names of the supply rails whose power counts; default: all that are measured

    Raises:
        BundleError: the overlay has another configuration
        DeviceInUse: somebody drives an accelerator of the device, here or in another process; nothing was loaded
        DeviceError: there is no overlay, no board, or PYNQ cannot load it
    """
    files = find_overlay(bundle, bitstream)
    _check_device()
    lock = AcceleratorLock(_device_key(pynq.Device.active_device))
    lock.reserve()
    try:
        return _open_overlay(files, bundle, download, rails, lock)
    except BaseException:
        lock.release()
        raise


def _device_key(device: Any) -> str:
    """A name that the device has in every process: PYNQ's own."""
    return f"pynq {device.tag}"


def _open_overlay(
    files: OverlayFiles, bundle: Bundle, download: bool, rails: Collection[str] | None, lock: AcceleratorLock
) -> PynqPlatform:
    with _pynq_errors(f"PYNQ {pynq.__version__} cannot load {files.bitstream}"):
        overlay = _load(files, bundle.config.assumed_clock_mhz, download)
    kinds = {name: details["type"] for name, details in overlay.ip_dict.items()}
    found = [name for name, kind in kinds.items() if kind in EdgeMoeIP.bindto]
    if len(found) != 1:
        raise DeviceError(
            f"{files.bitstream} has {len(found)} IP of type {' or '.join(EdgeMoeIP.bindto)}, not one; it "
            f"has {', '.join(f'{name} ({kind})' for name, kind in kinds.items()) or 'none at all'}"
        )
    loop = _event_loop()
    with _pynq_errors(f"PYNQ {pynq.__version__} cannot bind the driver of {found[0]}"):
        ip = _call(loop, lambda: operator.attrgetter(found[0].replace("/", "."))(overlay))
    return PynqPlatform(ip, loop=loop, rails=_rails(rails, ip.device), lock=lock)


def _check_device() -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PYNQ's own; the error says the same
            pynq.Device.active_device  # noqa: B018
    except RuntimeError as error:
        raise DeviceError(
            f"PYNQ has no device ({error}): run on a board, as root, after its environment is set "
            f"(source /etc/profile.d/pynq_venv.sh and /etc/profile.d/xrt_setup.sh)"
        ) from None


def _load(files: OverlayFiles, assumed_mhz: float, download: bool) -> Any:
    """The overlay, at a clock that it was timed for."""
    overlay = pynq.Overlay(str(files.bitstream), download=False)
    if download:
        _set_clock(files.clock_mhz or assumed_mhz)
        # PYNQ would set it again: 3 to the divisors of the design's PLL, whatever the board's is, and 4.0.0 finds no
        # frequency in a Zynq-7000's .hwh. Where a clock's state is not known it leaves the clock alone.
        overlay.clock_dict.get(0, {}).pop("enable", None)
        overlay.download()
    return overlay


def _set_clock(mhz: float) -> None:
    """The PL's clock as near below ``mhz`` as the board's PLL gives. Before the download, since a design that runs too
    fast for a moment may hang the processor at its first access."""
    asked = mhz
    while asked > mhz / 2:  # between a clock and its half there is always one
        pynq.Clocks.fclk0_mhz = asked  # the nearest, even if above
        if pynq.Clocks.fclk0_mhz <= mhz * _CLOCK_TOLERANCE:
            return
        asked *= _CLOCK_STEP
    raise DeviceError(f"the board's clock is {pynq.Clocks.fclk0_mhz:g} MHz and cannot be lowered to {mhz:g}")


@contextlib.contextmanager
def _pynq_errors(message: str) -> Iterator[None]:
    """PYNQ raises many kinds of exceptions, from its parsers to the kernel's."""
    try:
        yield
    except Exception as error:
        hint = f"; perhaps {PYNQ_PINS}" if isinstance(error, ImportError) else ""
        raise DeviceError(f"{message}: {type(error).__name__}: {error}{hint}") from error


@functools.cache
def _event_loop() -> asyncio.AbstractEventLoop:
    """A loop in a thread of its own. It lives as long as the process, because PYNQ's interrupts stay with the loop in
    which the first was made; a notebook's own loop is busy while a cell waits."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="pynq interrupts", daemon=True).start()
    return loop


def _call(loop: asyncio.AbstractEventLoop, function: Callable[[], Any]) -> Any:
    async def call() -> Any:
        return function()

    return asyncio.run_coroutine_threadsafe(call(), loop).result()


def _rails(names: Collection[str] | None, device: Any) -> Rails:
    """The board's measured rails; none where the device is no board's, whose sensors would measure something else.

    The kernel's come first: libsensors, which PYNQ asks, has one name for all chips of a type.
    """
    found = (hwmon_rails() or pynq_rails(pynq.get_rails)) if isinstance(device, EmbeddedDevice) else {}
    if unknown := sorted(set(names or ()) - found.keys()):
        raise DeviceError(f"no power is measured of {', '.join(unknown)}, but of {', '.join(found) or 'no rail'}")
    return {name: found[name] for name in (found if names is None else names)}
