"""The Verilated serial system behind its line, as the host's side of that line."""

from __future__ import annotations

import ctypes
import threading
from pathlib import Path

from edgemoe_hw.spec.config import AcceleratorConfig
from edgemoe_sim.build import build_simulation
from edgemoe_sim.verilated import ModelError

__all__ = ["CLOCK_HZ", "SimulatedLine"]

_HARNESS = Path(__file__).with_name("serial_harness.cpp")
CLOCK_HZ = 25e6
_DIVISOR = 4  # clock cycles a bit: the fastest line, since nobody wants to simulate a slow one
_START_NS = 1000  # instead of the SDRAM's 200 us
_BREAK_CYCLES = 12 * _DIVISOR


def _verilog(config: AcceleratorConfig) -> str:
    """The system as it is simulated: a fast line, a short start."""
    from edgemoe_hw.targets.sdram import SdramTiming
    from edgemoe_hw.targets.serial import SerialSystem
    from edgemoe_hw.verilog import generate

    return generate(
        config, SerialSystem(config, clock_hz=CLOCK_HZ, baud=CLOCK_HZ / _DIVISOR, timing=SdramTiming(start=_START_NS))
    )


class SimulatedLine:
    """A line with the whole system at its other end: bridge, accelerator, SDRAM controller and chip. Time is cycles.

    Args:
        config: of the accelerator
        quiet: no message when it has to be built
    """

    def __init__(self, config: AcceleratorConfig, *, quiet: bool = False) -> None:
        self._library = library = ctypes.CDLL(
            str(build_simulation(_verilog(config), _HARNESS, "serial system", quiet=quiet))
        )
        handle, u64 = ctypes.c_void_p, ctypes.c_uint64
        for name, result, arguments in (
            ("ss_create", handle, [ctypes.c_int, ctypes.c_double]),
            ("ss_destroy", None, [handle]),
            ("ss_send", None, [handle, ctypes.c_char_p, u64]),
            ("ss_break", None, [handle, u64]),
            ("ss_run", u64, [handle, u64, u64]),
            ("ss_take", None, [handle, ctypes.c_char_p, u64]),
            ("ss_cycles", u64, [handle]),
            ("ss_leds", ctypes.c_int, [handle]),
            ("ss_violation", ctypes.c_char_p, [handle]),
        ):
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
        self._handle = library.ss_create(_DIVISOR, CLOCK_HZ)
        self._lock = threading.Lock()  # calls into the library let other threads run

    def write(self, data: bytes) -> None:
        """Send bytes; they travel while ``read`` or ``wait`` lets time pass."""
        with self._lock:
            self._library.ss_send(self._handle, data, len(data))

    def read(self, count: int, seconds: float) -> bytes:
        """The next ``count`` bytes, or fewer if they do not come within ``seconds``.

        Raises:
            ModelError: the SDRAM was not used as it must be
        """
        with self._lock:
            found = min(count, self._run(round(seconds * CLOCK_HZ), count))
            buffer = ctypes.create_string_buffer(max(found, 1))
            self._library.ss_take(self._handle, buffer, found)
        return buffer.raw[:found]

    def send_break(self) -> None:
        """Reset what is at the other end, and forget what it has sent."""
        with self._lock:
            self._library.ss_break(self._handle, _BREAK_CYCLES)
        self.wait((_BREAK_CYCLES + 100) / CLOCK_HZ)
        self.read(1 << 20, 0)

    def wait(self, seconds: float) -> None:
        with self._lock:
            self._run(max(round(seconds * CLOCK_HZ), 1), 1 << 62)

    def now(self) -> float:
        result: float = self._library.ss_cycles(self._handle) / CLOCK_HZ
        return result

    @property
    def leds(self) -> int:
        result: int = self._library.ss_leds(self._handle)
        return result

    def close(self) -> None:
        if self._handle:
            self._library.ss_destroy(self._handle)
            self._handle = None

    def __del__(self) -> None:
        if getattr(self, "_handle", None):
            self.close()

    def _run(self, cycles: int, count: int) -> int:
        found: int = self._library.ss_run(self._handle, cycles, count)
        if violation := self._library.ss_violation(self._handle):
            raise ModelError(f"SDRAM: {violation.decode()}")
        return found
