"""The quantizer's searches: which ranges and factors lose least. NumPy only.

Everything is computed with ``edgemoe_models.exact``, so that the same candidates win on every machine.
"""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np

from edgemoe_models.exact.functions import softmax
from edgemoe_models.exact.linear_algebra import solve
from edgemoe_models.exact.sums import integer_product, mean, product, total, variance
from edgemoe_models.ptq.layers import weight_limit
from edgemoe_models.ptq.observation import Halves
from edgemoe_models.ptq.options import DEFAULT, LIMIT, TINY, Floats, QuantizeOptions

SAMPLE_ROWS, SAMPLE_OUTPUTS, _SAMPLE_VALUES, _SAMPLE_QUERIES = 512, 384, 1 << 17, 32
#: Exponents (activations, weights), in quarters, of the candidates for moving a channel's range between activation and
#: weight: powers that square roots give, because a library's power is not the same everywhere.
_SMOOTHING = ((0, 0), (1, 0), (2, 0), (3, 0), (4, 0), (2, 2), (3, 1))
_WHOLE = 4, 0
_CLIPS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4)
_ATTENTION_CLIPS = (1.0, 0.9, 0.8, 0.65)
#: From 1 to 1/4 in 15 equal ratios.
_TENSOR_CLIPS = (
    *(1.0, 0.9117, 0.8312, 0.7579, 0.691, 0.63, 0.5743, 0.5236),
    *(0.4774, 0.4353, 0.3969, 0.3618, 0.3299, 0.3008, 0.2742, 0.25),
)
#: Ridges to try, in multiples of what as many rows as there are inputs say.
_RIDGES = (0.01, 0.1, 1.0, 10.0)


#: Where halves of the pictures judge each other's ranges, ranges beyond the peak are tried too.
_WIDER_CLIPS, _WIDER_TENSOR_CLIPS = (*_CLIPS, 1.15, 1.3, 1.6, 2.0), (*_TENSOR_CLIPS, 1.15, 1.3)
#: A context's channels range at least so far, as a share of what v's do, which bounds them (it is a mean of v).
_BOUND_SHARES = (0.0, 0.5, 0.7, 1.0)


@dataclasses.dataclass(frozen=True)
class Channels:
    """How int8 integers stand for a tensor: ``x / (factors * scale)``.

    Attributes:
        factors: of each channel, [K]
        scale: of the tensor
        clipping: share of the values beyond the range, in pictures that had no part in it
    """

    factors: Floats
    scale: float
    clipping: float | None = None


