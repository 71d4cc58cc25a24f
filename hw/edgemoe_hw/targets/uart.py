"""Asynchronous serial line: 8 data bits, no parity, one stop bit."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.wiring import In, Out

__all__ = ["UartReceiver", "UartTransmitter"]

_FRAME = 10  # bits with start and stop


class UartReceiver(wiring.Component):
    """Line to bytes. Each bit is sampled once, in its middle.

    Args:
        divisor: clock cycles of a bit, at least 4

    Members:
        rx: the line, asynchronous
        bytes: each is offered for one cycle
        broken: from a frame without a stop bit (a break) until the line is idle again
    """

    def __init__(self, divisor: int):
        if divisor < 4:
            raise ValueError(f"divisor must be at least 4 clock cycles a bit, not {divisor!r}")
        self._divisor = divisor
        super().__init__({"rx": In(1), "bytes": Out(stream.Signature(8, always_ready=True)), "broken": Out(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        line = Signal(init=1)
        m.submodules += FFSynchronizer(self.rx, line, init=1)
        timer = Signal(range(self._divisor))
        left = Signal(range(_FRAME + 1))
        sampled = Signal(_FRAME - 1)  # start bit and data, oldest lowest
        m.d.comb += self.bytes.payload.eq(sampled[1:])
        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += [timer.eq(self._divisor // 2 - 1), left.eq(_FRAME)]
                with m.If(~line):
                    m.next = "FRAME"
            with m.State("FRAME"):
                m.d.sync += timer.eq(timer - 1)
                with m.If(timer == 0):
                    m.d.sync += [timer.eq(self._divisor - 1), left.eq(left - 1)]
                    with m.If(left == 1):  # the stop bit
                        m.d.comb += self.bytes.valid.eq(line)
                        m.next = "BROKEN"
                        with m.If(line):
                            m.next = "IDLE"
                    with m.Else():
                        m.d.sync += sampled.eq(Cat(sampled[1:], line))
                        with m.If((left == _FRAME) & line):  # a glitch, no start bit
                            m.next = "IDLE"
            with m.State("BROKEN"):
                m.d.comb += self.broken.eq(1)
                with m.If(line):
                    m.next = "IDLE"
        return m


class UartTransmitter(wiring.Component):
    """Bytes to line.

    Args:
        divisor: clock cycles of a bit

    Members:
        bytes: what is to be sent
        tx: the line
    """

    def __init__(self, divisor: int):
        self._divisor = divisor
        super().__init__({"bytes": In(stream.Signature(8)), "tx": Out(1, init=1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        timer = Signal(range(self._divisor))
        left = Signal(range(_FRAME + 1))
        frame = Signal(_FRAME, init=-1)
        m.d.comb += [self.tx.eq(frame[0]), self.bytes.ready.eq(left == 0)]
        with m.If(left == 0):
            with m.If(self.bytes.valid):
                m.d.sync += [frame.eq(Cat(0, self.bytes.payload, 1)), left.eq(_FRAME), timer.eq(self._divisor - 1)]
        with m.Elif(timer == 0):
            m.d.sync += [frame.eq(Cat(frame[1:], 1)), left.eq(left - 1), timer.eq(self._divisor - 1)]
        with m.Else():
            m.d.sync += timer.eq(timer - 1)
        return m
