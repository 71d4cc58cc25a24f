"""A stream cut in two: no path from one side to the other."""

from amaranth.hdl import Module, ShapeLike, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["RegisterSlice"]


class RegisterSlice(wiring.Component):
    """Passes a transfer a cycle, one cycle later; neither side's handshake depends on the other's in the same cycle.

    Args:
        shape: of the payload

    Members:
        i, o: the stream before and behind; with two transfers inside, ``i`` is not ready
    """

    def __init__(self, shape: ShapeLike):
        self._shape = shape
        super().__init__({"i": In(stream.Signature(shape)), "o": Out(stream.Signature(shape))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        spare = Signal(self._shape, reset_less=True)  # what came while ``o`` was not taken
        waits = Signal()
        m.d.comb += self.i.ready.eq(~waits)
        with m.If(self.o.ready | ~self.o.valid):
            m.d.sync += [self.o.valid.eq(self.i.valid | waits), waits.eq(0)]
            with m.If(waits):
                m.d.sync += self.o.payload.eq(spare)
            with m.Else():
                m.d.sync += self.o.payload.eq(self.i.payload)
        with m.Elif(self.i.valid):
            m.d.sync += waits.eq(1)
        with m.If(~waits):
            m.d.sync += spare.eq(self.i.payload)
        return m
