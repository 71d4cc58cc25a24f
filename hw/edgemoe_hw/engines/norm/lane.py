"""One lane of LayerNorm's normalisation: a residual element to an int8 activation (docs/numerics.md, section 5)."""

from amaranth.hdl import Module, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from edgemoe_hw.primitives.delay import delay
from edgemoe_hw.primitives.rounding import RoundingShift, limit_of

__all__ = ["NormLane"]


_PRODUCT = 2  # cycles of a multiplication, whose registers are the DSP's


class NormLane(wiring.Component):
    """Fully pipelined, one element a cycle, two multipliers (25 x 17 and 16 x 16 bits).

    The inputs are sampled at different times, counted from ``x``, so that lanes share the delay registers:
    ``mean`` with it, ``rsqrt`` after ``RSQRT_DELAY`` cycles, ``norm_shift`` after ``SHIFT_DELAY``, ``gamma`` and
    ``beta`` after ``PARAM_DELAY``. ``shift`` is constant. The result ``y`` follows after ``LATENCY`` cycles.

    Members:
        x: In(signed(16)), mean: In(signed(24)), rsqrt: In(16), norm_shift: In(6)
        gamma: In(signed(16)), beta: In(signed(32)), shift: In(5)
        y: Out(signed(8))
    """

    RSQRT_DELAY = 1
    SHIFT_DELAY = RSQRT_DELAY + _PRODUCT
    PARAM_DELAY = SHIFT_DELAY + RoundingShift.LATENCY
    LATENCY = PARAM_DELAY + _PRODUCT + 1 + RoundingShift.LATENCY

    x: In(signed(16))
    mean: In(signed(24))
    rsqrt: In(16)
    norm_shift: In(6)
    gamma: In(signed(16))
    beta: In(signed(32))
    shift: In(5)
    y: Out(signed(8))

    def elaborate(self, platform: object) -> Module:
        m = Module()
        centred = Signal(signed(25), reset_less=True)
        multiplied, scaled = (Signal(signed(42), name=name, reset_less=True) for name in ("multiplied", "scaled"))
        m.d.sync += [
            centred.eq((self.x << 8) - self.mean),
            multiplied.eq(centred * self.rsqrt),
            scaled.eq(multiplied),
        ]
        m.submodules.normalise = normalise = RoundingShift(42, 6, 16)
        m.d.comb += [
            normalise.value.eq(scaled),
            normalise.shift.eq(self.norm_shift),
            normalise.limit.eq(limit_of(16)),
        ]

        multiplied_2, product = (Signal(signed(32), name=name, reset_less=True) for name in ("multiplied_2", "product"))
        affine = Signal(signed(34), reset_less=True)
        m.d.sync += [
            multiplied_2.eq(normalise.result * self.gamma),
            product.eq(multiplied_2),
            affine.eq(product + delay(m, self.beta, _PRODUCT, "beta", reset_less=True)),
        ]
        m.submodules.quantize = quantize = RoundingShift(34, 5, 8)
        m.d.comb += [
            quantize.value.eq(affine),
            quantize.shift.eq(self.shift),
            quantize.limit.eq(limit_of(8)),
            self.y.eq(quantize.result),
        ]
        return m
