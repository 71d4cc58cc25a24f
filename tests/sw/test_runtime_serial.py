"""The device ``serial``: opened by name, what can go wrong on a line, and what the driver makes of it.

The board here answers the bridge's commands with registers and memory, and its accelerator does nothing; that the real
one computes the right bits behind this line is shown in ``tests/sim/test_serial_line.py``.
"""

import os
import sys
import threading
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

import edgemoe
from edgemoe import DeviceError, FrameError
from edgemoe.boards.fit import load_target
from edgemoe.bundle import BundleError
from edgemoe.runtime import selftest
from edgemoe.runtime.opening import DEVICES
from edgemoe.runtime.platforms import serial as serial_platform
from edgemoe.runtime.platforms.lock import AcceleratorLock
from edgemoe.runtime.platforms.null import NullPlatform
from edgemoe.runtime.platforms.serial import SerialPlatform, open_platform
from edgemoe_hw.spec.config import PRESETS
from edgemoe_hw.spec.serial_protocol import ANSWER, HEADER_BYTES, MEMORY, WRITE


class Board:
    """The bridge's end: bytes in, bytes out."""

    def __init__(self, config):
        self.platform, self.memory, self.input, self.breaks = NullPlatform(config), bytearray(4 << 20), b"", 0

    def take(self, data: bytes) -> bytes:
        self.input += data
        answers = b""
        while len(self.input) >= HEADER_BYTES:
            operation, words = self.input[0], int.from_bytes(self.input[1:4], "little")
            address, memory = int.from_bytes(self.input[4:8], "little"), operation >> MEMORY & 1
            size = words * (8 if memory else 4)
            content = self.input[HEADER_BYTES : HEADER_BYTES + size] if operation >> WRITE & 1 else b""
            if operation >> WRITE & 1 and len(content) < size:
                break
            self.input = self.input[HEADER_BYTES + len(content) :]
            answers += self.command(bool(operation >> WRITE & 1), bool(memory), address, size, content)
        return answers

    def command(self, write, memory, address, size, content):
        if not memory:
            if write:
                self.platform.write(address, int.from_bytes(content, "little"))
                return bytes([ANSWER])
            return self.platform.read(address).to_bytes(4, "little") + bytes([ANSWER])
        if address + size > len(self.memory):
            return (b"" if write else bytes(size)) + bytes([ANSWER | 3])
        if write:
            self.memory[address : address + size] = content
            return bytes([ANSWER])
        return bytes(self.memory[address : address + size]) + bytes([ANSWER])


class Line:
    """A line to a board. ``fault``: what happens when a register is read next."""

    def __init__(self, board):
        self.board, self.received, self.late, self.fault = board, b"", b"", ""
        self.is_open, self.time, self.lock = True, 0.0, AcceleratorLock()
        self.mutex = threading.Lock()

    def write(self, data):
        fault = ""
        if not data[0]:
            fault, self.fault = self.fault, ""
        if fault == "unplugged":
            raise OSError(5, "Input/output error")
        answer = self.board.take(data)
        with self.mutex:
            self.late = answer if fault == "late" else b""
            self.received += {"late": b"", "short": answer[:-1], "noise": answer[:-1] + b"\xff"}.get(fault, answer)

    def read(self, count, seconds):
        with self.mutex:
            found, self.received = self.received[:count], self.received[count:] + self.late
            self.late = b""
        return found

    def send_break(self):
        self.board.breaks += 1
        self.received = self.board.input = b""

    def wait(self, seconds):
        self.time += seconds

    def now(self):
        return self.time

    def close(self):
        self.is_open = False


@pytest.fixture
def line(runtime_bundle):
    return Line(Board(runtime_bundle.config))


@pytest.fixture
def ports(monkeypatch, line):
    """What was asked of ``SerialPort``, which gives the line above."""
    asked = []
    monkeypatch.setattr(serial_platform, "SerialPort", lambda port, baud: (asked.append((port, baud)), line)[1])
    return asked


