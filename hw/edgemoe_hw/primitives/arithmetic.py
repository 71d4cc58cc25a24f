"""Small expressions that would cost a DSP, or lose bits without a word, if they were written as one operator."""

from amaranth.hdl import Mux, Value, ValueLike

__all__ = ["minimum", "product", "times", "truncate"]


def truncate(value: ValueLike, width: int) -> Value:
    """The lowest ``width`` bits of ``value``, or all of them where it has fewer; a signed value stays signed.

    Assigning to a narrower signal does the same without a word, and tests/hw/test_narrowing.py refuses that. Say at the
    call why nothing is lost.
    """
    value = Value.cast(value)
    low = value[:width]
    return low.as_signed() if value.shape().signed else low


def minimum(a: ValueLike, b: ValueLike) -> Value:
    """The smaller of two unsigned values, with the bits of the narrower."""
    a, b = Value.cast(a), Value.cast(b)
    return Mux(a < b, a, b)[: min(len(a), len(b))]


def times(value: ValueLike, constant: int) -> Value:
    """``value * constant`` as shifted additions, so that no tool spends a DSP on it."""
    value = Value.cast(value)
    return Value.cast(sum((value << bit for bit in range(constant.bit_length()) if constant >> bit & 1), start=0))


def product(a: ValueLike, b: ValueLike) -> Value:
    """``a * b`` of two small unsigned values as shifted additions, so that no DSP is spent on an address."""
    a, b = Value.cast(a), Value.cast(b)
    return Value.cast(sum(Mux(a[bit], b << bit, 0) for bit in range(len(a))))
