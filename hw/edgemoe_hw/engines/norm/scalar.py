"""Scalar part of LayerNorm: a row's sums to its mean, reciprocal deviation and shift (docs/numerics.md, section 5)."""

from functools import reduce
from operator import or_

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from edgemoe_hw.primitives.arithmetic import truncate
from edgemoe_hw.primitives.delay import delay
from edgemoe_hw.primitives.rounding import RoundingShift, limit_of
from edgemoe_hw.spec.constants import DIM_BITS, MAX_DIM
from edgemoe_hw.spec.tables import RSQRT

__all__ = ["NormScalar", "RowStatistics", "RowSums"]


class RowSums(data.Struct):
    """Exact sums over one residual row."""

    total: signed(26)  # S
    squares: 41  # Q


class RowStatistics(data.Struct):
    """What normalising one row needs."""

    mean: signed(24)  # mu, 8 fraction bits
    rsqrt: 16  # R
    shift: 6  # 39 - c - e


assert MAX_DIM == 1024  # all widths here follow: |S| < 2^25, Q < 2^40, |S| * inv <= 2^41, D*Q - S*S + eps < 2^51
_STEPS = 7  # products a row
_PRODUCT = 5  # cycles from a step to its addend: operands, three of the multiplier, shifted product
_HALVINGS = (32, 16, 8, 4, 2)


