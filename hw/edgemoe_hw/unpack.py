"""int4 weights to int8, between the weight scratchpad and the array."""

from amaranth import C, Module, Mux
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["WeightUnpack"]


class WeightUnpack(wiring.Component):
    """Passes a row of int8 weights, or one half of a row of nibbles with their signs extended. Combinational.

    One level of logic a bit, so it stands between block RAM and the array's operand registers without a stage of its
    own. All bytes are worked on at once, as one flat word: views of it make huge Verilog.

    Members
    -------
    data: ``count`` bytes
    nibbles: every byte holds two weights
    high: take the high ones; only with ``nibbles``
    weights: ``count`` x int8, flat
    """

    def __init__(self, count: int):
        self._count = count
        super().__init__({"data": In(count * 8), "nibbles": In(1), "high": In(1), "weights": Out(count * 8)})

    def elaborate(self, platform):
        m = Module()

        def in_every_byte(value: int):
            return C(value, 8).replicate(self._count)

        chosen = Mux(self.high, self.data >> 4, self.data)
        value, sign = chosen & in_every_byte(0x0F), chosen & in_every_byte(0x08)
        with m.If(self.nibbles):
            m.d.comb += self.weights.eq(value | sign << 1 | sign << 2 | sign << 3 | sign << 4)
        with m.Else():
            m.d.comb += self.weights.eq(self.data)
        return m
