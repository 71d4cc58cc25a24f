"""FQ-ViT (Lin et al., IJCAI 2022, arXiv 2111.13824): Log-Int-Softmax, attention in 4-bit base-2 logarithms.

Section 3.3 (of the preprint). Its other invention, the power-of-two factor of LayerNorm's inputs, is a number format
and no approximation of LayerNorm, so it has no function here.
"""

from __future__ import annotations

import numpy as np

from edgemoe_models.studies.published import Ints, Quantized
from edgemoe_models.studies.published.i_bert import softmax_exp


def log2_rounded(n: Ints) -> Ints:
    """log2 of integers n >= 1: position of the highest set bit, plus the bit behind it."""
    position = np.frexp(n.astype(np.float64))[1].astype(np.int64) - 1
    return position + (((n << 1) >> position) & 1)


def log_int_softmax(scores: Ints, scale: float, bits: int = 4) -> Ints:
    """Softmax of rows [..., keys] as exponents k in 0..2^bits - 1: probability 2^-k, so that P.V shifts and adds."""
    exponentials = softmax_exp(scores, scale)
    total = exponentials.sum(-1, keepdims=True)
    ratio = np.rint(total / np.maximum(exponentials, 1)).astype(np.int64)
    ratio = np.where(exponentials > 0, ratio, 1 << (1 << bits))
    return np.clip(log2_rounded(ratio), 0, (1 << bits) - 1)


def softmax(scores: Ints, scale: float, bits: int = 4) -> Quantized:
    """Log-Int-Softmax's probabilities as integers ``2^(2^bits - 1 - k)`` (what P.V shifts by), and their unit."""
    largest = (1 << bits) - 1
    return np.int64(1) << (largest - log_int_softmax(scores, scale, bits)), 2.0**-largest
