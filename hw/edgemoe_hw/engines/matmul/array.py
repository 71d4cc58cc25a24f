"""The one multiply-accumulate array that every matrix product of the network shares."""

from collections.abc import Sequence

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from edgemoe_hw.primitives.arithmetic import truncate
from edgemoe_hw.primitives.delay import copies, delay
from edgemoe_hw.spec.constants import ACCUMULATOR_BITS, DSP_CHAINS
from edgemoe_hw.spec.timing import mac_array

__all__ = ["MacArray", "field_bits", "product_chain"]

_LARGEST_PRODUCT = 127 * 255
_CONTROL_LANES = 8
"""Lanes that share a copy of valid, first and last."""


def field_bits(chain: int) -> int:
    """Bits of the lower sum's field in a shared DSP, its sign among them: 17 for a chain of 2, 18 for one of 4."""
    return (chain * _LARGEST_PRODUCT).bit_length() + 1


def product_chain(
    m: Module, name: str, upper: Sequence[Value], lower: Sequence[Value], factors: Sequence[Value]
) -> tuple[Value, Value]:
    """Two dot products of int8 weights with the same activations, in one DSP a position.

    ``((upper << F) + lower) * factor`` holds both products, and the cascade of post-adders sums them. A negative lower
    sum borrows one from the upper field, once for the whole chain. Weights must not be -128.

    Registers as a DSP has them: A, D and B; the pre-adder's and B again; the multiplier's; the post-adder's. Position j
    works j cycles after the first, so its operands must come j cycles later, and the sums are there
    ``len(factors) + 3`` cycles after the first position's operands.

    Returns:
        the sum over ``upper``, less one where that over ``lower`` is negative, and that over ``lower``; F bits each
    """
    field = field_bits(len(factors))
    chained: Value | None = None
    for position, (high, low, factor) in enumerate(zip(upper, lower, factors, strict=True)):
        place = f"{name}_{position}"
        a = Signal(signed(8), name=f"{place}_a", reset_less=True)
        d = Signal(signed(8), name=f"{place}_d", reset_less=True)
        packed = Signal(signed(field + 8), name=f"{place}_packed", reset_less=True)
        product = Signal(signed(field + 17), name=f"{place}_product", reset_less=True)
        total = Signal(signed(2 * field), name=f"{place}_total", reset_less=True)
        b = delay(m, factor, 2, f"{place}_b", reset_less=True)
        m.d.sync += [a.eq(high), d.eq(low), packed.eq((a << field) + d), product.eq(packed * b)]
        m.d.sync += total.eq(truncate(product if chained is None else product + chained, 2 * field))
        chained = total
    assert chained is not None
    return chained[field:].as_signed(), chained[:field].as_signed()


def _tree(m: Module, terms: Sequence[Value], carries: Sequence[Value], name: str) -> tuple[Value, Sequence[Value]]:
    """Sum of ``terms``, two a register, and of as many of the carries: every adder takes one. Returns those left."""
    while len(terms) > 1:
        sums, count = [], len(terms) // 2
        taken, left = carries[:count], carries[count:]
        for index in range(count):
            a, b = terms[2 * index : 2 * index + 2]
            total = Signal(signed(len(a) + 1), name=f"{name}_{count}_{index}", reset_less=True)
            # Cut to what a sum of two has: a field is never so full that a carry or borrow would not fit.
            m.d.sync += total.eq(truncate(a + b + taken[index] if taken else a + b, len(total)))
            sums.append(total)
        terms = sums
        carries = [delay(m, c, 1, f"{name}_{count}_carry_{index}", reset_less=True) for index, c in enumerate(left)]
    return terms[0], carries


