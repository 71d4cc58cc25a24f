"""Every function of docs/numerics.md on int64 arrays, exact. The RTL must equal these to the bit. NumPy only."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from edgemoe_models.arithmetic.tables import EXP2, EXP2G, RECIP, RSQRT, Ints, norm_constants

#: No accumulator of a linear layer or of a score reaches this.
ACCUMULATOR_LIMIT = 1 << 24
#: No accumulator of P.V reaches this: 255 * 127 * 1024 tokens.
CONTEXT_LIMIT = 1 << 25
MAX_SHIFT = 47
MAX_SCORE = 1 << 15
#: Of the inputs of an activation function.
ACTIVATION_BITS = 12
#: Subtracted from an activation's value before it is stored as int8.
ACTIVATION_OFFSET = 128

IntegerLike = npt.NDArray[Any] | int


def clamp(values: Ints, bits: int) -> Ints:
    """Saturate to the symmetric signed range of ``bits`` bits."""
    limit = (1 << (bits - 1)) - 1
    return np.clip(values, -limit, limit)


def rounding_shift(values: IntegerLike, shift: IntegerLike) -> Ints:
    """``rhe``: divide by ``2^shift``, round half to even. Arguments broadcast; |values| < 2^61."""
    v = np.asarray(values, np.int64)
    s = np.minimum(np.asarray(shift, np.int64), 62)  # from there on all is 0, and int64 has no more
    odd = (v >> s) & 1
    half = (np.int64(1) << s) >> 1
    result: Ints = (v + np.where(s > 0, half - 1 + odd, 0)) >> s
    return result


def floor_log2(values: IntegerLike) -> Ints:
    """Position of the highest set bit of integers in 1..2^53 - 1."""
    v = np.asarray(values, np.int64)
    if v.size and v.min() < 1:
        raise ValueError(f"floor_log2 needs integers of at least 1, not {int(v.min())}")
    return np.frexp(v.astype(np.float64))[1].astype(np.int64) - 1  # exact: float64 has 53 bits


def matmul(x: npt.NDArray[Any], w: npt.NDArray[Any]) -> Ints:
    """Accumulators ``acc[..., t, n] = sum_k x[..., t, k] * w[..., n, k]``.

    Computed by float64 BLAS, which is exact here: products of 8-bit operands stay far below 2^53.
    """
    product = x.astype(np.float64) @ np.swapaxes(w, -1, -2).astype(np.float64)
    return product.astype(np.int64)


def requantize(
    acc: Ints,
    bias: IntegerLike,
    multiplier: IntegerLike,
    shift: IntegerLike,
    bits: int,
    row: IntegerLike | None = None,
    row_shift: IntegerLike = 0,
    limit: int = ACCUMULATOR_LIMIT,
) -> Ints:
    """Accumulators [..., T, N] to ``bits`` bits (section 2).

    Args:
        bias, multiplier, shift: [N] or a scalar
        row, row_shift: the row factor, broadcastable to ``acc`` (e.g. [T, 1]); None for none
        limit: what no accumulator with its bias reaches; ``CONTEXT_LIMIT`` for P.V

    Raises:
        ValueError: one reaches ``limit``, which the compiler's bound excludes.
    """
    a = acc + np.asarray(bias, np.int64)
    if a.size and (worst := int(np.abs(a).max())) >= limit:
        raise ValueError(f"accumulator must stay below 2^{limit.bit_length() - 1} = {limit}, not reach {worst}")
    m = np.asarray(multiplier, np.int64)
    s = np.asarray(shift, np.int64)
    if row is not None:
        m = (m * np.asarray(row, np.int64) + (1 << 14)) >> 15
        s = s + np.asarray(row_shift, np.int64)
    return clamp(rounding_shift(a * m, s), bits)


def activate(q: Ints, table: npt.NDArray[np.uint8], shift: IntegerLike) -> Ints:
    """The activation function of 12-bit inputs [..., N] to int8 (section 4).

    Args:
        table: [512], by the input's magnitude
        shift: of each channel, [N] or a scalar
    """
    z = np.maximum(q, 0) + table.astype(np.int64)[np.minimum(np.abs(q), len(table) - 1)]
    return clamp(rounding_shift(z, shift) - ACTIVATION_OFFSET, 8)


def layer_norm(x: Ints, gamma: npt.NDArray[Any], beta: npt.NDArray[Any], shift: int, eps: int) -> Ints:
    """LayerNorm of int16 residual rows [..., D] to int8 (section 5)."""
    t = normalize(x, eps)
    return clamp(rounding_shift(t * gamma.astype(np.int64) + beta.astype(np.int64), shift), 8)


def normalize(x: Ints, eps: int) -> Ints:
    """LayerNorm's normalised values ``t`` of int16 rows [..., D], in units of ``2^-10 * D / 2^floor_log2(D)``."""
    x = x.astype(np.int64)
    dim = x.shape[-1]
    log2_dim, inv = norm_constants(dim)
    total = x.sum(-1, keepdims=True)
    squares = (x * x).sum(-1, keepdims=True)
    mean = rounding_shift(total * inv, log2_dim + 8)
    variance = np.maximum(dim * squares - total * total + eps, 1)
    e = (51 - floor_log2(variance)) >> 1
    u = (variance << (2 * e)) >> 36
    difference = (x << 8) - mean
    return clamp(rounding_shift(difference * RSQRT[u >> 6], 39 - log2_dim - e), 16)


def softmax_probabilities(scores: Ints, score_shift: int) -> tuple[Ints, Ints]:
    """Unnormalised uint8 probabilities of 12-bit scores [..., keys] and the running maximum's end [...] (section 6)."""
    maximum = scores.max(-1)
    delta = (maximum[..., None] - scores) << score_shift
    i = np.minimum(delta >> 6, 9)
    p = (EXP2[delta & 63] + (np.int64(8) << i)) >> (4 + i)
    return np.where(i <= 8, p, 0), maximum


def reciprocal(total: IntegerLike) -> tuple[Ints, Ints]:
    """``(row, row_shift)`` with ``row / 2^(15 + row_shift)`` about ``1 / total``; total in 1..2^20."""
    n = np.asarray(total, np.int64)
    b = floor_log2(n)
    return RECIP[((n << 17) >> b) >> 7 & 1023], b


def gate_select(logits: Ints, top_k: int) -> Ints:
    """Expert numbers [T, top_k] of the largest gate logits [T, E], best first, ties to the lower number (section 7)."""
    return np.argsort(-logits, axis=-1, kind="stable")[..., :top_k].astype(np.int64)


def gate_scores(logits: Ints) -> Ints:
    """Softmax over all experts of gate logits [T, E], in units of 2^-15, 0..32768 (section 7)."""
    delta = logits.max(-1, keepdims=True) - logits
    i = np.minimum(delta >> 10, 16)
    p = np.where(i <= 15, EXP2G[(delta >> 2) & 255] >> i, 0)
    r, b = reciprocal(p.sum(-1, keepdims=True))
    return np.minimum((p * r + ((np.int64(1) << b) >> 1)) >> b, MAX_SCORE)


def expert_queues(logits: Ints, top_k: int) -> tuple[list[Ints], list[Ints]]:
    """Per expert: the token numbers of its queue, ascending, and their gate scores."""
    chosen = gate_select(logits, top_k)
    scores = gate_scores(logits)
    queues = [np.flatnonzero((chosen == e).any(-1)).astype(np.int64) for e in range(logits.shape[-1])]
    return queues, [scores[queue, e] for e, queue in enumerate(queues)]
