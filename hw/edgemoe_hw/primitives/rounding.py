"""Rounding shift and clamp: ``clamp(rhe(value, shift), bits)`` of docs/numerics.md, pipelined."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value, ValueLike, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["RoundingShift", "clamp", "limit_of"]

_FINE = 3  # shift bits that the second stage handles


def limit_of(bits: int) -> int:
    """Largest value of the symmetric signed format of ``bits`` bits."""
    return (1 << (bits - 1)) - 1


def clamp(value: ValueLike, limit: ValueLike) -> Value:
    """``value`` limited to ``[-limit, limit]`` as an expression of just the bits that a limit of this width needs."""
    value, limit = Value.cast(value), Value.cast(limit)
    return Mux(value > limit, limit, Mux(value < -limit, -limit, value))[: len(limit) + 1].as_signed()


class RoundingShift(wiring.Component):
    """Arithmetic right shift, round half to even, then clamp; one value a cycle.

    Latency: ``LATENCY`` cycles from ``value`` and ``shift`` to ``result``. ``limit`` is sampled ``LIMIT_DELAY`` cycles
    after them, so that the lanes of a vector can share its delay registers.

    Args:
        in_width: bits of ``value``, which must not be ``-2^(in_width - 1)``
        shift_width: bits of ``shift``; every encodable shift is exact, however large
        out_width: bits of ``result``

    Members:
        value: In(signed(in_width))
        shift: In(shift_width)
        limit: In(out_width - 1), largest magnitude of the result
        result: Out(signed(out_width))
    """

    LATENCY = 3
    LIMIT_DELAY = 2

    def __init__(self, in_width: int, shift_width: int, out_width: int) -> None:
        if not 2 <= out_width <= in_width:
            raise ValueError(f"out_width must be between 2 and in_width ({in_width}), not {out_width!r}")
        if shift_width <= _FINE:
            raise ValueError(f"shift_width must be more than {_FINE}, not {shift_width!r}")
        self._in_width = in_width
        self._shift_width = shift_width
        self._out_width = out_width
        super().__init__(
            {
                "value": In(signed(in_width)),
                "shift": In(shift_width),
                "limit": In(out_width - 1),
                "result": Out(signed(out_width)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        step = 1 << _FINE
        width = self._in_width + 1  # the value with one guard bit below it
        extended = Signal(signed(width))
        m.d.comb += extended.eq(Cat(0, self.value))

        # Stage 1: multiples of eight. Bits that leave below the guard bit are collected in `sticky`.
        coarse = Signal(signed(width))
        coarse_sticky = Signal()
        fine = Signal(_FINE)
        m.d.sync += fine.eq(self.shift[:_FINE])
        with m.Switch(self.shift[_FINE:]):
            for k in range(min(1 << (self._shift_width - _FINE), -(-width // step))):
                with m.Case(k):
                    m.d.sync += [coarse.eq(extended >> (k * step)), coarse_sticky.eq(extended[: k * step].any())]
            with m.Default():
                m.d.sync += [coarse.eq(extended[-1].replicate(width)), coarse_sticky.eq(extended.any())]

        # Stage 2: the rest. `out_width + 1` quotient bits decide rounding and clamp unless `large` is set.
        keep = self._out_width + 2
        quotient = Signal(signed(keep - 1))
        guard = Signal()
        sticky = Signal()
        large = Signal()
        negative = Signal()
        wide = Signal(signed(max(width, keep + step)))
        m.d.comb += wide.eq(coarse)
        m.d.sync += negative.eq(coarse[-1])
        with m.Switch(fine):
            for f in range(step):
                with m.Case(f):
                    above = wide[keep - 1 + f :]
                    m.d.sync += [
                        Cat(guard, quotient).eq(wide[f : f + keep]),
                        sticky.eq(coarse_sticky | wide[:f].any()),
                        large.eq((above ^ coarse[-1].replicate(len(above))).any()),
                    ]

        # Stage 3: round half to even and clamp.
        rounded = Signal(signed(keep))
        m.d.comb += rounded.eq(quotient + (guard & (sticky | quotient[0])))
        m.d.sync += self.result.eq(clamp(rounded, self.limit))
        with m.If(large):
            m.d.sync += self.result.eq(Mux(negative, -self.limit, self.limit))
        return m
