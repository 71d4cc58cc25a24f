"""Requantize: accumulator and per-channel parameters to a clamped integer (docs/numerics.md, section 2)."""

from amaranth.hdl import Array, Const, Module, Signal, signed
from amaranth.lib import enum, wiring
from amaranth.lib.wiring import In, Out

from edgemoe_hw.primitives.delay import delay
from edgemoe_hw.primitives.rounding import RoundingShift, limit_of
from edgemoe_hw.spec.constants import ACCUMULATOR_BITS, ROW_FACTOR_BITS, ROW_SHIFT_BITS, SHIFT_BITS, SHIFT_SUM_BITS

__all__ = ["NO_ROW_FACTOR", "RequantizeLane", "Requantizer", "ValueBits"]

#: Value of ``row`` (with ``row_shift`` 0) that leaves the channel's multiplier as it is.
NO_ROW_FACTOR = 1 << 15


class ValueBits(enum.Enum, shape=2):  # type: ignore[call-arg]
    """Width of the result: what the value is used for."""

    INT8 = 0  # activation
    INT12 = 1  # attention score, input of an activation function
    INT16 = 2  # residual increment, gate logit, head output


_LIMITS = [limit_of(bits) for bits in (8, 12, 16)]  # in the order of ValueBits


_PRODUCT_LATENCY = 4  # cycles from a lane's inputs to its product


class RequantizeLane(wiring.Component):
    """One channel: two multipliers (17 x 17 and ``acc_bits`` x 17 bits); fully pipelined.

    With accumulators of 25 bits each is one DSP48, registered behind its multiplier and at its output.

    Args:
        acc_bits: bits of the accumulator, and of its sum with the bias

    Members:
        acc, bias: In(signed(acc_bits)); their sum has no more bits (the compiler's bound)
        multiplier: In(16), shift: In(SHIFT_BITS), row: In(ROW_FACTOR_BITS) 0..32768, row_shift: In(ROW_SHIFT_BITS)
        limit: In(15), sampled ``LIMIT_DELAY`` cycles after the rest
        value: Out(signed(16)), ``LATENCY`` cycles after the inputs
    """

    LATENCY = _PRODUCT_LATENCY + RoundingShift.LATENCY
    LIMIT_DELAY = _PRODUCT_LATENCY + RoundingShift.LIMIT_DELAY

    def __init__(self, acc_bits: int = ACCUMULATOR_BITS) -> None:
        self._acc_bits = acc_bits
        super().__init__(
            {
                "acc": In(signed(acc_bits)),
                "bias": In(signed(acc_bits)),
                "multiplier": In(16),
                "shift": In(SHIFT_BITS),
                "row": In(ROW_FACTOR_BITS),
                "row_shift": In(ROW_SHIFT_BITS),
                "limit": In(15),
                "value": Out(signed(16)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        biased, biased_2 = (
            Signal(signed(self._acc_bits), reset_less=True, name=name) for name in ("biased", "biased_2")
        )
        multiplied = Signal(32, reset_less=True)
        scaled = Signal(32, reset_less=True)
        multiplied_2, product = (
            Signal(signed(self._acc_bits + 16), reset_less=True, name=name) for name in ("multiplied_2", "product")
        )
        shift = Signal(SHIFT_SUM_BITS, reset_less=True)
        m.d.sync += [
            biased.eq(self.acc + self.bias),
            multiplied.eq(self.multiplier * self.row),
            shift.eq(self.shift + self.row_shift),
            biased_2.eq(biased),
            scaled.eq(multiplied + (1 << 14)),
            # No more than the multiplier, because row is at most 2^15.
            multiplied_2.eq(biased_2 * scaled[15:31]),
            product.eq(multiplied_2),
        ]
        m.submodules.rounding = rounding = RoundingShift(len(product), SHIFT_SUM_BITS, 16)
        m.d.comb += [
            rounding.value.eq(product),
            rounding.shift.eq(delay(m, shift, _PRODUCT_LATENCY - 1, "shift", reset_less=True)),
            rounding.limit.eq(self.limit),
            self.value.eq(rounding.result),
        ]
        return m


class Requantizer(wiring.Component):
    """``lanes`` channels of one token a cycle; no handshake, the result follows after ``LATENCY`` cycles.

    Args:
        lanes: channels a cycle
        acc_bits: bits of an accumulator, and of its sum with its bias

    Members:
        acc, bias: In(signed(acc_bits)).array(lanes)
        multiplier: In(16).array(lanes); shift: In(SHIFT_BITS).array(lanes), 0..47
        row: In(ROW_FACTOR_BITS), 0..32768; ``NO_ROW_FACTOR`` (with row_shift 0) where there is none
        row_shift: In(ROW_SHIFT_BITS)
        bits: In(ValueBits)
        value: Out(signed(16)).array(lanes)
    """

    LATENCY = RequantizeLane.LATENCY

    def __init__(self, lanes: int, acc_bits: int = ACCUMULATOR_BITS) -> None:
        if not isinstance(lanes, int) or lanes < 1:
            raise ValueError(f"lanes must be a positive integer, not {lanes!r}")
        self._lanes = lanes
        self._acc_bits = acc_bits
        super().__init__(
            {
                "acc": In(signed(acc_bits)).array(lanes),
                "bias": In(signed(acc_bits)).array(lanes),
                "multiplier": In(16).array(lanes),
                "shift": In(SHIFT_BITS).array(lanes),
                "row": In(ROW_FACTOR_BITS),
                "row_shift": In(ROW_SHIFT_BITS),
                "bits": In(ValueBits),
                "value": Out(signed(16)).array(lanes),
            }
        )

    @property
    def lanes(self) -> int:
        return self._lanes

    def elaborate(self, platform: object) -> Module:
        m = Module()
        chosen = Array([Const(value, 15) for value in _LIMITS])[self.bits.as_value()]
        limit = delay(m, chosen, RequantizeLane.LIMIT_DELAY, "limit", reset_less=True)
        for i in range(self._lanes):
            m.submodules[f"lane_{i}"] = lane = RequantizeLane(self._acc_bits)
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
