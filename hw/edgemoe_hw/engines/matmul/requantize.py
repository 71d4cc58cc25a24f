"""Requantize: accumulator and per-channel parameters to a clamped integer (docs/numerics.md, section 2)."""

from amaranth.hdl import Array, Const, Module, Signal, signed
from amaranth.lib import enum, wiring
from amaranth.lib.wiring import In, Out

from edgemoe_hw.primitives.rounding import RoundingShift, limit_of

__all__ = ["NO_ROW_FACTOR", "RequantizeLane", "Requantizer", "ValueBits"]

#: Value of ``row`` (with ``row_shift`` 0) that leaves the channel's multiplier as it is.
NO_ROW_FACTOR = 1 << 15


class ValueBits(enum.Enum, shape=2):  # type: ignore[call-arg]
    """Width of the result: what the value is used for."""

    INT8 = 0  # activation
    INT11 = 1  # GELU input
    INT12 = 2  # attention score
    INT16 = 3  # residual increment, gate logit, head output


_LIMITS = [limit_of(bits) for bits in (8, 11, 12, 16)]  # in the order of ValueBits


class RequantizeLane(wiring.Component):
    """One channel: two multipliers, each one DSP48 (17 x 17 and 25 x 17 bits); fully pipelined.

    Members:
        acc: In(signed(25)), bias: In(signed(32)); their sum fits 25 bits (the compiler's bound)
        multiplier: In(16), shift: In(6), row: In(16) 0..32768, row_shift: In(4)
        limit: In(15), sampled ``LIMIT_DELAY`` cycles after the rest
        value: Out(signed(16)), ``LATENCY`` cycles after the inputs
    """

    LATENCY = 3 + RoundingShift.LATENCY
    LIMIT_DELAY = 3 + RoundingShift.LIMIT_DELAY

    acc: In(signed(25))
    bias: In(signed(32))
    multiplier: In(16)
    shift: In(6)
    row: In(16)
    row_shift: In(4)
    limit: In(15)
    value: Out(signed(16))

    def elaborate(self, platform: object) -> Module:
        m = Module()
        biased = Signal(signed(25))
        biased_2 = Signal(signed(25))
        scaled = Signal(32)
        factor = Signal(16)
        product = Signal(signed(41))
        shifts = [Signal(6, name=f"shift_{i}") for i in range(3)]
        m.d.sync += [
            biased.eq(self.acc + self.bias),
            scaled.eq(self.multiplier * self.row),
            shifts[0].eq(self.shift + self.row_shift),
            biased_2.eq(biased),
            factor.eq((scaled + (1 << 14)) >> 15),
            shifts[1].eq(shifts[0]),
            product.eq(biased_2 * factor),
            shifts[2].eq(shifts[1]),
        ]
        m.submodules.rounding = rounding = RoundingShift(41, 6, 16)
        m.d.comb += [
            rounding.value.eq(product),
            rounding.shift.eq(shifts[2]),
            rounding.limit.eq(self.limit),
            self.value.eq(rounding.result),
        ]
        return m


class Requantizer(wiring.Component):
    """``lanes`` channels of one token a cycle; no handshake, the result follows after ``LATENCY`` cycles.

    Args:
        lanes: channels a cycle

    Members:
        acc: In(signed(25)).array(lanes); bias: In(signed(32)).array(lanes)
        multiplier: In(16).array(lanes); shift: In(6).array(lanes), 0..47
        row: In(16), 0..32768; ``NO_ROW_FACTOR`` (with row_shift 0) where there is none
        row_shift: In(4)
        bits: In(ValueBits)
        value: Out(signed(16)).array(lanes)
    """

    LATENCY = RequantizeLane.LATENCY

    def __init__(self, lanes: int) -> None:
        if not isinstance(lanes, int) or lanes < 1:
            raise ValueError(f"lanes must be a positive integer, not {lanes!r}")
        self._lanes = lanes
        super().__init__(
            {
                "acc": In(signed(25)).array(lanes),
                "bias": In(signed(32)).array(lanes),
                "multiplier": In(16).array(lanes),
                "shift": In(6).array(lanes),
                "row": In(16),
                "row_shift": In(4),
                "bits": In(ValueBits),
                "value": Out(signed(16)).array(lanes),
            }
        )

    @property
    def lanes(self) -> int:
        return self._lanes

    def elaborate(self, platform: object) -> Module:
        m = Module()
        limit = Array([Const(value, 15) for value in _LIMITS])[self.bits.as_value()]
        for stage in range(RequantizeLane.LIMIT_DELAY):
            delayed = Signal(15, name=f"limit_{stage}")
            m.d.sync += delayed.eq(limit)
            limit = delayed
        for i in range(self._lanes):
            m.submodules[f"lane_{i}"] = lane = RequantizeLane()
            m.d.comb += [
                lane.acc.eq(self.acc[i]),
                lane.bias.eq(self.bias[i]),
                lane.multiplier.eq(self.multiplier[i]),
                lane.shift.eq(self.shift[i]),
                lane.row.eq(self.row),
                lane.row_shift.eq(self.row_shift),
                lane.limit.eq(limit),
                self.value[i].eq(lane.value),
            ]
        return m