class MacArray(wiring.Component):
    """``lanes_n`` dot products of ``lanes_k`` elements a cycle, accumulated over a tile's steps.

    Output-stationary: the activations of one token meet ``lanes_n`` weight rows each cycle; ``first`` restarts the
    accumulators, and ``spec.timing.mac_array`` cycles after the operands of the ``last`` step ``result`` holds the
    finished tile, stable until the next tile finishes (``result_valid`` pulses).

    Args:
        lanes_k: elements a cycle
        lanes_n: dot products
        chain: products that are summed within a cascade of DSPs; a tree of ``lanes_k / chain`` terms sums the rest,
            a level a cycle
        acc_bits: bits of a sum; a tile whose sum needs more must not come

    Members:
        activations: lanes_k x signed(9), int8 or uint8 values
        weights: lanes_n x lanes_k x signed(8), in [-127, 127]; flat, lane n's byte k at bit (n * lanes_k + k) * 8
        valid, first, last: of this cycle's step
        result: lanes_n x signed(acc_bits)
    """

    def __init__(self, lanes_k: int, lanes_n: int, *, chain: int = 2, acc_bits: int = ACCUMULATOR_BITS):
        if lanes_k < 2 or lanes_k & (lanes_k - 1):
            raise ValueError(f"lanes_k must be a power of two of at least 2, not {lanes_k!r}")
        if lanes_n < 2 or lanes_n % 2:
            raise ValueError(f"lanes_n must be even, not {lanes_n!r}")
        if chain not in DSP_CHAINS or chain > lanes_k:
            raise ValueError(f"chain must be 1, 2 or 4 and at most lanes_k ({lanes_k}), not {chain!r}")
        self._lanes_k, self._lanes_n, self._chain, self._acc_bits = lanes_k, lanes_n, chain, acc_bits
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
        lanes_k, chain = self._lanes_k, self._chain
        # The operands of a chain's position j wait j cycles for those before it.
        activations = [
            delay(m, self.activations[k], k % chain, f"activation_{k}", reset_less=True) for k in range(lanes_k)
        ]
        control = delay(m, Cat(self.valid, self.first, self.last), mac_array(lanes_k, chain) - 2, "control")
        groups = copies(m, control, -(-self._lanes_n // _CONTROL_LANES), "control_copy")
        for pair in range(self._lanes_n // 2):
            even, odd = self._chains(m, pair, activations)
            borrows = [low[-1] for low in even]
            for lane, terms, carries in ((2 * pair, even, []), (2 * pair + 1, odd, borrows)):
                total, left = _tree(m, terms, carries, f"lane_{lane}")
                self._accumulate(m, lane, total, left, groups[lane // _CONTROL_LANES])
        m.d.sync += self.result_valid.eq(groups[0][0] & groups[0][2])
        return m

    def _chains(self, m: Module, pair: int, activations: Sequence[Value]) -> tuple[list[Value], list[Value]]:
        """The chains' sums of the pair's even lane and of its odd lane."""
        lanes_k, chain = self._lanes_k, self._chain

        def weight(lane: int, k: int) -> Value:
            byte = self.weights.word_select(lane * lanes_k + k, 8)
            for index in range(k % chain):  # marked, because shift registers would take LUTs
                byte = copies(m, byte, 1, f"weight_{lane}_{k}_{index}")[0]
            return byte.as_signed()

        even, odd = [], []
        for start in range(0, lanes_k, chain):
            places = range(start, start + chain)
            high, low = product_chain(
                m,
                f"pair_{pair}_{start}",
                [weight(2 * pair + 1, k) for k in places],
                [weight(2 * pair, k) for k in places],
                [activations[k] for k in places],
            )
            even.append(low)
            odd.append(high)
        return even, odd

    def _accumulate(self, m: Module, lane: int, total: Value, carries: Sequence[Value], control: Value) -> None:
        """Sum over the steps; the last borrow is given back here."""
        valid, first, last = control
        accumulator = Signal(signed(self._acc_bits), name=f"accumulator_{lane}", reset_less=True)
        updated = Signal(signed(self._acc_bits), name=f"updated_{lane}")
        result = Signal(signed(self._acc_bits), name=f"result_{lane}", reset_less=True)
        step = truncate(total, self._acc_bits)
        earlier = Mux(first, 0, accumulator)
        m.d.comb += [
            updated.eq(truncate(step + earlier + carries[0] if carries else step + earlier, self._acc_bits)),
            self.result[lane].eq(result),
        ]
        with m.If(valid):
            m.d.sync += accumulator.eq(updated)
        with m.If(valid & last):
            m.d.sync += result.eq(updated)
