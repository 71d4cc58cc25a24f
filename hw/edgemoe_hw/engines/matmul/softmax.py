"""Single-pass softmax: exponentials of a row and the reciprocal of their sum (docs/numerics.md, section 6)."""

import itertools

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from edgemoe_hw.primitives.arithmetic import minimum, truncate
from edgemoe_hw.primitives.delay import copies, delay
from edgemoe_hw.primitives.trees import pipelined_tree, tree_cycles, tree_sum
from edgemoe_hw.spec.constants import RECIPROCAL_LATENCY, ROW_FACTOR_BITS, SCORE_BITS
from edgemoe_hw.spec.tables import EXP2, RECIP

__all__ = ["Exp2Lanes", "Reciprocal"]


_VANISHED = 9  # exponent from which on a probability is 0
_SHARING = 4  # lanes that share a register of the shift
_SUM_STAGES = 3


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

    LATENCY = 4
    TOTAL_LATENCY = LATENCY + _SUM_STAGES

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
        shifts = copies(m, self.score_shift, -(-self._lanes // _SHARING), "shift")
        for i in range(self._lanes):
            self._lane(m, i, shifts[i // _SHARING])

        # Sums of few lanes a stage; so few that there are always as many stages.
        fan_in = next(n for n in itertools.count(2) if n**_SUM_STAGES >= self._lanes)
        stages = tree_cycles(self._lanes, fan_in)
        total = pipelined_tree(m, list(self.p), tree_sum, fan_in, "sum", reset_less=True)
        total = truncate(total, len(self.total))  # no p is more than 255
        m.d.comb += self.total.eq(delay(m, total, _SUM_STAGES - stages, "total", reset_less=True))
        return m

    def _lane(self, m: Module, i: int, shift: Signal) -> None:
        """Adds the data path of lane ``i``; ``shift`` belongs to its second stage."""
        difference = Signal(SCORE_BITS, name=f"difference_{i}", reset_less=True)  # of symmetric values: no carry
        delta = Signal(SCORE_BITS + 3, name=f"delta_{i}", reset_less=True)
        live = delay(m, self.mask[i], 2, f"live_{i}", reset_less=True)
        m.d.sync += [
            difference.eq(self.maximum - self.score[i]),
            delta.eq(difference << shift),
        ]

        mantissa = Signal(12, name=f"mantissa_{i}", reset_less=True)
        exponent = Signal(range(_VANISHED + 1), name=f"exponent_{i}", reset_less=True)
        m.d.sync += [
            mantissa.eq(Array([Const(value, 12) for value in EXP2])[delta[:6]]),
            exponent.eq(Mux(live, minimum(delta[6:], _VANISHED), _VANISHED)),
        ]

        # (E + (8 << i)) >> (4 + i) is ((E >> (3 + i)) + 1) >> 1, which needs one shifter only.
        halves = Signal(9, name=f"halves_{i}")
        p = Signal(8, name=f"p_{i}", reset_less=True)
        with m.Switch(exponent):
            for e in range(_VANISHED):
                with m.Case(e):
                    m.d.comb += halves.eq(mantissa >> (3 + e))
        m.d.sync += p.eq(halves[1:] + halves[0])  # at most 255, which EXP2[0] = 4080 gives
        m.d.comb += self.p[i].eq(p)


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
        n = Signal(self._width, reset_less=True)
        position = Signal(range(self._width), reset_less=True)
        m.d.sync += n.eq(self.n)
        for bit in range(self._width):  # the last match, so the highest bit, wins
            with m.If(self.n[bit]):
                m.d.sync += position.eq(bit)

        index = Signal(10, reset_less=True)
        position_2 = Signal.like(position)
        m.d.sync += position_2.eq(position)
        padded = Cat(Const(0, 10), n)
        with m.Switch(position):
            for bit in range(self._width):
                with m.Case(bit):
                    m.d.sync += index.eq(padded[bit : bit + 10])

        m.submodules.table = table = Memory(shape=16, depth=len(RECIP), init=RECIP)
        read = table.read_port()
        row = Signal(ROW_FACTOR_BITS, reset_less=True)  # the block RAM's output register
        m.d.sync += row.eq(read.data)
        m.d.comb += [
            read.addr.eq(index),
            self.row.eq(row),
            self.shift.eq(delay(m, position_2, 2, "shift")),
        ]
        return m
