"""Constant tables of docs/numerics.md. NumPy only.

The RTL has its own (``edgemoe_hw.spec.tables``), written independently; tests hold both against the formulas.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from edgemoe_models.config import ACTIVATIONS
from edgemoe_models.exact.functions import QUICK_GELU_SLOPE, erf_exact, sigmoid_exact

Ints = npt.NDArray[np.int64]

ACTIVATION_ENTRIES = 512
MAX_ACTIVATION_SHIFT = 3
#: What an activation's smallest value has above zero before the shift, so that it rounds to at least 1 with any.
ACTIVATION_MARGIN = (1 << MAX_ACTIVATION_SHIFT - 1) + 1
#: Real inputs that an activation's table must reach, so that what its delta is beyond rounds to 0: below half a unit
#: (for GELU below 0.01). ReLU has no delta.
ACTIVATION_SUPPORT = {"gelu": 4.2, "silu": 7.0, "relu": 0.0, "quick-gelu": 7.0 / QUICK_GELU_SLOPE}
_LIBRARY_ERROR = 1e-9  # in units of the table; erfc and exp of C libraries are better by orders


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


def activation_table(kind: str, unit: float) -> npt.NDArray[np.uint8]:
    """The table of an activation function, uint8 [512], for inputs in units of ``unit``: ``base - delta``.

    ``base``, which is its last entry, is the largest delta and ``ACTIVATION_MARGIN``.

    Args:
        kind: one of ``edgemoe_models.config.ACTIVATIONS``
        unit: a real number

    Raises:
        ValueError: the unit is so small that the table would end before delta does, or no positive number.
    """
    if not (math.isfinite(unit) and unit > 0):
        raise ValueError(f"unit of a {ACTIVATIONS[kind]} must be positive and finite, not {unit!r}")
    smallest = ACTIVATION_SUPPORT[kind] / (ACTIVATION_ENTRIES - 1)
    if unit < smallest * (1 - 1e-6):
        raise ValueError(f"unit of a {ACTIVATIONS[kind]} must be at least {smallest:.6f}, not {unit!r}")
    delta = [_DELTAS[kind](i, unit) for i in range(ACTIVATION_ENTRIES)]
    base = max(delta) + ACTIVATION_MARGIN
    return np.array([base - value for value in delta], np.uint8)


def _rounded(value: float, exact: Callable[[], Decimal]) -> int:
    """Half to even; by the exact value where it is so near to a tie that C libraries may differ."""
    if abs(value - math.floor(value) - 0.5) > _LIBRARY_ERROR:
        return round(value)
    return int(exact().to_integral_value())


def _gelu_delta(i: int, unit: float) -> int:
    """``i / 2 * erfc(i * unit / sqrt(2))``, rounded."""
    x = i * unit / math.sqrt(2)
    return _rounded(0.5 * i * math.erfc(x), lambda: i * (1 - erf_exact(Decimal(x))) / 2)


def _sigmoid_delta(i: int, unit: float) -> int:
    """``i * sigmoid(-i * unit)``, rounded."""
    x = -i * unit
    e = math.exp(x)
    return _rounded(i * e / (1 + e), lambda: i * sigmoid_exact(Decimal(x)))


#: Of input i in units to delta in units, an integer.
_DELTAS: dict[str, Callable[[int, float], int]] = {
    "gelu": _gelu_delta,
    "silu": _sigmoid_delta,
    "relu": lambda i, unit: 0,
    "quick-gelu": lambda i, unit: _sigmoid_delta(i, QUICK_GELU_SLOPE * unit),
}


RSQRT = rsqrt_table()
EXP2 = exp2_table()
EXP2G = exp2_gate_table()
RECIP = reciprocal_table()
for _table in (RSQRT, EXP2, EXP2G, RECIP):
    _table.setflags(write=False)