def test_opened_by_name(ports, line, runtime_bundle, pictures):
    """Weights, programs and images go over the line; outputs are what the board's memory has."""
    with edgemoe.open("serial", runtime_bundle, port="/dev/ttyUSB7", baud=9600, clock_mhz=12.5, retries=1) as opened:
        assert ports == [("/dev/ttyUSB7", 9600)] and line.board.breaks == 1 and opened.device == "serial"
        assert opened.clock_mhz == 12.5
        memory = opened.executor.memory
        begin = memory.weights.physical_address
        assert line.board.memory[begin : begin + runtime_bundle.data.size] == runtime_bundle.data.tobytes()
        frames = list(opened.stream(pictures, ["depth", "edges"]))
        assert [list(frame.predictions) for frame in frames] == [["depth", "edges"]] * 8
        for slot in range(2):
            output = memory.outputs[slot].physical_address
            line.board.memory[output : output + 2] = (-7).to_bytes(2, "little", signed=True)
        assert opened.run(pictures[0], "depth").raw.flat[0] == -7
        assert opened.power() == {}
    assert not line.is_open


def test_defaults_are_the_boards(ports, runtime_bundle):
    target = load_target("ulx3s")
    platform = open_platform(runtime_bundle)
    assert ports == [(None, target.baud)] and platform.clock_mhz == target.clock_mhz
    assert "serial" in DEVICES


def test_options(ports, runtime_bundle):
    with pytest.raises(ValueError, match="device serial has no option bitstream; it has resize, .* port, baud, clock"):
        edgemoe.open("serial", runtime_bundle, bitstream="x.bit")
    with pytest.raises(DeviceError, match="device serial has no interrupt; open it with interrupt=False"):
        edgemoe.open("serial", runtime_bundle, port="x", interrupt=True)


def test_another_board(ports, line, runtime_bundle):
    line.board.platform = NullPlatform(PRESETS["pynq-z2"])
    with pytest.raises(BundleError, match="for config tiny .* device serial has pynq-z2"):
        edgemoe.open("serial", runtime_bundle, port="x")
    assert not line.is_open


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("late", "the board answered 0 of 5 bytes: is it the right port"),
        ("short", "the board answered 4 of 5 bytes"),
        ("noise", "answer ends with 0xff, not 0x50: is it"),
        ("unplugged", "the serial line failed: .*still connected?"),
    ],
)
def test_line_that_fails(line, runtime_bundle, pictures, fault, message):
    """Reported, and nothing is read off such a line any more: a late answer would be taken for the next one's."""
    accelerator = edgemoe.open(SerialPlatform(line, 25.0), runtime_bundle)
    stream = accelerator.stream(pictures, "depth", on_error="report")
    next(stream)
    stream.close()
    line.fault = fault
    with pytest.raises(DeviceError, match=message):
        accelerator.run(pictures[0], "depth")
    with pytest.raises(DeviceError, match="out of step since: the .*; open the board again"):
        accelerator.run(pictures[0], "depth")
    with pytest.raises(FrameError, match="frame 0: the serial line is out of step"):
        list(accelerator.stream(pictures, "depth"))
    with pytest.warns(ResourceWarning, match="out of step"):
        accelerator.close()
    assert not line.is_open
    with edgemoe.open(SerialPlatform(line, 25.0), runtime_bundle) as again:  # the break at its begin puts it right
        assert again.run(pictures[0], "depth").task == "depth"


def test_bus_response(line):
    """Of one address, so the line is still good."""
    platform = SerialPlatform(line, 25.0)
    with pytest.raises(DeviceError, match="the board refused memory 0x400000: bus response 3"):
        platform.read_memory(4 << 20, 8)
    assert platform.read(0) == 0x454D4F45


def test_break_that_fails(line):
    def gone():
        raise OSError(5, "Input/output error")

    line.send_break = gone
    with pytest.raises(DeviceError, match="the serial line cannot be reset: .*Input/output error"):
        SerialPlatform(line, 25.0)
    assert not line.is_open


