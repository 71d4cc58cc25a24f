"""The one multiply-accumulate array that every matrix product of the network shares."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from edgemoe_hw.primitives.arithmetic import truncate
from edgemoe_hw.primitives.trees import two_stage_sum
from edgemoe_hw.spec.constants import ACCUMULATOR_BITS

__all__ = ["MacArray", "packed_products"]

_FIELD = 17
"""Bits of the lower product's field in a shared DSP: |127 * 255| < 2**16, so 17 bits hold it with its sign."""


def packed_products(m: Module, name: str, upper: Signal, lower: Signal, factor: Signal) -> tuple[Signal, Signal]:
    """Multiply two int8 weights by one activation in a single DSP multiplier; one register stage.

    ``((upper << 17) + lower) * factor`` holds both products; a negative lower product borrows one from the upper
    field, which is given back when the fields are separated. Weights must not be -128.

    Returns:
        the two products (``upper * factor``, ``lower * factor``), one cycle after the operands
    """
    packed = Signal(signed(_FIELD + 8), name=f"{name}_packed")  # fits the 25-bit port of every DSP48
    product = Signal(signed(_FIELD + 18), name=f"{name}_product")
    m.d.comb += packed.eq((upper << _FIELD) + lower)
    m.d.sync += product.eq(packed * factor)
    low = product[:_FIELD].as_signed()
    high = product[_FIELD:].as_signed() + product[_FIELD - 1]
    return high, low


class MacArray(wiring.Component):
    """``lanes_n`` dot products of ``lanes_k`` elements a cycle, accumulated over a tile's steps.

    Output-stationary: the activations of one token meet ``lanes_n`` weight rows each cycle; ``first`` restarts the
    accumulators, and ``LATENCY`` cycles after the operands of the ``last`` step ``result`` holds the finished tile,
    stable until the next tile finishes (``result_valid`` pulses).

    Args:
        lanes_k: elements a cycle
        lanes_n: dot products
        acc_bits: bits of a sum; a tile whose sum needs more must not come

    Members:
        activations: lanes_k x signed(9), int8 or uint8 values
        weights: lanes_n x lanes_k x signed(8), in [-127, 127]; flat, lane n's byte k at bit (n * lanes_k + k) * 8
        valid, first, last: of this cycle's step
        result: lanes_n x signed(acc_bits)
    """

    LATENCY = 5

    def __init__(self, lanes_k: int, lanes_n: int, *, acc_bits: int = ACCUMULATOR_BITS):
        if lanes_k < 2 or lanes_k & (lanes_k - 1):
            raise ValueError(f"lanes_k must be a power of two of at least 2, not {lanes_k!r}")
        if lanes_n < 2 or lanes_n % 2:
            raise ValueError(f"lanes_n must be even, not {lanes_n!r}")
        self._lanes_k, self._lanes_n, self._acc_bits = lanes_k, lanes_n, acc_bits
        super().__init__(
            {
                "activations": In(data.ArrayLayout(signed(9), lanes_k)),
                "weights": In(lanes_n * lanes_k * 8),
                "valid": In(1),
                "first": In(1),
                "last": In(1),
                "result": Out(data.ArrayLayout(signed(acc_bits), lanes_n)),
                "result_valid": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        # Stage 1: operand registers (absorbed by the DSPs).
        activations = Signal.like(self.activations)
        weights = Signal.like(self.weights)
        m.d.sync += [activations.eq(self.activations), weights.eq(self.weights)]

        def weight(lane: int, k: int) -> Value:
            return weights.word_select(lane * self._lanes_k + k, 8).as_signed()

        valid, first, last = self.valid, self.first, self.last
        for stage in range(1, self.LATENCY):
            delayed = Signal(3, name=f"control_{stage}")
            m.d.sync += delayed.eq(Cat(valid, first, last))
            valid, first, last = delayed[0], delayed[1], delayed[2]

        for pair in range(self._lanes_n // 2):
            # Stage 2: the shared multipliers.
            products = [
                packed_products(m, f"pair_{pair}_{k}", weight(2 * pair + 1, k), weight(2 * pair, k), activations[k])
                for k in range(self._lanes_k)
            ]
            for half in (0, 1):
                lane = 2 * pair + half
                terms = [product[1 - half] for product in products]
                total = two_stage_sum(m, terms, f"lane_{lane}")  # stages 3 and 4
                accumulator = Signal(signed(self._acc_bits), name=f"accumulator_{lane}")
                updated = Signal(signed(self._acc_bits), name=f"updated_{lane}")
                m.d.comb += updated.eq(truncate(total, self._acc_bits) + Mux(first, 0, accumulator))
                with m.If(valid):
                    m.d.sync += accumulator.eq(updated)
                    with m.If(last):
                        m.d.sync += self.result[lane].eq(updated)
        m.d.sync += self.result_valid.eq(valid & last)
        return m
