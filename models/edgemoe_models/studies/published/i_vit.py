"""I-ViT (Li and Gu, ICCV 2023, arXiv 2207.01405): Shiftmax, ShiftGELU and I-LayerNorm.

Section 3.3 (Shiftmax, algorithm 1), 3.4 (ShiftGELU, algorithm 2), 3.5 (I-LayerNorm). N, the exponential's fraction
bits, is 15 in softmax and 23 in GELU, and ShiftExp's shift is limited to N, both as in its authors' program. M, the
bits of the division, is 48 here and so no source of error; their program has int32 and M = 31, which is enough for
their coarser 8-bit inputs only: ``PROGRAM_DIVIDER_BITS`` gives that.
"""

from __future__ import annotations

import math

import numpy as np

from edgemoe_models.studies.published import Ints, Quantized

SOFTMAX_SHIFT, _GELU_SHIFT = 15, 23  # N
_DIVIDER_BITS = 48  # M
PROGRAM_DIVIDER_BITS = 31
_ITERATIONS = 10


def shift_exp(q: Ints, scale: float, n: int) -> Quantized:
    """exp of ``q * scale <= 0`` (ShiftExp): log2 e is 1.0111b, and 2^-r is taken for 1 - r/2."""
    p = q + (q >> 1) - (q >> 4)
    one = max(round(1 / scale), 1)
    p = np.maximum(p, -n * one)
    whole = -p // one
    rest = -p - whole * one
    return ((-rest >> 1) + one) << (n - whole), scale / 2**n


def int_div(numerator: Ints, denominator: Ints, bits: int, divider_bits: int = _DIVIDER_BITS) -> Quantized:
    """``numerator / denominator`` in 0..1 (IntDiv), ``2^(bits - 1)`` units to one."""
    factor = ((1 << divider_bits) - 1) // denominator
    return (factor * numerator) >> (divider_bits - (bits - 1)), 2.0 ** (1 - bits)


def softmax_exp(scores: Ints, scale: float) -> Ints:
    """Shiftmax's exponentials of rows [..., keys], less the rows' maxima, before the division."""
    return shift_exp(scores - scores.max(-1, keepdims=True), scale, SOFTMAX_SHIFT)[0]


def softmax(scores: Ints, scale: float, bits: int = 8) -> Quantized:
    """Shiftmax of rows [..., keys], ``2^(bits - 1)`` units to one."""
    exponentials = softmax_exp(scores, scale)
    return int_div(exponentials, exponentials.sum(-1, keepdims=True), bits)


def gelu(q: Ints, scale: float, bits: int = 8, divider_bits: int = _DIVIDER_BITS) -> Quantized:
    """ShiftGELU of rows [..., D]: x * sigmoid(1.6875 x), sigmoid = e^(p - m) / (e^(p - m) + e^-m), m their maximum.

    Args:
        bits: of the sigmoid (one of them a sign)
        divider_bits: M
    """
    p = q + (q >> 1) + (q >> 3) + (q >> 4)
    # A row without positive inputs would need exponentials above one: zero stands for its maximum.
    largest = np.maximum(p.max(-1, keepdims=True), 0)
    above, _ = shift_exp(p - largest, scale, _GELU_SHIFT)
    below, _ = shift_exp(-largest, scale, _GELU_SHIFT)
    sigmoid, sigmoid_scale = int_div(above, above + below, bits, divider_bits)
    return q * sigmoid, scale * sigmoid_scale


def iterated_sqrt(n: Ints) -> Ints:
    """sqrt(n) of integers n >= 0 by ten integer Newton steps from a power of two."""
    bits = np.frexp(n.astype(np.float64))[1].astype(np.int64)
    x = np.int64(1) << bits // 2
    for _ in range(_ITERATIONS):
        x = np.maximum((x + n // x) >> 1, 1)
    return x


def layer_norm(x: Ints) -> Quantized:
    """I-LayerNorm: normalised rows [..., D] with 2^30 / sqrt(D) units to one deviation."""
    centred = x - np.rint(x.mean(-1, keepdims=True)).astype(np.int64)
    root = iterated_sqrt(np.square(centred).sum(-1, keepdims=True))
    factor = ((1 << 31) - 1) // root
    return (centred * factor) >> 1, math.sqrt(x.shape[-1]) / 2**30