def sample_rows(x: Floats, rows: int = SAMPLE_ROWS) -> Floats:
    """At most ``rows`` evenly spaced rows."""
    return x[:: -(-len(x) // rows)] if len(x) > rows else x


def folds(x: Floats, halves: Halves | None) -> list[tuple[Halves, Halves]]:
    """Rows [N, ...] that give a range, and those that judge it: all for all, or each half of the pictures for the
    other."""
    if halves is None:
        everything = np.ones(len(x), np.bool_)
        return [(everything, everything)]
    return [(~halves, halves), (halves, ~halves)]


def tensor_range(x: Floats, options: QuantizeOptions, halves: Halves | None = None) -> Channels:
    """The symmetric int8 scale of a tensor [N, ...]; ``halves``: of each row, whether its picture is of the second."""
    ones = np.ones(x.shape[-1])
    peak = float(np.abs(x).max(initial=0.0))
    if peak < TINY:
        return Channels(ones, float(options.rounded(1.0 / LIMIT)))
    clips = _TENSOR_CLIPS if halves is None else _WIDER_TENSOR_CLIPS
    errors = np.zeros(len(clips) if options.ranges == "mse" else 1)
    beyond = np.zeros_like(errors)
    parts = folds(x, halves)
    for known, judge in parts:
        scales = options.scales(_sample_values(x[known]), float(np.abs(x[known]).max(initial=TINY)), clips)
        flat = _sample_values(x[judge])
        for n, s in enumerate(scales):
            errors[n] += float(total(np.square(np.clip(np.rint(flat / s), -LIMIT, LIMIT) * s - flat)))
            beyond[n] += _clipped(flat / s) / len(parts)
    best = int(np.argmin(errors))
    scale = options.scales(_sample_values(x), peak, clips)[best]
    return Channels(ones, scale, None if halves is None else float(beyond[best]))


def _sample_values(x: Floats) -> Floats:
    flat = x.reshape(-1)
    return flat[:: -(-flat.size // _SAMPLE_VALUES)] if flat.size > _SAMPLE_VALUES else flat


def _clipped(x: Floats) -> float:
    """The share of values, in units of their scale, that int8 cannot hold."""
    return float(np.count_nonzero(np.abs(x) > LIMIT + 0.5)) / max(1, x.size)


def refit_weights(weight: Floats, inputs: Floats, outputs: Floats) -> Floats:
    """Weights [M, K] near ``weight`` whose products with inputs [R, K] are nearest to outputs [R, M], means apart.

    Least squares a layer as in AdaQuant (Hubara et al. 2021), but in closed form: ridge regression, with the ridge that
    does best when half of the rows predict the other half; ``weight`` itself if none does better.
    """
    inputs = inputs - mean(inputs, 0)
    missing = outputs - product(inputs, weight)
    missing = missing - mean(missing, 0)
    half = len(inputs) // 2
    parts = [(inputs[:half], missing[:half]), (inputs[half:], missing[half:])]
    sums = [_normal_equations(*part) for part in parts]
    losses = [float(total(np.square(missing).reshape(-1)))]
    for ridge in _RIDGES:
        fitted = [_regression(*known, ridge, len(part[0])) for known, part in zip(sums, parts, strict=True)]
        left = [y - product(x, w) for (x, y), w in zip(parts, reversed(fitted), strict=True)]
        losses.append(float(total(np.square(np.concatenate(left)).reshape(-1))))
    best = int(np.argmin(losses))
    if not best:
        return weight
    return weight + _regression(*_normal_equations(inputs, missing), _RIDGES[best - 1], len(inputs))


def _normal_equations(inputs: Floats, outputs: Floats) -> tuple[Floats, Floats]:
    """The sums over rows of inputs [R, K] times themselves, [K, K], and times outputs [R, M], [K, M]."""
    return product(inputs.T, inputs.T), product(inputs.T, outputs.T)


def _regression(gram: Floats, moments: Floats, ridge: float, rows: int) -> Floats:
    """The weights [M, K] whose products with the inputs are nearest to the outputs, from the normal equations."""
    gram = gram.copy()
    gram[np.diag_indices_from(gram)] += ridge * total(gram.diagonal()) / rows + TINY
    return solve(gram, moments).T


def _round_rows(w: Floats, bits: int) -> tuple[Floats, Floats]:
    """Integers [M, K] and the unit [M] of each row."""
    unit = np.maximum(np.abs(w).max(1), TINY) / weight_limit(bits)
    return np.rint(w / unit[:, None]), unit


def channel_ranges(
    x: Floats,
    weights: list[Floats],
    options: QuantizeOptions = DEFAULT,
    bits: tuple[int, ...] = (),
    halves: Halves | None = None,
    bound: Floats | None = None,
) -> Channels:
    """Per-channel factors a [K] and a scale s: int8 ``x / (a * s)`` with weights ``w * a`` loses least.

    Candidates are tried on a sample and the measured best is taken.

    Args:
        x: calibration rows [N, K]
        weights: the layers [M, K] that consume x, of ``bits`` (8 unless given), each counted alike, its outputs by
            their own variance
        halves: of each row, whether its picture is of the second half: then ranges that one half of the pictures gives
            are judged on the other half
        bound: rows [N, K] whose ranges x cannot exceed
    """
    errors: dict[tuple[int, int, int], float] = {}
    beyond: dict[tuple[int, int, int], float] = {}
    smoothing = _SMOOTHING if options.equalize else _SMOOTHING[:1]
    if options.whole_channels and len(smoothing) > 1:
        smoothing = (_WHOLE,)
    shares = (0.0,) if bound is None else _BOUND_SHARES
    clips = _CLIPS if halves is None else _WIDER_CLIPS
    peak_w = np.max([np.abs(w).max(0) / max(float(np.abs(w).max()), TINY) for w in weights], 0)
    peak_w = np.maximum(peak_w, 1e-2)
    samples = [sample_rows(w, SAMPLE_OUTPUTS) for w in weights]
    parts = folds(x, halves)

    def candidate(rows: Halves, share: float, power: tuple[int, int]) -> tuple[Floats, list[float]]:
        peak = _channel_peaks(x[rows], None if bound is None else bound[rows], share)
        a = _quarter_power(peak, power[0]) / _quarter_power(peak_w, power[1])
        a = options.factors(a / _middle(a))
        return a, options.scales(sample_rows(x[rows]) / a, float((peak / a).max()), clips)

    for known, judge in parts:
        rows = sample_rows(x[judge], SAMPLE_ROWS // len(parts))
        wanted = [product(rows, w) for w in samples]
        power = [np.maximum(variance(y, 0), TINY + 1e-6 * variance(y.reshape(-1))) for y in wanted]
        for i, share in enumerate(shares):
            for j, exponents in enumerate(smoothing):
                a, scales = candidate(known, share, exponents)
                rounded = [_round_rows(w * a, b) for w, b in zip(samples, bits or (8,) * len(weights), strict=True)]
                scaled = rows / a
                for k, s in enumerate(scales):
                    integers = np.clip(np.rint(scaled / s), -LIMIT, LIMIT)
                    found = [
                        _relative_error(integers, w, s * unit, y, p)
                        for (w, unit), y, p in zip(rounded, wanted, power, strict=True)
                    ]
                    key = i, j, k
                    errors[key] = errors.get(key, 0.0) + sum(found) / len(found)
                    beyond[key] = beyond.get(key, 0.0) + _clipped(scaled / s) / len(parts)
    i, j, k = best = min(errors, key=lambda key: errors[key])
    a, scales = candidate(np.ones(len(x), np.bool_), shares[i], smoothing[j])
    return Channels(a.astype(np.float64), scales[k], None if halves is None else beyond[best])


def _channel_peaks(x: Floats, bound: Floats | None, share: float) -> Floats:
    """The range of each channel [K], none of them tiny: of rows [N, K], and at least ``share`` of that of ``bound``."""
    peak = np.abs(x).max(0)
    if bound is not None and share:
        peak = np.maximum(peak, share * np.abs(bound).max(0))
    result: Floats = np.maximum(peak, 1e-2 * mean(peak) + TINY)
    return result


def _quarter_power(x: Floats, quarters: int) -> Floats:
    """x^(quarters / 4) of positive values."""
    root = np.sqrt(x)
    powers = {0: np.ones_like(x), 1: np.sqrt(root), 2: root, 3: root * np.sqrt(root), 4: x}
    result: Floats = powers[quarters]
    return result


def _middle(x: Floats) -> float:
    """A power of two amid positive values, 1 for ones; what all have in common only makes numbers larger."""
    return math.ldexp(1.0, round(float(mean(np.frexp(x)[1].astype(np.float64)))) - 1)


def _relative_error(integers: Floats, weight: Floats, unit: Floats, wanted: Floats, power: Floats) -> float:
    """The mean square of ``integers @ weight.T * unit - wanted``, each column's in units of its power."""
    errors = np.square(integer_product(integers, weight, LIMIT * LIMIT) * unit - wanted)
    return float(mean(mean(errors, 0) / power))


def attention_scales(
    q: Floats, k: Floats, score_factor: float, options: QuantizeOptions = DEFAULT
) -> tuple[Floats, float, float]:
    """Factors a [C] and scales of int8 ``q * a / s_q`` and ``k / (a * s_k)`` whose softmax errs least.

    q, k: [B, T, heads, head_dim]; softmax of ``score_factor * q . k``
    """
    q, k = (x.transpose(0, 2, 1, 3) for x in (q, k))  # [B, heads, T, head_dim]
    balances = [options.factors(a) for a in _balances(q, k)] if options.equalize else [np.ones_like(q[0, :, :1])]
    peaks = [tuple(float(np.abs(x).max()) for x in (q * a, k / a)) for a in balances]
    q = q[:, :, :: max(1, q.shape[2] // _SAMPLE_QUERIES)]  # of every picture: clips must suit those not seen here
    wanted = softmax((product(q, k) * score_factor).astype(np.float32))
    best: tuple[float, Floats, float, float] | None = None
    for a, (q_peak, k_peak) in zip(balances, peaks, strict=True):
        qa, ka = q * a, k / a
        tried = options.scales(qa, q_peak, _ATTENTION_CLIPS), options.scales(ka, k_peak, _ATTENTION_CLIPS)
        for s_q, s_k in itertools.product(*tried):
            rounded = [np.clip(np.rint(x / s), -LIMIT, LIMIT) for x, s in ((qa, s_q), (ka, s_k))]
            scores = integer_product(rounded[0], rounded[1], LIMIT * LIMIT).astype(np.float32)
            probabilities = softmax(scores * np.float32(s_q * s_k * score_factor))
            error = float(total(np.square(probabilities - wanted).reshape(-1).astype(np.float64)))
            if best is None or error < best[0]:
                best = error, a.reshape(-1), s_q, s_k
    assert best is not None
    return best[1].astype(np.float64), best[2], best[3]


def _balances(q: Floats, k: Floats) -> list[Floats]:
    """Factors [heads, 1, head_dim] to try: equal peaks of q and k, equal root mean squares, none.

    A full basis change of each head (equal and diagonal second moments, spread evenly by a cosine transform) was
    measured too: no gain on the trained m3vit-micro nor on a random m3vit-tiny, so it is not worth its code.
    """
    factors = [np.ones_like(q[0, :, :1])]
    for share in (1.0, 0.0):
        levels = []
        for x in (q, k):
            peak = np.abs(x).max((0, 2), keepdims=True)[0]
            rms = np.sqrt(mean(mean(np.square(x), 2), 0))[:, None]
            levels.append(np.maximum(share * peak + (1 - share) * rms, 1e-3 * peak.max() + TINY))
        factors.append(np.sqrt(levels[1] / levels[0]))
    return factors
