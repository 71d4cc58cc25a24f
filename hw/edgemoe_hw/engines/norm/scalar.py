"""Scalar part of LayerNorm: a row's sums to its mean, reciprocal deviation and shift (docs/numerics.md, section 5)."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from edgemoe_hw.primitives.arithmetic import truncate
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
    LATENCY_BOUND = 20

    sums: In(stream.Signature(RowSums))
    statistics_valid: Out(1)
    statistics: Out(RowStatistics)
    dim: In(DIM_BITS)
    log2_dim: In(4)
    inv_dim: In(17)
    eps: In(32)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        negative = Signal()
        high = Signal(13)  # |S| >> 12
        low = Signal(12)
        squares = Signal(41)
        step = Signal(range(_STEPS + 1))  # 0 is idle
        total = self.sums.payload.total
        m.d.comb += self.sums.ready.eq(step == 0)
        with m.If(step == _STEPS):
            m.d.sync += step.eq(0)
        with m.Elif((step != 0) | self.sums.valid):
            m.d.sync += step.eq(step + 1)
        with m.If(step == 0):
            m.d.sync += [
                negative.eq(total < 0),
                Cat(low, high).eq(truncate(Mux(total < 0, -total, total), 25)),  # |S| <= 1024 * 32767
                squares.eq(self.sums.payload.squares),
            ]

        # Multiplier: operands, product and accumulation are one pipeline stage each.
        a = Signal(24)
        b = Signal(17)
        product = Signal(41)
        steps = [step, Signal.like(step, name="step_1"), Signal.like(step, name="step_2")]
        signs = [negative, Signal(name="negative_1"), Signal(name="negative_2")]
        m.d.sync += product.eq(a * b)
        for i in (1, 2):
            m.d.sync += [steps[i].eq(steps[i - 1]), signs[i].eq(signs[i - 1])]
        operands = (
            (low, self.inv_dim),
            (high, self.inv_dim),
            (squares[:24], self.dim),
            (squares[24:], self.dim),
            (low, low),
            (low, high),
            (high, high),
        )
        with m.Switch(step):
            for i, (left, right) in enumerate(operands):
                with m.Case(i + 1):
                    m.d.sync += [a.eq(left), b.eq(right)]

        # The product has room for any operands; those of each step need less, so nothing is lost.
        def shifted(distance: int, width: int) -> Value:
            return truncate(product << distance, width)

        scaled = Signal(42)  # |S| * inv
        mean_negative = Signal()
        spread = Signal(54)  # D*Q - S*S + eps
        complete = Signal()
        m.d.sync += complete.eq(steps[2] == _STEPS)
        with m.Switch(steps[2]):
            with m.Case(1):
                m.d.sync += scaled.eq(product)
            with m.Case(2):
                m.d.sync += [scaled.eq(scaled + shifted(12, 42)), mean_negative.eq(signs[2])]
            with m.Case(3):
                m.d.sync += spread.eq(product + self.eps)
            with m.Case(4):
                m.d.sync += spread.eq(spread + shifted(24, 54))
            with m.Case(5):
                m.d.sync += spread.eq(spread - product)
            with m.Case(6):
                m.d.sync += spread.eq(spread - shifted(13, 54))
            with m.Case(7):
                m.d.sync += spread.eq(spread - shifted(24, 54))

        # |mu| < 2^23 always, so the limit is never reached. It is ready before `complete` and stays until after it.
        m.submodules.rounding = rounding = RoundingShift(43, 5, 24)
        m.d.comb += [
            rounding.value.eq(scaled),
            rounding.shift.eq(self.log2_dim + 8),
            rounding.limit.eq(limit_of(24)),
        ]

        # Normalisation: one halving of the distance a cycle. All of it takes fewer cycles than INTERVAL.
        v = Signal(52)
        e = Signal(5)
        mean = Signal(signed(24))
        phase = Signal(range(len(_HALVINGS) + 2))  # 0 is idle
        with m.If(complete):
            m.d.sync += [
                v.eq(truncate(Mux(spread.any(), spread, 1), 52)),  # below 2^52 when it is complete
                e.eq(0),
                mean.eq(Mux(mean_negative, -rounding.result, rounding.result)),
                phase.eq(1),
            ]
        with m.Elif(phase == len(_HALVINGS) + 1):
            m.d.sync += phase.eq(0)
        with m.Elif(phase != 0):
            m.d.sync += phase.eq(phase + 1)
        with m.Switch(phase):
            for i, distance in enumerate(_HALVINGS):
                with m.Case(i + 1):
                    with m.If(~v[52 - distance :].any()):
                        m.d.sync += [v.eq(truncate(v << distance, 52)), e.eq(e | distance >> 1)]

        m.submodules.table = table = Memory(shape=16, depth=len(RSQRT), init=RSQRT)
        read = table.read_port()
        m.d.comb += [
            read.addr.eq(v[42:]),
            self.statistics.rsqrt.eq(read.data),
        ]
        m.d.sync += [
            self.statistics_valid.eq(phase == len(_HALVINGS) + 1),
            self.statistics.mean.eq(mean),
            self.statistics.shift.eq(Const(39) - self.log2_dim - e),
        ]
        return m
