"""A board whose only link to the host is a serial line: registers and memory by the bridge's commands."""

from __future__ import annotations

import os
import threading
import time
from typing import Protocol

import numpy as np
import numpy.typing as npt

from edgemoe.bundle import Bundle
from edgemoe.errors import DeviceError
from edgemoe.extras import install_command
from edgemoe.layout import align
from edgemoe.runtime.platforms.lock import AcceleratorLock
from edgemoe_hw.spec.pages import Pages
from edgemoe_hw.spec.serial_protocol import ANSWER, header

__all__ = ["Line", "SerialBuffer", "SerialPlatform", "SerialPort", "open_platform"]

_WORD = 8
_MEMORY_BYTES = 32 << 20
_PATIENCE = 1.0  # seconds for an answer, besides the time on the line
_SLOWEST_BYTES = 50_000  # a second


class Line(Protocol):
    """The host's end of the line. OSError: the line is gone, or takes no more."""

    def write(self, data: bytes) -> None:
        """Send bytes."""

    def read(self, count: int, seconds: float) -> bytes:
        """The next ``count`` bytes, or fewer if they do not come within ``seconds``."""

    def send_break(self) -> None:
        """Hold the line low for longer than a byte, which resets the board, and forget what it has sent."""

    def wait(self, seconds: float) -> None:
        """Let time pass."""

    def now(self) -> float:
        """Seconds."""

    def close(self) -> None:
        """Let go of the line."""


class SerialPort:
    """A real line, by pyserial; no other program may have it open.

    Args:
        port: its name; None: the only one that this computer has
        baud: bits a second

    Attributes:
        lock: of the port, whatever name it was opened by; it is taken before the port is touched

    Raises:
        DeviceInUse: another process drives the board at this port, or another part of this one
        DeviceError: there is no such port, or it cannot be used
    """

    def __init__(self, port: str | None, baud: int) -> None:
        try:
            import serial
            import serial.tools.list_ports
        except ImportError as error:
            raise DeviceError(f"a serial line needs pyserial ({error}): {install_command('serial')}") from None
        if port is None:
            found = sorted(str(info.device) for info in serial.tools.list_ports.comports())
            if len(found) != 1:
                raise DeviceError(
                    f"this computer has {len(found)} serial ports{': ' if found else ''}"
                    f"{', '.join(found)}; name the board's with port=..., for example /dev/ttyUSB0"
                )
            (port,) = found
        self.lock = AcceleratorLock(f"serial {os.path.realpath(port)}")
        self.lock.reserve()
        try:
            self._port = serial.Serial(port, baud, exclusive=True)
        except (OSError, ValueError) as error:
            self.lock.release()
            raise DeviceError(
                f"serial port {port}: {error}; give the board's with port=..., for example /dev/ttyUSB0"
            ) from None

    def write(self, data: bytes) -> None:
        self._port.write_timeout = _patience(len(data))
        self._port.write(data)

    def read(self, count: int, seconds: float) -> bytes:
        self._port.timeout = seconds
        return bytes(self._port.read(count))

    def send_break(self) -> None:
        self._port.send_break(0.01)
        self._port.reset_input_buffer()

    def wait(self, seconds: float) -> None:
        time.sleep(seconds)

    def now(self) -> float:
        return time.monotonic()

    def close(self) -> None:
        self._port.close()
        self.lock.release()


def _patience(nbytes: int) -> float:
    """Seconds in which so many bytes must have passed."""
    return _PATIENCE + nbytes / _SLOWEST_BYTES


class SerialBuffer:
    """Memory of the board; ``array`` is the host's copy, which ``flush`` and ``invalidate`` send and fetch."""

    def __init__(self, platform: SerialPlatform, address: int, nbytes: int) -> None:
        self._platform = platform
        self.physical_address = address
        self.array: npt.NDArray[np.uint8] = np.zeros(nbytes, np.uint8)

    def flush(self) -> None:
        padding = bytes(-self.array.size % _WORD)
        self._platform.write_memory(self.physical_address, self.array.tobytes() + padding)

    def invalidate(self) -> None:
        found = self._platform.read_memory(self.physical_address, align(self.array.size, _WORD))
        self.array[:] = np.frombuffer(found, np.uint8)[: self.array.size]

    def free(self) -> None:
        self._platform.release(self.physical_address)


