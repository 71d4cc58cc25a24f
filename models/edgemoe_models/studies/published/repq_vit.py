"""RepQ-ViT (Li et al., ICCV 2023, arXiv 2212.08254): attention in 4-bit logarithms to the base of the square root of 2.

Section 3.3. Its other half, LayerNorm's ranges a channel moved whole into the next layer (section 3.2), is the option
``whole_channels`` of ``QuantizeOptions``.
"""

from __future__ import annotations

import numpy as np

from edgemoe_models.studies.published import Ints, Quantized
from edgemoe_models.studies.published.i_bert import softmax_exp

_UNIT_BITS = 15


def log_sqrt2_softmax(scores: Ints, scale: float, bits: int = 4) -> Ints:
    """Softmax of rows [..., keys] as exponents k in 0..2^bits - 1: probability 2^(-k / 2)."""
    exponentials = softmax_exp(scores, scale).astype(np.float64)
    share = exponentials / exponentials.sum(-1, keepdims=True)
    largest = (1 << bits) - 1
    exponent = np.where(share > 0, np.rint(-2 * np.log2(np.maximum(share, 2.0**-60))), largest)
    return np.clip(exponent, 0, largest).astype(np.int64)


def softmax(scores: Ints, scale: float, bits: int = 4) -> Quantized:
    """These probabilities as integers, and their unit."""
    values = np.rint(2.0 ** (_UNIT_BITS - log_sqrt2_softmax(scores, scale, bits) / 2)).astype(np.int64)
    return values, 2.0**-_UNIT_BITS
