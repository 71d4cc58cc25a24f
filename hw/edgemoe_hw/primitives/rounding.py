"""Rounding shift and clamp: ``clamp(rhe(value, shift), bits)`` of docs/numerics.md, pipelined."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, ValueLike, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["RoundingShift", "clamp", "limit_of"]

_FINE = 3  # shift bits that the second stage handles


def limit_of(bits: int) -> int:
    """Largest value of the symmetric signed format of ``bits`` bits."""
    return (1 << (bits - 1)) - 1


def clamp(value: ValueLike, limit: ValueLike) -> Value:
    """``value`` limited to ``[-limit, limit]``; ``limit`` is a ``limit_of`` and narrower than ``value``."""
    value, limit = Value.cast(value), Value.cast(limit)
    above, below = _beyond(value, limit)
    return Mux(above, Cat(limit, 0), Mux(below, _minus(limit), _within(value, limit)))[: len(limit) + 1].as_signed()


def _beyond(value: Value, limit: Value) -> tuple[Value, Value]:
    """Whether a signed ``value`` is above ``limit``, and whether it is below ``-limit - 1``.

    The limit's bits are ones, so the bits outside it tell, without a carry.
    """
    bits, negative = value[:-1], value[-1]
    outside = ~Cat(limit, Const(0, len(bits) - len(limit)))
    return ~negative & (bits & outside).any(), negative & (~bits & outside).any()


def _minus(limit: Value) -> Value:
    """``-limit``, with a sign."""
    return Cat(1, ~limit[1:], 1)


def _within(value: Value, limit: Value) -> Value:
    """A ``value`` that is not ``_beyond``, in the bits of the limit and a sign; ``-limit`` for ``-limit - 1``."""
    least = value[-1] & ~(value[:-1] & limit).any()
    return Cat(value[0] | least, value[1 : len(limit) + 1])


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
        limit: In(out_width - 1), largest magnitude of the result: ``limit_of`` any format of up to ``out_width`` bits
        result: Out(signed(out_width))
    """

    LATENCY = 4
    LIMIT_DELAY = 3

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

        # Stage 1: multiples of eight. Bits that leave below the guard bit are collected, eight in a register.
        places = min(1 << (self._shift_width - _FINE), -(-width // step) + 1)
        coarse = Signal(signed(width), reset_less=True)
        distance = Signal(range(places), reset_less=True)
        bytes_set = Signal(-(-width // step), reset_less=True)
        fine = Signal(_FINE, reset_less=True)
        m.d.sync += [
            fine.eq(self.shift[:_FINE]),
            bytes_set.eq(Cat(extended[low : low + step].any() for low in range(0, width, step))),
        ]
        with m.Switch(self.shift[_FINE:]):
            for k in range(places - 1):
                with m.Case(k):
                    m.d.sync += [coarse.eq(extended >> (k * step)), distance.eq(k)]
            with m.Default():  # the last place, or one beyond the value
                m.d.sync += [coarse.eq(extended >> ((places - 1) * step)), distance.eq(places - 1)]

        # Stage 2: the rest. `out_width + 1` quotient bits decide rounding and clamp unless `large` is set.
        keep = self._out_width + 2
        quotient = Signal(signed(keep - 1), reset_less=True)
        guard = Signal(reset_less=True)
        sticky = Signal(reset_less=True)
        large = Signal(reset_less=True)
        negative = Signal(reset_less=True)
        wide = Signal(signed(max(width, keep + step)))
        coarse_sticky = Signal()
        m.d.comb += [
            wide.eq(coarse),
            coarse_sticky.eq(Cat(is_set & (distance > k) for k, is_set in enumerate(bytes_set)).any()),
        ]
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

        # Stage 3: round half to even.
        rounded = Signal(signed(keep), reset_less=True)
        too_large, too_small = Signal(reset_less=True), Signal(reset_less=True)
        m.d.sync += [
            rounded.eq(quotient + (guard & (sticky | quotient[0]))),
            too_large.eq(large & ~negative),
            too_small.eq(large & negative),
        ]

        # Stage 4: clamp.
        above, below = _beyond(rounded, self.limit)
        result = Signal(signed(self._out_width), reset_less=True)
        with m.If(too_large | (above & ~too_small)):
            m.d.sync += result.eq(self.limit)
        with m.Elif(too_small | below):
            m.d.sync += result.eq(_minus(self.limit).as_signed())
        with m.Else():
            m.d.sync += result.eq(_within(rounded, self.limit).as_signed())
        m.d.comb += self.result.eq(result)
        return m