class SerialPlatform:
    """Registers and memory at the other end of a line. It begins with a break, which resets the board.

    Args:
        line: to the board
        clock_mhz: of the accelerator
        memory_bytes: of its memory, at address 0
        lock: of the port; default: no other process can reach this line

    Raises:
        DeviceError: the line is gone; and from every method, if the board does not answer. It answers nothing more
            then, since a late answer would be taken for the next one's.
    """

    name = "serial"
    has_interrupt = False

    def __init__(
        self, line: Line, clock_mhz: float, memory_bytes: int = _MEMORY_BYTES, *, lock: AcceleratorLock | None = None
    ) -> None:
        self._line, self.clock_mhz, self.lock = line, clock_mhz, lock or AcceleratorLock()
        self._pages = Pages(memory_bytes, "the board's memory")
        self._is_open, self._failure = True, ""
        self._lock = threading.Lock()  # a stream's threads share the line
        try:
            line.send_break()
        except OSError as error:
            line.close()
            raise DeviceError(f"the serial line cannot be reset: {error}") from error

    def read(self, offset: int) -> int:
        return int.from_bytes(self._command(False, False, offset, 1, answer=4), "little")

    def write(self, offset: int, value: int) -> None:
        self._command(True, False, offset, 1, value.to_bytes(4, "little"))

    def read_memory(self, address: int, nbytes: int) -> bytes:
        """Bytes of memory; address and size are multiples of 8."""
        return self._command(False, True, address, nbytes // _WORD, answer=nbytes)

    def write_memory(self, address: int, data: bytes) -> None:
        """Write memory; address and size are multiples of 8."""
        self._command(True, True, address, len(data) // _WORD, data)

    def _command(
        self, write: bool, memory: bool, address: int, words: int, data: bytes = b"", answer: int = 0
    ) -> bytes:
        if not self._is_open:
            raise DeviceError("the serial line is closed; open it again")
        command = header(write=write, memory=memory, address=address, words=words) + data
        with self._lock:
            if self._failure:
                raise DeviceError(f"the serial line is out of step since: {self._failure}; open the board again")
            try:
                found = self._exchange(command, answer)
            except DeviceError as error:
                self._failure = str(error)
                raise
        if status := found[-1] - ANSWER:
            raise DeviceError(
                f"the board refused {'memory' if memory else 'register'} {address:#x}: bus response {status}"
            )
        return found[:-1]

    def _exchange(self, command: bytes, answer: int) -> bytes:
        """A command, and the bytes of its answer, the last of which says that it is one."""
        try:
            self._line.write(command)
            found = self._line.read(answer + 1, _patience(len(command) + answer))
        except OSError as error:
            raise DeviceError(f"the serial line failed: {error}; is the board still connected?") from error
        if len(found) <= answer:
            raise DeviceError(
                f"the board answered {len(found)} of {answer + 1} bytes: is it the right port and baud "
                f"rate, and is its bitstream loaded?"
            )
        if not 0 <= found[-1] - ANSWER < 4:
            raise DeviceError(
                f"the board's answer ends with {found[-1]:#04x}, not {ANSWER:#04x}: is it the right port "
                f"and baud rate, and is its bitstream loaded?"
            )
        return found

    def allocate(self, nbytes: int) -> SerialBuffer:
        try:
            return SerialBuffer(self, self._pages.take(nbytes), nbytes)
        except MemoryError as error:
            raise DeviceError(str(error)) from None

    def release(self, address: int) -> None:
        """Give a buffer's pages back."""
        self._pages.give(address)

    def wait(self, seconds: float) -> None:
        self._line.wait(seconds)

    def now(self) -> float:
        return self._line.now()

    def power(self) -> dict[str, float]:
        return {}  # nothing on the board measures it

    def close(self) -> None:
        self._is_open = False
        self._line.close()
        self.lock.release()


def open_platform(
    bundle: Bundle, *, port: str | None = None, baud: int = 1_000_000, clock_mhz: float = 25.0
) -> SerialPlatform:
    """The board at a serial port; the defaults are the ULX3S's (``boards/ulx3s/target.toml``).

    Args:
        port: its name, for example ``/dev/ttyUSB0``; default: the only one that this computer has
        clock_mhz: of the accelerator

    Raises:
        DeviceInUse: somebody drives the board at this port already
        DeviceError: pyserial is missing, or there is no such port
    """
    line = SerialPort(port, baud)
    return SerialPlatform(line, clock_mhz, lock=line.lock)
