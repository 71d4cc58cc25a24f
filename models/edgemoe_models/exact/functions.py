"""exp, erf, softmax, activations, sine, cosine, arc tangent from ``+ - * /``, rounding and tables of exact entries.

Tables come from ``decimal``, which rounds every operation correctly on every machine. Arrays are worked on in pieces
that stay in the cache.
"""

from __future__ import annotations

import decimal
import functools
import math
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np

from edgemoe_models.exact.sums import Array, Doubles

LOG2_E = 1.4426950408889634
_LN_2 = 0.6931471805599453
_PI = Decimal("3.14159265358979323846264338327950288419716939937510")
_DIGITS = decimal.Context(prec=45)

_PIECE = 1 << 14  # elements
# exp: 2^(n / 64) from a table times a polynomial; below 2^-48 it is 0 where only what is not positive is wanted.
_STEPS, _OCTAVES = 64, 48
# erf on a grid, interpolated by cubic Hermite polynomials (its derivative is known exactly): error below 1e-10.
_ERF_STEPS, _ERF_END = 128, 6
_ARC_STEPS = 64


def _in_pieces(function: Callable[[Array], Array], x: Array) -> Array:
    flat = np.ascontiguousarray(x).reshape(-1)
    result = np.empty_like(flat)
    for start in range(0, flat.size, _PIECE):
        result[start : start + _PIECE] = function(flat[start : start + _PIECE])
    return result.reshape(x.shape)


def exp(x: Array) -> Array:
    """e^x of floats within +-700, in their type; relative error below 1e-10 (float64) or 4e-6 (float32)."""
    return _in_pieces(_exp, x)


def _exp(x: Array) -> Array:
    n, power = _remainder(x)
    n = n.astype(np.int64)
    power *= _powers_of_two(x.dtype)[n & (_STEPS - 1)]
    return np.ldexp(power, (n >> _STEPS.bit_length() - 1).astype(np.int32))


def _remainder(x: Array) -> tuple[Array, Array]:
    """Whole steps n of x and e^(x - n * ln(2) / 64), by its Taylor polynomial."""
    n = np.rint(x * (_STEPS * LOG2_E))
    r = x - n * (_LN_2 / _STEPS)  # at most 0.0055: the first term left out is below 4e-11
    return n, 1 + r * (1 + r * (0.5 + r * (1 / 6)))


@functools.cache
def _powers_of_two(dtype: np.dtype[Any]) -> Array:
    """2^(n / 64) for n = 0..63."""
    ln_2 = _DIGITS.ln(Decimal(2))
    return np.array([float(_DIGITS.exp(ln_2 * n / _STEPS)) for n in range(_STEPS)]).astype(dtype)


@functools.cache
def _decay(dtype: np.dtype[Any]) -> Array:
    """2^(-n / 64) for n = 0, 1, ...; 0 at the end."""
    powers = _powers_of_two(np.dtype(np.float64))
    n = -np.arange(_STEPS * _OCTAVES + 1)
    table = np.ldexp(powers[n & (_STEPS - 1)], (n >> _STEPS.bit_length() - 1).astype(np.int32))
    table[-1] = 0
    return table.astype(dtype)


def exp_not_positive(x: Array) -> Array:
    """e^x of floats that are at most 0, faster than ``exp``; 0 below -33."""
    return _in_pieces(_exp_not_positive, x)


def _exp_not_positive(x: Array) -> Array:
    n, power = _remainder(np.maximum(x, -_OCTAVES * _LN_2))
    power *= _decay(x.dtype).take((-n).astype(np.int32), mode="clip")
    return power


