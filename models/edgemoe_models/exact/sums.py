"""Sums and products of matrices that do not depend on the order in which they are added."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Doubles = npt.NDArray[np.float64]

_MANTISSA = 53  # bits of a float64
_MANTISSA_SINGLE = 24  # bits of a float32


def on_grid(x: Array, bits: int) -> Doubles:
    """``x`` rounded, row by row (last axis), to multiples of a power of two: at most 2^bits of them reach its peak.

    Raises:
        ValueError: ``bits`` is outside 1..51, where the rounding is exact.
    """
    if not 1 <= bits <= _MANTISSA - 2:
        raise ValueError(f"bits of a grid must be in 1..{_MANTISSA - 2}, not {bits}")
    peak = np.maximum(x.max(-1, keepdims=True), -x.min(-1, keepdims=True)).astype(np.float64)
    _, exponent = np.frexp(peak)  # peak <= 2^exponent
    # Numbers of this size are multiples of 2^(exponent - bits): adding it rounds to them, half to even.
    anchor = np.ldexp(1.5, exponent - bits + _MANTISSA - 1)
    gridded: Doubles = x + anchor
    gridded -= anchor
    return gridded


def product(x: Array, w: Array) -> Doubles:
    """``x @ w.T`` over the last axes: [..., N, K] and [..., M, K] -> [..., N, M].

    Rows are rounded to grids of 20 to 25 bits, so that all partial sums of the products are whole numbers of grid steps
    below 2^53: BLAS adds them exactly in any order, with or without fused multiply-add.
    """
    terms = x.shape[-1]
    if terms == 0 or x.size == 0 or w.size == 0:
        return np.zeros((*np.broadcast_shapes(x.shape[:-2], w.shape[:-2]), x.shape[-2], w.shape[-2]))
    bits = (_MANTISSA - (terms - 1).bit_length()) // 2
    result: Doubles = np.matmul(on_grid(x, bits), np.swapaxes(on_grid(w, bits), -1, -2))
    return result


def integer_product(x: Array, w: Array, largest: int) -> Array:
    """``x @ w.T`` of whole numbers whose products do not exceed ``largest``: exact, in float32 where that holds it."""
    exact_in_single = largest * x.shape[-1] <= 1 << _MANTISSA_SINGLE
    dtype = np.float32 if exact_in_single else np.float64
    result: Array = np.matmul(x.astype(dtype, copy=False), np.swapaxes(w.astype(dtype, copy=False), -1, -2))
    return result


def total(x: Array, axis: int = -1) -> Array:
    """The sum along an axis, added as one fixed tree: half on half, in the type of ``x``."""
    x = np.moveaxis(x, axis, 0)
    if not len(x):
        return np.zeros(x.shape[1:], x.dtype)
    while (n := len(x)) > 1:
        folded: Array = x[: n // 2] + x[n // 2 : n // 2 * 2]
        if n % 2:
            folded[0] += x[-1]
        x = folded
    result: Array = x[0]
    return result


def mean(x: Array, axis: int = -1) -> Array:
    """``total`` over its count."""
    result: Array = total(x, axis) / x.dtype.type(x.shape[axis])
    return result


def variance(x: Array, axis: int = -1) -> Array:
    """The mean square about the mean."""
    return mean(np.square(x - np.expand_dims(mean(x, axis), axis)), axis)