class NormScalar(wiring.Component):
    """One row at a time through one 24 x 17 bit multiplier.

    Throughput: a row every ``INTERVAL`` cycles. Latency: below ``LATENCY_BOUND`` cycles. ``statistics`` has no
    backpressure: its consumer must have room for every row that was accepted.

    Members:
        sums: In(stream of RowSums)
        statistics_valid: Out(1), statistics: Out(RowStatistics)
        dim: In(DIM_BITS), log2_dim: In(4), inv_dim: In(17), eps: In(32); constant while rows are inside
    """

    INTERVAL = _STEPS + 1
    LATENCY_BOUND = 25

    sums: In(stream.Signature(RowSums))
    statistics_valid: Out(1)
    statistics: Out(RowStatistics)
    dim: In(DIM_BITS)
    log2_dim: In(4)
    inv_dim: In(17)
    eps: In(32)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        negative = Signal(reset_less=True)
        high = Signal(13, reset_less=True)  # |S| >> 12
        low = Signal(12, reset_less=True)
        squares = Signal(41, reset_less=True)
        step, idle = Signal(_STEPS), Signal(init=1)  # which product, one hot; none
        # The next row's sums wait in a register while the multiplier is busy.
        held, waiting = Signal(), Signal(RowSums, reset_less=True)
        m.d.comb += self.sums.ready.eq(~held)
        with m.If(~held):
            m.d.sync += [held.eq(self.sums.valid), waiting.eq(self.sums.payload)]
        with m.If(idle & held):
            m.d.sync += held.eq(0)
        m.d.sync += [step.eq(Cat(idle & held, step[:-1])), idle.eq(step[-1] | (idle & ~held))]
        with m.If(idle):
            total = waiting.total
            m.d.sync += [
                negative.eq(total < 0),
                Cat(low, high).eq(truncate(Mux(total < 0, -total, total), 25)),  # |S| <= 1024 * 32767
                squares.eq(waiting.squares),
            ]

        # Multiplier: operands, three registers of the multiplier, and the shifted product are a pipeline stage each.
        a, b = Signal(24, reset_less=True), Signal(17, reset_less=True)
        multiplicand, multiplier = Signal.like(a), Signal.like(b)  # the DSP's: what selects operands ends before it
        multiplied, product = (Signal(41, name=name, reset_less=True) for name in ("multiplied", "product"))
        m.d.sync += [
            Cat(multiplicand, multiplier).eq(Cat(a, b)),
            multiplied.eq(multiplicand * multiplier),
            product.eq(multiplied),
        ]
        operands = (
            (low, self.inv_dim),
            (high, self.inv_dim),
            (squares[:24], self.dim),
            (squares[24:], self.dim),
            (low, low),
            (low, high),
            (high, high),
        )
        chosen = [step[i].replicate(len(a)) & left for i, (left, _) in enumerate(operands)]
        m.d.sync += [
            a.eq(reduce(or_, chosen)),
            b.eq(reduce(or_, (step[i].replicate(len(b)) & right for i, (_, right) in enumerate(operands)))),
        ]
        shifting = delay(m, step, _PRODUCT - 1, "step")

        # The product has room for any operands; those of each step need less, so nothing is lost.
        addend, subtracted = Signal(54, reset_less=True), Signal(reset_less=True)
        m.d.sync += subtracted.eq(shifting[4:].any())
        for i, distance in enumerate((0, 12, 0, 24, 0, 13, 24)):
            shifted = Cat(Const(0, distance), product, Const(0, 54))[:54]
            with m.If(shifting[i]):
                m.d.sync += addend.eq(~shifted if i >= 4 else shifted)

        scaled = Signal(42, reset_less=True)  # |S| * inv
        mean_negative = Signal(reset_less=True)
        spread = Signal(54, reset_less=True)  # D*Q - S*S + eps
        complete = Signal()
        sign = delay(m, negative, _PRODUCT, "sign", reset_less=True)
        adds = delay(m, shifting, 1, "adds")  # the step whose addend is there
        m.d.sync += complete.eq(adds[-1])
        with m.If(adds[1]):
            m.d.sync += mean_negative.eq(sign)
        with m.If(adds[:2].any()):
            m.d.sync += scaled.eq(truncate(Mux(adds[0], 0, scaled) + addend[:42], 42))
        with m.If(adds[2:].any()):  # the carry in is the sum's lowest bit
            base = Mux(adds[2], self.eps, spread)
            m.d.sync += spread.eq((Cat(subtracted, addend) + Cat(subtracted, base))[1:55])

        # |mu| < 2^23 always, so the limit is never reached. It is ready before `complete` and stays until after it.
        assert RoundingShift.LATENCY <= _STEPS - 2
        m.submodules.rounding = rounding = RoundingShift(43, 5, 24)
        m.d.comb += [
            rounding.value.eq(scaled),
            rounding.shift.eq(self.log2_dim + 8),
            rounding.limit.eq(limit_of(24)),
        ]

        # Normalisation: one halving of the distance a cycle, and one before to see whether the first is needed: that
        # of each is decided in the cycle of the one before. All of it takes fewer cycles than INTERVAL.
        v = Signal(52, reset_less=True)
        e = Signal(5, reset_less=True)
        mean = Signal(signed(24), reset_less=True)
        phase = Signal(len(_HALVINGS) + 2)  # one hot, 0 when idle
        moves = Signal(len(_HALVINGS))  # a halving moves v in this cycle, one hot
        m.d.sync += phase.eq(Cat(complete, phase[:-1]))
        with m.If(complete):
            m.d.sync += [
                v.eq(Cat(spread[0] | ~spread[1:].any(), spread[1:52])),  # 1 for 0; below 2^52 when it is complete
                e.eq(0),
                mean.eq(Mux(mean_negative, -rounding.result, rounding.result)),
            ]
        for i, distance in enumerate(_HALVINGS):
            clear = ~v[52 - distance :].any()
            if i:  # after the halving of this cycle
                before = _HALVINGS[i - 1]
                clear = Mux(moves[i - 1], ~v[52 - before - distance : 52 - before].any(), clear)
            m.d.sync += moves[i].eq(phase[i] & clear)
            with m.If(moves[i]):
                m.d.sync += [v.eq(truncate(v << distance, 52)), e[exact_log2(distance) - 1].eq(1)]

        m.submodules.table = table = Memory(shape=16, depth=len(RSQRT), init=RSQRT)
        read = table.read_port()
        m.d.comb += [
            read.addr.eq(v[42:]),
            self.statistics.rsqrt.eq(read.data),
        ]
        m.d.sync += [
            self.statistics_valid.eq(phase[-1]),
            self.statistics.mean.eq(mean),
            self.statistics.shift.eq(Const(39) - self.log2_dim - e),
        ]
        return m
