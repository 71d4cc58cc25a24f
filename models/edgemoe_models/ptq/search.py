"""The quantizer's searches: which ranges and factors lose least. NumPy only.

Everything is computed with ``edgemoe_models.exact``, so that the same candidates win on every machine.
"""

from __future__ import annotations

import itertools
import math

import numpy as np

from edgemoe_models.exact.functions import softmax
from edgemoe_models.exact.linear_algebra import solve
from edgemoe_models.exact.sums import integer_product, mean, product, total, variance
from edgemoe_models.ptq.layers import weight_limit
from edgemoe_models.ptq.options import DEFAULT, LIMIT, TINY, Floats, QuantizeOptions

_SAMPLE_ROWS, _SAMPLE_OUTPUTS, _SAMPLE_VALUES, _SAMPLE_QUERIES = 512, 384, 1 << 17, 32
#: Exponents (activations, weights), in quarters, of the candidates for moving a channel's range between activation and
#: weight: powers that square roots give, because a library's power is not the same everywhere.
_SMOOTHING = ((0, 0), (1, 0), (2, 0), (3, 0), (4, 0), (2, 2), (3, 1))
_CLIPS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4)
_ATTENTION_CLIPS = (1.0, 0.9, 0.8, 0.65)
#: From 1 to 1/4 in 15 equal ratios.
_TENSOR_CLIPS = (
    *(1.0, 0.9117, 0.8312, 0.7579, 0.691, 0.63, 0.5743, 0.5236),
    *(0.4774, 0.4353, 0.3969, 0.3618, 0.3299, 0.3008, 0.2742, 0.25),
)
#: Ridges to try, in multiples of what as many rows as there are inputs say.
_RIDGES = (0.01, 0.1, 1.0, 10.0)


def sample_rows(x: Floats, rows: int = _SAMPLE_ROWS) -> Floats:
    """At most ``rows`` evenly spaced rows."""
    return x[:: -(-len(x) // rows)] if len(x) > rows else x


def activation_scale(x: Floats, options: QuantizeOptions) -> float:
    """The symmetric int8 scale of a tensor."""
    flat = x.reshape(-1)
    flat = flat[:: -(-flat.size // _SAMPLE_VALUES)] if flat.size > _SAMPLE_VALUES else flat
    peak = float(np.abs(x).max(initial=0.0))
    if peak < TINY:
        return float(options.rounded(1.0 / LIMIT))
    scales = options.scales(flat, peak, _TENSOR_CLIPS)
    errors = [float(total(np.square(np.clip(np.rint(flat / s), -LIMIT, LIMIT) * s - flat))) for s in scales]
    return scales[int(np.argmin(errors))]


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


def smooth(
    x: Floats,
    weights: list[Floats],
    options: QuantizeOptions = DEFAULT,
    bits: tuple[int, ...] = (),
    allow_channels: bool = True,
) -> tuple[Floats, float]:
    """Per-channel factors a [K] and a scale s: int8 ``x / (a * s)`` with weights ``w * a`` loses least.

    x: calibration rows [N, K]; weights: the layers [M, K] that consume x, of ``bits`` (8 unless given), each counted
    alike, its outputs by their own variance. Candidates are tried on a sample and the measured best is taken.
    """
    peak_x = np.abs(x).max(0)
    peak_x = np.maximum(peak_x, 1e-2 * mean(peak_x) + TINY)
    x = sample_rows(x)
    weights = [sample_rows(w, _SAMPLE_OUTPUTS) for w in weights]
    wanted = [product(x, w) for w in weights]
    power = [np.maximum(variance(y, 0), TINY + 1e-6 * variance(y.reshape(-1))) for y in wanted]
    peak_w = np.max([np.abs(w).max(0) / max(float(np.abs(w).max()), TINY) for w in weights], 0)
    peak_w = np.maximum(peak_w, 1e-2)
    best: tuple[float, Floats, float] | None = None
    for alpha, beta in _SMOOTHING if allow_channels and options.equalize else _SMOOTHING[:1]:
        a = _quarter_power(peak_x, alpha) / _quarter_power(peak_w, beta)
        a = options.factors(a / _middle(a))
        scaled = x / a
        rounded = [_round_rows(w * a, b) for w, b in zip(weights, bits or (8,) * len(weights), strict=True)]
        for s in options.scales(scaled, float((peak_x / a).max()), _CLIPS):
            integers = np.clip(np.rint(scaled / s), -LIMIT, LIMIT)
            errors = [
                _relative_error(integers, w, s * unit, y, p)
                for (w, unit), y, p in zip(rounded, wanted, power, strict=True)
            ]
            error = sum(errors) / len(errors)
            if best is None or error < best[0]:
                best = error, a, s
    assert best is not None
    return best[1].astype(np.float64), best[2]


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