def softmax(x: Array) -> Array:
    """Softmax over the last axis, in the type of ``x``; probabilities are rounded to 2^-23 or finer."""
    rows = x.reshape(-1, x.shape[-1])
    result = np.empty_like(rows)
    piece = max(1, _PIECE // rows.shape[1])
    for start in range(0, len(rows), piece):
        result[start : start + piece] = _softmax(rows[start : start + piece])
    return result.reshape(x.shape)


def _softmax(rows: Array) -> Array:
    exponentials = _exp_not_positive(rows - rows.max(-1, keepdims=True))
    # On a grid, because then their sum is exact in float64: multiples of 2^-23 (float32) or 2^-38, none above 1.
    anchor = 1.0 if rows.dtype == np.float32 else float(1 << 14)
    exponentials += anchor
    exponentials -= anchor
    exponentials /= exponentials.sum(-1, keepdims=True, dtype=np.float64).astype(rows.dtype)
    return exponentials


@functools.cache
def _erf_tables() -> tuple[Doubles, Doubles]:
    """erf at multiples of 1/128, and its slope there per step."""
    factor = 2 / _DIGITS.sqrt(_PI)
    xs = [Decimal(i) / _ERF_STEPS for i in range(_ERF_END * _ERF_STEPS + 2)]
    slopes = [factor * _DIGITS.exp(-x * x) for x in xs]
    return np.array([float(erf_exact(x)) for x in xs]), np.array([float(slope / _ERF_STEPS) for slope in slopes])


def erf_exact(x: Decimal) -> Decimal:
    """erf of 0..7 to 20 digits: 2 / sqrt(pi) * exp(-x^2) * sum of (2 x^2)^n x / (1 * 3 * ... * (2n + 1))."""
    with decimal.localcontext(_DIGITS):
        term = result = x
        n = 1
        while term > result * Decimal("1e-25"):
            term = term * 2 * x * x / (2 * n + 1)
            result += term
            n += 1
        return result * 2 * (-x * x).exp() / _PI.sqrt()


def erf(x: Array) -> Doubles:
    """The error function, absolute error below 1e-9."""
    return _in_pieces(_erf, np.asarray(x, np.float64))


def _erf(x: Doubles) -> Doubles:
    values, slopes = _erf_tables()
    position = np.minimum(np.abs(x), _ERF_END) * _ERF_STEPS
    i = position.astype(np.int32)
    t = position - i
    y0, y1, d0, d1 = (table.take(j, mode="clip") for table in (values, slopes) for j in (i, i + 1))
    y = y0 + t * (d0 + t * (3 * (y1 - y0) - 2 * d0 - d1 + t * (2 * (y0 - y1) + d0 + d1)))
    return np.copysign(y, x)


def gelu(x: Array) -> Doubles:
    """Exact GELU."""
    return 0.5 * x * (1.0 + erf(x * math.sqrt(0.5)))


QUICK_GELU_SLOPE = 1.702  # of the sigmoid of QuickGELU


def sigmoid_exact(x: Decimal) -> Decimal:
    """1 / (1 + e^-x) to 40 digits."""
    with decimal.localcontext(_DIGITS):
        return 1 / (1 + (-x).exp())


def sigmoid(x: Array) -> Doubles:
    """1 / (1 + e^-x), absolute error below 1e-10."""
    x = np.asarray(x, np.float64)
    small = exp_not_positive(-np.abs(x))
    result: Doubles = np.where(x < 0, small, 1.0) / (1.0 + small)
    return result


def silu(x: Array) -> Doubles:
    """SiLU, which is also called swish."""
    return x * sigmoid(x)


def quick_gelu(x: Array) -> Doubles:
    """GELU with a sigmoid in place of the normal distribution, as CLIP has it."""
    return x * sigmoid(x * QUICK_GELU_SLOPE)


def relu(x: Array) -> Doubles:
    """ReLU."""
    return np.maximum(np.asarray(x, np.float64), 0.0)


#: By the names of ``edgemoe_models.config.ACTIVATIONS``.
ACTIVATION_FUNCTIONS: dict[str, Callable[[Array], Doubles]] = {
    "gelu": gelu,
    "silu": silu,
    "relu": relu,
    "quick-gelu": quick_gelu,
}


def sine_cosine(angle: float) -> tuple[float, float]:
    """sin and cos of an angle in radians, correctly rounded but for ties that no float comes near."""
    with decimal.localcontext(_DIGITS):
        x = Decimal(angle) % (2 * _PI)
        sums = [Decimal(0), Decimal(0)]  # of the cosine's and the sine's terms
        term, n = Decimal(1), 0
        while abs(term) > Decimal("1e-40") or n < abs(x):
            sums[n % 2] += -term if n & 2 else term
            n += 1
            term = term * x / n
        return float(sums[1]), float(sums[0])


@functools.cache
def _arc_tangents() -> Doubles:
    """atan(i / 64) for i = 0..64, each from the one before it by the addition theorem."""
    with decimal.localcontext(_DIGITS):
        arcs = [Decimal(0)]
        for i in range(1, _ARC_STEPS + 1):
            z = Decimal(_ARC_STEPS) / (_ARC_STEPS * _ARC_STEPS + i * (i - 1))  # of the difference: at most 1/64
            arcs.append(arcs[-1] + sum((-1) ** k * z ** (2 * k + 1) / (2 * k + 1) for k in range(12)))
        return np.array([float(arc) for arc in arcs])


def arc_tangent(y: Array, x: Array) -> Doubles:
    """The angle of points (x, y), in -pi..pi, as atan2 gives it; 0 for (0, 0)."""
    high, low = np.maximum(np.abs(x), np.abs(y)).astype(np.float64), np.minimum(np.abs(x), np.abs(y))
    ratio = low / np.where(high > 0, high, 1)
    step = np.rint(ratio * _ARC_STEPS)
    centre = step / _ARC_STEPS
    z = (ratio - centre) / (1 + ratio * centre)  # at most 1/128
    square = z * z
    arc = _arc_tangents()[step.astype(np.int64)] + z * (1 - square * (1 / 3 - square * (1 / 5 - square / 7)))
    arc = np.where(np.abs(y) > np.abs(x), math.pi / 2 - arc, arc)
    return np.copysign(np.where(x < 0, math.pi - arc, arc), y)


def uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """``rng.uniform``, whose product and sum a C compiler may fuse, here one after the other."""
    return low + (high - low) * rng.random()


def uniforms(rng: np.random.Generator, low: float, high: float, count: int) -> Doubles:
    """``count`` values of ``uniform``."""
    return low + (high - low) * rng.random(count)


def standard_normal(
    rng: np.random.Generator, shape: tuple[int, ...], dtype: type[np.float32] | type[np.float64] = np.float64
) -> Array:
    """``rng.standard_normal`` within +-3.65: values beyond, 1 in 4000, come from the C library's logarithm."""
    return np.clip(rng.standard_normal(shape, dtype), -3.65, 3.65)
