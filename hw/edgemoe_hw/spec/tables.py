"""Constant tables of docs/numerics.md, computed exactly (no binary floating point is involved)."""

from decimal import ROUND_HALF_EVEN, Context, Decimal, localcontext
from fractions import Fraction

__all__ = ["EXP2", "EXP2G", "RECIP", "RSQRT"]

_PRECISION = Context(prec=60)


def _exp2_table(scale: int, entries: int) -> list[int]:
    """``round_half_even(scale * 2^(-j / entries))`` for every ``j < entries``."""
    with localcontext(_PRECISION):
        return [
            int((scale * Decimal(2) ** (Decimal(-j) / entries)).to_integral_value(ROUND_HALF_EVEN))
            for j in range(entries)
        ]


def _rsqrt(index: int) -> int:
    with localcontext(_PRECISION):
        root = ((Decimal(index) + Decimal("0.5")) * 64).sqrt()
        return min(65535, int((Decimal(1 << 23) / root).to_integral_value(ROUND_HALF_EVEN)))


#: Softmax exponential, 64 x 12 bits: ``4080 * 2^(-j/64)``.
EXP2: list[int] = _exp2_table(4080, 64)
#: Gate exponential, 256 x 15 bits: ``32767 * 2^(-j/256)``.
EXP2G: list[int] = _exp2_table(32767, 256)
#: Reciprocal, 1024 x 15 bits: ``2^25 / (1024 + i + 0.5)``.
RECIP: list[int] = [round(Fraction(1 << 26, 2 * (1024 + i) + 1)) for i in range(1024)]
#: Reciprocal square root, 1024 x 16 bits; a normalised argument never reaches the first quarter, which is 0.
RSQRT: list[int] = [0 if i < 256 else _rsqrt(i) for i in range(1024)]
