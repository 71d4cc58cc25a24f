"""int4 weights to int8, between the weight scratchpad and the array."""

from amaranth.hdl import Cat, Module, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["WeightUnpack"]


class WeightUnpack(wiring.Component):
    """Passes bytes of int8 weights, or one half of bytes of int4 weights with their signs extended. Combinational.

    One level of logic a bit, so it stands between block RAM and the array's operand registers without a stage of its
    own. Each control line has a load a bit, so an array has many of these units and copies of the lines.

    Members:
        data: ``count`` bytes
        nibbles: every byte holds two weights
        high: take the high ones; never without ``nibbles``
        weights: ``count`` x int8, flat
    """

    def __init__(self, count: int):
        self._count = count
        super().__init__({"data": In(count * 8), "nibbles": In(1), "high": In(1), "weights": Out(count * 8)})

    def elaborate(self, platform: object) -> Module:
        m = Module()

        def extended(first: int) -> Value:
            """All bytes' four bits from ``first``, as int8."""
            nibbles = [self.data[8 * i + first : 8 * i + first + 4] for i in range(self._count)]
            return Cat(Cat(nibble, nibble[3].replicate(4)) for nibble in nibbles)

        with m.If(self.high):
            m.d.comb += self.weights.eq(extended(4))
        with m.Elif(self.nibbles):
            m.d.comb += self.weights.eq(extended(0))
        with m.Else():
            m.d.comb += self.weights.eq(self.data)
        return m
