"""Constant tables of docs/numerics.md. NumPy only.

The RTL has its own (``edgemoe_hw.spec.tables``), written independently; tests hold both against the formulas.
"""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from edgemoe_models.exact.functions import erf_exact

Ints = npt.NDArray[np.int64]

ACTIVATION_ENTRIES = 512
MAX_ACTIVATION_SHIFT = 3
#: What an activation's smallest value has above zero before the shift, so that it rounds to at least 1 with any.
ACTIVATION_MARGIN = (1 << MAX_ACTIVATION_SHIFT - 1) + 1
#: Where GELU's delta has become smaller than half of any useful int8 step.
GELU_SUPPORT = 4.2
_LIBRARY_ERROR = 1e-9  # in units of the table; erfc of C libraries is better by orders


def rsqrt_table() -> Ints:
    """``RSQRT[i] = min(65535, round_half_even(2^23 / sqrt((i + 0.5) * 64)))``, int64 [1024]; 256..1023 are used."""
    values = []
    for i in range(1024):
        # Never a tie: twice the value would be an integer, but its square, 2^43 / (2i + 1), is no square number.
        radicand = Fraction(1 << 46, 64 * i + 32)
        twice = math.isqrt(4 * radicand.numerator // radicand.denominator)  # floor(2 * value)
        values.append(min(65535, (twice + 1) >> 1))
    return np.array(values, np.int64)


def exp2_table() -> Ints:
    """Softmax: ``EXP2[j] = round_half_even(4080 * 2^(-j/64))``, int64 [64]."""
    return np.array([round(4080 * 2.0 ** (-j / 64)) for j in range(64)], np.int64)


def exp2_gate_table() -> Ints:
    """Gate: ``EXP2G[j] = round_half_even(32767 * 2^(-j/256))``, int64 [256]."""
    return np.array([round(32767 * 2.0 ** (-j / 256)) for j in range(256)], np.int64)


def reciprocal_table() -> Ints:
    """``RECIP[i] = round_half_even(2^25 / (1024 + i + 0.5))``, int64 [1024]."""
    return np.array([round(Fraction(1 << 26, 2 * (1024 + i) + 1)) for i in range(1024)], np.int64)


def norm_constants(dim: int) -> tuple[int, int]:
    """``(log2_dim, inv_dim)`` of a LayerNorm over ``dim`` channels: floor_log2(dim), 2^(log2_dim + 16) / dim.

    Raises:
        ValueError: ``dim`` is outside 8..1024.
    """
    if not 8 <= dim <= 1024:
        raise ValueError(f"dim of a LayerNorm must be in 8..1024, not {dim!r}")
    log2_dim = dim.bit_length() - 1
    return log2_dim, round(Fraction(1 << (log2_dim + 16), dim))


def gelu_table(unit: float) -> npt.NDArray[np.uint8]:
    """The activation's table for GELU, uint8 [512], of inputs in units of ``unit``: ``base - delta``.

    ``base``, which is its last entry, is the largest delta and ``ACTIVATION_MARGIN``.

    Raises:
        ValueError: the unit is so small that the table would end before delta does, or no positive number.
    """
    if not (math.isfinite(unit) and unit > 0):
        raise ValueError(f"unit of a GELU must be positive and finite, not {unit!r}")
    if (ACTIVATION_ENTRIES - 1) * unit < GELU_SUPPORT * (1 - 1e-6):
        raise ValueError(f"unit of a GELU must be at least {GELU_SUPPORT / (ACTIVATION_ENTRIES - 1):.6f}, not {unit!r}")
    delta = [_gelu_delta(i, i * unit / math.sqrt(2)) for i in range(ACTIVATION_ENTRIES)]
    base = max(delta) + ACTIVATION_MARGIN
    return np.array([base - value for value in delta], np.uint8)


def _gelu_delta(i: int, x: float) -> int:
    """``i / 2 * erfc(x)``, rounded."""
    value = 0.5 * i * math.erfc(x)
    if abs(value - math.floor(value) - 0.5) > _LIBRARY_ERROR:
        return round(value)
    exact = i * (1 - erf_exact(Decimal(x))) / 2  # so near to a tie, C libraries may differ
    return int(exact.to_integral_value())


RSQRT = rsqrt_table()
EXP2 = exp2_table()
EXP2G = exp2_gate_table()
RECIP = reciprocal_table()
for _table in (RSQRT, EXP2, EXP2G, RECIP):
    _table.setflags(write=False)
