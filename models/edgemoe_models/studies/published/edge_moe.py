"""Edge-MoE (Sarkar et al., ICCAD 2023, arXiv 2305.18691): single-pass softmax and GELU as ReLU minus a table.

Section IV-B (softmax) and IV-C (GELU). Word lengths are those of its authors' program: 32-bit fixed point with 22
fraction bits, every result cut off; the table has one entry each 1/32 and is interpolated linearly. LayerNorm is theirs
too (one pass: mean of squares less square of the mean); the paper claims nothing for it.
Exponential, reciprocal and root are taken to be exact before they are cut off.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from edgemoe_models.exact.functions import erf
from edgemoe_models.studies.published import Ints, Quantized

FRACTION_BITS = 22
UNIT = 2.0**-FRACTION_BITS
TABLE_STEP = 1 / 32
_LARGEST = (1 << 31) - 1

Floats = npt.NDArray[np.float64]


def _fixed(values: npt.NDArray[Any] | float) -> Ints:
    """Real values cut off to the fixed-point format, limited to its range."""
    result: Ints = np.clip(np.floor(np.asarray(values) / UNIT), -_LARGEST, _LARGEST).astype(np.int64)
    return result


def delta(x: Floats) -> Floats:
    """``ReLU(x) - GELU(x)`` of x >= 0, which is the same for -x."""
    return 0.5 * x * (1 - erf(x / math.sqrt(2)))


def _table() -> Ints:
    entries = _fixed(delta(np.arange(512) * TABLE_STEP))
    return entries[: np.flatnonzero(entries)[-1] + 2]  # to the first zero


DELTA = _table()


def gelu_ideal(x: Floats) -> Floats:
    """GELU by the table in ideal arithmetic: entries and interpolation are exact, beyond its end delta is zero."""
    magnitude = np.abs(x)
    grid = np.arange(len(DELTA)) * TABLE_STEP
    result: Floats = np.maximum(x, 0) - np.where(magnitude < grid[-1], np.interp(magnitude, grid, delta(grid)), 0)
    return result


def gelu(q: Ints, scale: float) -> Quantized:
    """GELU by the table in fixed point, ``UNIT`` a unit."""
    x = _fixed(q * scale)
    step = FRACTION_BITS + round(math.log2(TABLE_STEP))  # log2 of the table's step in units
    magnitude = np.abs(x)
    i = np.minimum(magnitude >> step, len(DELTA) - 2)
    t = magnitude - (i << step)
    inside = DELTA[i] + ((t * (DELTA[i + 1] - DELTA[i])) >> step)
    return np.maximum(x, 0) - np.where(magnitude >> step < len(DELTA) - 1, inside, 0), UNIT


def softmax(scores: Ints, scale: float) -> Quantized:
    """Softmax of rows [..., keys]: maximum and sum in one pass, the sum rescaled at each new maximum."""
    x = _fixed(scores * scale)
    bias = np.full(x.shape[:-1], -_LARGEST)
    total = np.zeros_like(bias)
    for key in np.moveaxis(x, -1, 0):
        is_new = key > bias
        exponential = _fixed(np.exp(-np.abs(key - bias) * UNIT))
        total = np.where(is_new, ((total * exponential) >> FRACTION_BITS) + (1 << FRACTION_BITS), total + exponential)
        bias = np.maximum(bias, key)
    reciprocal = _fixed(1 / (total * UNIT))
    exponentials = _fixed(np.exp((x - bias[..., None]) * UNIT))
    return (exponentials * reciprocal[..., None]) >> FRACTION_BITS, UNIT


def layer_norm(x: Ints, scale: float) -> Quantized:
    """Normalised rows [..., D] of ``x * scale``, ``UNIT`` a unit; the variance is at least one unit."""
    values = _fixed(x * scale)
    terms = (values * int(_fixed(1 / x.shape[-1]))) >> FRACTION_BITS
    mean = terms.sum(-1, keepdims=True)
    mean_of_squares = ((values * terms) >> FRACTION_BITS).sum(-1, keepdims=True)
    variance = np.maximum(mean_of_squares - ((mean * mean) >> FRACTION_BITS), 1)
    reciprocal = _fixed(1 / np.sqrt(variance * UNIT))
    return ((values - mean) * reciprocal) >> FRACTION_BITS, UNIT
