# amaranth: UnusedElaboratable=no
"""Serial line and bridge in Amaranth's simulator; the whole system is tests/sim/test_serial_line.py's."""

from typing import Any

import numpy as np
import pytest
from amaranth.hdl import Elaboratable, Module

from edgemoe_hw.spec.config import PRESETS, ConfigError
from edgemoe_hw.spec.serial_protocol import ANSWER, header
from edgemoe_hw.targets.bridge import Bridge
from edgemoe_hw.targets.sdram import Sdram
from edgemoe_hw.targets.serial import SerialSystem
from edgemoe_hw.targets.uart import UartReceiver, UartTransmitter
from support.amaranth_bench import simulate


class Loop(Elaboratable):
    """A transmitter that its own receiver hears."""

    def __init__(self, divisor: int, receiver_divisor: int) -> None:
        self.transmitter, self.receiver = UartTransmitter(divisor), UartReceiver(receiver_divisor)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules += [self.transmitter, self.receiver]
        m.d.comb += self.receiver.rx.eq(self.transmitter.tx)
        return m


@pytest.mark.parametrize("divisor,receiver", [(4, 4), (25, 25), (40, 39), (40, 41)])
def test_line_carries_bytes(divisor: int, receiver: int, rng: np.random.Generator) -> None:
    loop = Loop(divisor, receiver)  # also with clocks that are 2.5 % apart
    sent = [0x00, 0xFF, 0x55, *rng.integers(0, 256, 20).tolist()]
    received: list[int] = []

    async def send(ctx: Any) -> None:
        port = loop.transmitter.bytes
        ctx.set(port.valid, 1)
        for byte in sent:
            ctx.set(port.payload, byte)
            await ctx.tick().until(port.ready)
        ctx.set(port.valid, 0)
        await ctx.tick().repeat(12 * divisor)

    async def receive(ctx: Any) -> None:
        while True:
            _, _, valid, payload, broken = await ctx.tick().sample(
                loop.receiver.bytes.valid, loop.receiver.bytes.payload, loop.receiver.broken
            )
            assert not broken
            if valid:
                received.append(payload)

    simulate(loop, send, background=[receive])
    assert received == sent


def test_break_and_glitch_are_no_bytes() -> None:
    receiver, seen = UartReceiver(8), []

    async def line(ctx: Any) -> None:
        ctx.set(receiver.rx, 1)
        await ctx.tick().repeat(10)
        for cycles, breaks in ((3, False), (300, True), (1, False)):
            ctx.set(receiver.rx, 0)
            await ctx.tick().repeat(cycles)
            assert ctx.get(receiver.broken) == breaks
            ctx.set(receiver.rx, 1)
            await ctx.tick().repeat(100)
            assert not ctx.get(receiver.broken)

    async def watch(ctx: Any) -> None:
        while True:
            _, _, valid = await ctx.tick().sample(receiver.bytes.valid)
            seen.append(valid)

    simulate(receiver, line, background=[watch])
    assert seen and not any(seen)


def run_bridge(
    command: bytes, expected_bytes: int, answers: dict[int, int], response: int = 0
) -> tuple[bytes, list[tuple[str, int, int]]]:
    """Send a command; returns what the bridge sends back, and its transfers as (bus, address, written data or -1)."""
    bridge, sent, transfers = Bridge(), bytearray(), []

    async def host(ctx: Any) -> None:
        for byte in command:
            ctx.set(bridge.received.payload, byte)
            ctx.set(bridge.received.valid, 1)
            await ctx.tick()
            ctx.set(bridge.received.valid, 0)
            await ctx.tick().repeat(20)
        ctx.set(bridge.sent.ready, 1)
        while len(sent) < expected_bytes:
            (byte,) = await ctx.tick().sample(bridge.sent.payload).until(bridge.sent.valid)
            sent.append(byte)

    def bus(name: str, port: Any) -> Any:
        async def slave(ctx: Any) -> None:
            while True:
                await ctx.tick()
                if ctx.get(port.ar.valid):
                    address = ctx.get(port.ar.payload.addr)
                    transfers.append((name, address, -1))
                    ctx.set(port.ar.ready, 1)
                    await ctx.tick()
                    ctx.set(port.ar.ready, 0)
                    ctx.set(port.r.payload.data, answers.get(address, 0))
                    ctx.set(port.r.payload.resp, response)
                    ctx.set(port.r.valid, 1)
                    await ctx.tick().until(port.r.ready)
                    ctx.set(port.r.valid, 0)
                elif ctx.get(port.w.valid) and ctx.get(port.aw.valid):
                    transfers.append((name, ctx.get(port.aw.payload.addr), ctx.get(port.w.payload.data)))
                    ctx.set(port.w.ready, 1)  # the data first: neither channel may wait for the other
                    await ctx.tick()
                    ctx.set(port.w.ready, 0)
                    ctx.set(port.aw.ready, 1)
                    await ctx.tick()
                    ctx.set(port.aw.ready, 0)
                    ctx.set(port.b.payload.resp, response)
                    ctx.set(port.b.valid, 1)
                    await ctx.tick().until(port.b.ready)
                    ctx.set(port.b.valid, 0)

        return slave

    simulate(bridge, host, background=[bus("register", bridge.registers), bus("memory", bridge.memory)])
    return bytes(sent), transfers


def test_bridge_reads_registers() -> None:
    sent, transfers = run_bridge(
        header(write=False, memory=False, address=0x10, words=2), 9, {0x10: 0x12345678, 0x14: 0x9ABCDEF0}
    )
    assert sent == bytes.fromhex("78563412f0debc9a") + bytes([ANSWER])
    assert transfers == [("register", 0x10, -1), ("register", 0x14, -1)]


def test_bridge_writes_memory() -> None:
    content = bytes(range(1, 17))
    sent, transfers = run_bridge(header(write=True, memory=True, address=0x1FF8, words=2) + content, 1, {})
    assert sent == bytes([ANSWER])
    assert transfers == [
        ("memory", 0x1FF8, int.from_bytes(content[:8], "little")),
        ("memory", 0x2000, int.from_bytes(content[8:], "little")),
    ]


@pytest.mark.parametrize("write,memory", [(True, False), (False, True)])
def test_bridge_reports_bus_errors(write: bool, memory: bool) -> None:
    command = header(write=write, memory=memory, address=8, words=1) + (bytes(4) if write else b"")
    sent, _ = run_bridge(command, 1 if write else 9, {}, response=2)
    assert sent[-1] == ANSWER | 2


@pytest.mark.parametrize(
    "command,status", [(header(write=True, memory=True, address=0, words=0), 0), (bytes([0x80, *bytes(7)]), 2)]
)
def test_bridge_answers_what_moves_nothing(command: bytes, status: int) -> None:
    assert run_bridge(command, 1, {}) == (bytes([ANSWER | status]), [])


def test_header_refuses_what_cannot_be_sent() -> None:
    with pytest.raises(ValueError, match="address must be a multiple of 8"):
        header(write=False, memory=True, address=4, words=1)
    with pytest.raises(ValueError, match="words must be at most 16777215"):
        header(write=False, memory=False, address=4, words=1 << 24)


def test_limits_are_named() -> None:
    with pytest.raises(ConfigError, match="one master of 8 bytes a beat, not 4 of 16"):
        SerialSystem(PRESETS["zcu102"], clock_hz=25e6, baud=1e6)
    with pytest.raises(ValueError, match="clock_hz must be between 1 and 66 MHz"):
        Sdram(100e6)
    with pytest.raises(ValueError, match="divisor must be at least 4"):
        UartReceiver(2)