def fake_pyserial(monkeypatch, names, opened=None):
    """The parts of pyserial that are used."""
    serial, tools, ports = ModuleType("serial"), ModuleType("serial.tools"), ModuleType("serial.tools.list_ports")

    def open_port(port, baud, exclusive):
        if opened is None:
            raise OSError(2, f"could not open port {port}")
        opened.append((port, baud, exclusive))
        return SimpleNamespace(close=lambda: None)

    serial.Serial, serial.tools, tools.list_ports = open_port, tools, ports
    ports.comports = lambda: [SimpleNamespace(device=name) for name in names]
    for module in (serial, tools, ports):
        monkeypatch.setitem(sys.modules, module.__name__, module)


def test_ports(monkeypatch):
    """The only one there is, or the one that is named; no other program may have it."""
    opened = []
    fake_pyserial(monkeypatch, ["/dev/ttyUSB0"], opened)
    serial_platform.SerialPort(None, 115200)
    serial_platform.SerialPort("COM3", 9600)
    assert opened == [("/dev/ttyUSB0", 115200, True), ("COM3", 9600, True)]
    for names, message in (
        ([], r"this computer has 0 serial ports; name the board's with port=\.\.\."),
        (["b", "a"], r"this computer has 2 serial ports: a, b; name the board's with port="),
    ):
        fake_pyserial(monkeypatch, names, opened)
        with pytest.raises(DeviceError, match=message):
            serial_platform.SerialPort(None, 9600)
    fake_pyserial(monkeypatch, [])
    with pytest.raises(DeviceError, match="serial port /dev/none: .*could not open port /dev/none; give the board's"):
        serial_platform.SerialPort("/dev/none", 9600)
    monkeypatch.setitem(sys.modules, "serial", None)
    with pytest.raises(DeviceError, match=r"a serial line needs pyserial .*: pip install .*\[serial\]"):
        serial_platform.SerialPort("/dev/ttyUSB0", 9600)


def test_real_pyserial(runtime_bundle, pictures, tmp_path):
    """Through a pseudo terminal, at the other end of which a thread is the board."""
    pytest.importorskip("serial", reason="needs the extra serial")
    board, (master, slave) = Board(runtime_bundle.config), os.openpty()

    def serve():
        while (data := os.read(master, 4096)) != b"quit":
            os.write(master, board.take(data))

    server, name = threading.Thread(target=serve, daemon=True), os.ttyname(slave)
    server.start()
    with edgemoe.open("serial", runtime_bundle, port=name) as opened:
        assert [frame.number for frame in opened.stream(pictures, "depth")] == list(range(8))
        with pytest.raises(DeviceError, match=f"serial {name} is in use by process {os.getpid()}, this one; close"):
            edgemoe.open("serial", runtime_bundle, port=name)
        (tmp_path / "board").symlink_to(name)
        with pytest.raises(DeviceError, match=f"serial {name} is in use by process {os.getpid()}, this one; close"):
            edgemoe.open("serial", runtime_bundle, port=str(tmp_path / "board"))
        assert opened.run(pictures[0], "depth").task == "depth"
    os.write(slave, b"quit")
    server.join(10)
    os.close(master)
    os.close(slave)


def test_selftest(ports, runtime_bundle, tmp_path, capsys):
    """By name and port; a board that computes nothing does not pass."""
    runtime_bundle.save(tmp_path / "x.emoe")
    arguments = ["--device", "serial", "--port", "/dev/ttyUSB3", "--bundle", str(tmp_path / "x.emoe")]
    assert selftest.main(arguments) == 1
    assert ports == [("/dev/ttyUSB3", 1_000_000)] and capsys.readouterr().out.endswith("self-test FAILED\n")
    for images in ("0", "-1"):
        assert selftest.main([*arguments, "--images", images]) == 1
        assert capsys.readouterr().err == f"edgemoe: images must be at least 1, not {images}\n"


def test_outputs_of_the_board(ports, line, runtime_bundle, pictures):
    """int16 of the accelerator's memory, every value in its place."""
    with edgemoe.open("serial", runtime_bundle, port="x") as opened:
        for task, info in runtime_bundle.tasks.items():
            output = opened.executor.memory.outputs[0].physical_address
            values = np.arange(info.output_bytes // 2, dtype="<i2")
            line.board.memory[output : output + info.output_bytes] = values.tobytes()
            raw = opened.run(pictures[0], task).raw
            assert len(np.unique(raw)) == raw.size == info.output_rows * info.output_channels
