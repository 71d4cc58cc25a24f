"""Single-pass softmax: exponentials of a row and the reciprocal of their sum (docs/numerics.md, section 6)."""

from amaranth.hdl import Array, Cat, Const, Module, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from edgemoe_hw.primitives.arithmetic import truncate
from edgemoe_hw.primitives.trees import two_stage_sum
from edgemoe_hw.spec.constants import RECIPROCAL_LATENCY, ROW_FACTOR_BITS, SCORE_BITS
from edgemoe_hw.spec.tables import EXP2, RECIP

__all__ = ["Exp2Lanes", "Reciprocal"]


class Exp2Lanes(wiring.Component):
    """Probabilities of ``lanes`` keys of one query a cycle; no handshake.

    Latency: ``LATENCY`` cycles from the scores to ``p``, ``TOTAL_LATENCY`` to ``total``.

    Args:
        lanes: keys a cycle

    Members:
        score: In(signed(SCORE_BITS)).array(lanes)
        maximum: In(signed(SCORE_BITS)), at least every unmasked score
        score_shift: In(2)
        mask: In(lanes), 0 where the key is padding: its p is 0
        p: Out(8).array(lanes)
        total: Out, the sum of the lanes' p
    """

    LATENCY = 3
    TOTAL_LATENCY = LATENCY + 2

    def __init__(self, lanes: int) -> None:
        if not isinstance(lanes, int) or lanes < 1:
            raise ValueError(f"lanes must be a positive integer, not {lanes!r}")
        self._lanes = lanes
        super().__init__(
            {
                "score": In(signed(SCORE_BITS)).array(lanes),
                "maximum": In(signed(SCORE_BITS)),
                "score_shift": In(2),
                "mask": In(lanes),
                "p": Out(8).array(lanes),
                "total": Out(range(255 * lanes + 1)),
            }
        )

    @property
    def lanes(self) -> int:
        return self._lanes

    def elaborate(self, platform: object) -> Module:
        m = Module()
        shift = Signal(2)
        m.d.sync += shift.eq(self.score_shift)
        for i in range(self._lanes):
            self._lane(m, i, shift)

        m.d.comb += self.total.eq(two_stage_sum(m, list(self.p), "sum"))
        return m

    def _lane(self, m: Module, i: int, shift: Signal) -> None:
        """Adds the data path of lane ``i``; ``shift`` belongs to its second stage."""
        difference = Signal(SCORE_BITS, name=f"difference_{i}")  # of symmetric values, so without a carry
        live = Signal(name=f"live_{i}")
        m.d.sync += [difference.eq(self.maximum - self.score[i]), live.eq(self.mask[i])]

        delta = Signal(SCORE_BITS + 3, name=f"delta_{i}")
        mantissa = Signal(12, name=f"mantissa_{i}")
        exponent = Signal(SCORE_BITS - 3, name=f"exponent_{i}")
        live_2 = Signal(name=f"live_2_{i}")
        m.d.comb += delta.eq(difference << shift)
        m.d.sync += [
            mantissa.eq(Array([Const(value, 12) for value in EXP2])[delta[:6]]),
            exponent.eq(delta[6:]),
            live_2.eq(live),
        ]

        # (E + (8 << i)) >> (4 + i) is ((E >> (3 + i)) + 1) >> 1, which needs one shifter only.
        halves = Signal(9, name=f"halves_{i}")
        rounded = Signal(9, name=f"rounded_{i}")
        with m.If(live_2):
            with m.Switch(exponent):
                for e in range(9):
                    with m.Case(e):
                        m.d.comb += halves.eq(mantissa >> (3 + e))
        m.d.comb += rounded.eq((halves + 1) >> 1)
        m.d.sync += self.p[i].eq(truncate(rounded, 8))  # at most 255, which EXP2[0] = 4080 gives


class Reciprocal(wiring.Component):
    """``n`` to the row factor ``(row, shift)`` that divides by it; one a cycle, after ``LATENCY`` cycles.

    Args:
        width: bits of ``n``, at least 11

    Members:
        n: In(width), at least 1 (of 0 nothing sensible comes out)
        row: Out(ROW_FACTOR_BITS), ``RECIP`` at the ten bits after the leading one of ``n``
        shift: Out, ``floor_log2(n)``
    """

    LATENCY = RECIPROCAL_LATENCY

    def __init__(self, width: int) -> None:
        if not isinstance(width, int) or width < 11:
            raise ValueError(f"width must be an integer of at least 11, not {width!r}")
        self._width = width
        super().__init__(
            {
                "n": In(width),
                "row": Out(ROW_FACTOR_BITS),
                "shift": Out(range(width)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        n = Signal(self._width)
        position = Signal(range(self._width))
        m.d.sync += n.eq(self.n)
        for bit in range(self._width):  # the last match, so the highest bit, wins
            with m.If(self.n[bit]):
                m.d.sync += position.eq(bit)

        index = Signal(10)
        position_2 = Signal.like(position)
        m.d.sync += position_2.eq(position)
        padded = Cat(Const(0, 10), n)
        with m.Switch(position):
            for bit in range(self._width):
                with m.Case(bit):
                    m.d.sync += index.eq(padded[bit : bit + 10])

        m.submodules.table = table = Memory(shape=16, depth=len(RECIP), init=RECIP)
        read = table.read_port()
        m.d.comb += [read.addr.eq(index), self.row.eq(read.data)]
        m.d.sync += self.shift.eq(position_2)
        return m
