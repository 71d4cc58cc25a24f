"""I-BERT (Kim et al., ICML 2021, arXiv 2101.01321): second-order polynomials and an integer square root.

Constants and algorithms are the paper's (sections 3.3 to 3.6, algorithms 1 to 4). What it leaves open, the widths of
the two divisions, is as in its authors' program: 2^32 in softmax (8-bit output), 2^31 in LayerNorm.
"""

from __future__ import annotations

import math

import numpy as np

from edgemoe_models.studies.published import Ints, Quantized

# exp(p) ~ a (p + b)^2 + c on -ln 2 < p <= 0. The paper prints 0.3585, 1.353, 0.344, whose error is 2.1e-3; these
# digits of its authors' program have the 1.9e-3 that it states.
_EXP = (0.35815147, 1.35366, 0.34373)
_ERF = (-0.2888, -1.769, 1.0)  # erf(x) ~ a (x + b)^2 + c on 0 <= x <= -b


def polynomial(q: Ints, scale: float, coefficients: tuple[float, float, float]) -> Quantized:
    """``a (x + b)^2 + c`` of ``x = q * scale`` (algorithm 1)."""
    a, b, c = coefficients
    out_scale = a * scale**2
    return (q + math.floor(b / scale)) ** 2 + math.floor(c / out_scale), out_scale


def i_exp(q: Ints, scale: float) -> Quantized:
    """exp of ``q * scale <= 0``: ``2^-z exp(p)``, ``p`` by the polynomial (algorithm 3)."""
    ln2 = max(math.floor(math.log(2) / scale), 1)
    z = -q // ln2
    ints, out_scale = polynomial(q + z * ln2, scale, _EXP)
    return ints >> np.minimum(z, 62), out_scale


def softmax_exp(scores: Ints, scale: float) -> Ints:
    """Softmax's exponentials of rows [..., keys], less the rows' maxima, before the division."""
    return i_exp(scores - scores.max(-1, keepdims=True), scale)[0]


def softmax(scores: Ints, scale: float, bits: int = 8) -> Quantized:
    """Softmax of rows [..., keys] to unsigned ``bits`` bits, scale ``2^-bits`` (section 3.5, algorithm 3)."""
    exponentials = softmax_exp(scores, scale)
    factor = (1 << 32) // exponentials.sum(-1, keepdims=True)
    return (exponentials * factor) >> (32 - bits), 2.0**-bits


def gelu(q: Ints, scale: float) -> Quantized:
    """``x / 2 (1 + erf(x / sqrt 2))`` with erf by the polynomial (section 3.4, algorithm 2)."""
    erf_in = scale / math.sqrt(2)
    magnitude = np.minimum(np.abs(q), math.floor(-_ERF[1] / erf_in))
    erf, erf_scale = polynomial(magnitude, erf_in, _ERF)
    one = math.floor(1 / erf_scale)
    return q * (np.sign(q) * erf + one), scale * erf_scale / 2


def integer_sqrt(n: Ints) -> Ints:
    """floor(sqrt(n)) of integers n >= 0 by Newton's iteration from above (section 3.6, algorithm 4)."""
    positive = np.maximum(n, 1)
    bits = np.frexp(positive.astype(np.float64))[1].astype(np.int64)
    x = np.int64(1) << (bits + 1) // 2
    while ((smaller := (x + positive // x) >> 1) < x).any():
        x = np.minimum(x, smaller)
    return np.where(n > 0, x, 0)


def layer_norm(x: Ints) -> Quantized:
    """Normalised rows [..., D] with 2^30 / sqrt(D) units to one deviation (section 3.6)."""
    centred = x - np.rint(x.mean(-1, keepdims=True)).astype(np.int64)
    root = integer_sqrt(np.square(centred).sum(-1, keepdims=True))
    factor = (1 << 31) // np.maximum(root, 1)
    return (centred * factor) >> 1, math.sqrt(x.shape[-1]) / 2**30
