"""The quantizer's numeric core: scale searches and the step from real layers to integer ones. NumPy only.

Everything is computed with :mod:`edgemoe_models.exact`, so that the same scales win on every machine.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edgemoe_models.exact.functions import softmax
from edgemoe_models.exact.linear_algebra import solve
from edgemoe_models.exact.sums import integer_product, mean, product, total, variance
from edgemoe_models.graph.integer_graph import Gelu, IntegerLayerNorm, IntegerLinear, Requant
from edgemoe_models.integer.ops import ACCUMULATOR_LIMIT, MAX_SHIFT
from edgemoe_models.integer.tables import GELU_ENTRIES, GELU_SUPPORT, gelu_table, norm_constants

Floats = npt.NDArray[np.floating[Any]]
LIMIT = 127
TINY = 1e-12
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
#: By bits of the weights.
_WEIGHT_CLIPS = {8: (1.0, 0.96, 0.92, 0.88, 0.84, 0.8), 4: tuple(1 - 0.04 * step for step in range(16))}
#: Percentile of the activations' magnitudes for "percentile" ranges (one of those of Wu et al. 2020, arXiv 2004.09602).
_PERCENTILE = 99.99
#: Ridges to try, in multiples of what as many rows as there are inputs say.
_RIDGES = (0.01, 0.1, 1.0, 10.0)
_SMALLEST_RATIO = 2.0**-30
_LARGEST_BIAS = 1 << 22
RANGES = ("min-max", "percentile", "mse")


class QuantizeError(ValueError):
    """A model that cannot be quantized; the message names the tensor or layer."""


@dataclasses.dataclass(frozen=True)
class QuantizeOptions:
    """What post-training quantization does; the default is the best measured.

    Attributes:
        expert_bits: bits of the experts' weights, 8 or 4
        power_of_two: whether every scale is a power of two, and so every ratio that requantize multiplies by
        ranges: "min-max", "percentile" (of activations; weights min-max), or "mse": the range of least squared error in
            what the values are for (a linear layer's outputs, softmax's probabilities), weights weighed by their inputs
        equalize: whether channels' ranges and means move between activations and weights (Xiao et al. 2023,
            SmoothQuant)
        correct_bias: whether biases make up for the mean of the rounding errors
        refit: whether the heads' last weights are fitted to what the integer layers before them really give
        per_channel: whether weights have a scale for each output channel; else one a layer

    Raises:
        QuantizeError: a value that is none of these.
    """

    expert_bits: int = 8
    power_of_two: bool = False
    ranges: Literal["min-max", "percentile", "mse"] = "mse"
    equalize: bool = True
    correct_bias: bool = True
    refit: bool = True
    per_channel: bool = True

    def __post_init__(self) -> None:
        if self.expert_bits not in (4, 8):
            raise QuantizeError(f"expert_bits must be 4 or 8, not {self.expert_bits!r}")
        if self.ranges not in RANGES:
            raise QuantizeError(f"ranges must be one of {', '.join(RANGES)}, not {self.ranges!r}")

    def rounded(self, scale: Floats | float) -> Floats:
        """Scales as they may be: the next power of two where all must be powers of two."""
        scale = np.asarray(scale, np.float64)
        if not self.power_of_two:
            return scale
        fraction, exponent = np.frexp(scale)  # fraction in [0.5, 1)
        return np.ldexp(1.0, exponent - (fraction == 0.5))

    def factors(self, a: Floats) -> Floats:
        """Equalization's factors as they may be: the nearest powers of two where all must be."""
        if not self.power_of_two:
            return a
        fraction, exponent = np.frexp(a)  # fraction in [0.5, 1)
        return np.ldexp(1.0, exponent - (fraction < math.sqrt(0.5))).astype(a.dtype)

    def scales(self, x: Floats, peak: float, clips: tuple[float, ...]) -> list[float]:
        """The int8 scales to try for values x whose largest magnitude is ``peak``."""
        if self.ranges == "percentile":
            peak = _percentile(np.abs(x).reshape(-1), _PERCENTILE)
        tried = [max(peak * clip, TINY) / LIMIT for clip in (clips if self.ranges == "mse" else (1.0,))]
        return list(dict.fromkeys(float(self.rounded(scale)) for scale in tried))


DEFAULT = QuantizeOptions()


def _percentile(x: Floats, percent: float) -> float:
    """Between the two values around it in the order of size, linearly."""
    position = (len(x) - 1) * (percent / 100)
    below = int(position)
    low, high = np.partition(x, (below, min(below + 1, len(x) - 1)))[[below, min(below + 1, len(x) - 1)]]
    return float(low + (high - low) * (position - below))


@dataclasses.dataclass(frozen=True)
class InputScale:
    """How integers x stand for real inputs: ``real = mean + x * unit``, per input channel.

    mean, unit: float64 [K]; x_mean: mean integer over the calibration rows, [K]
    """

    mean: Floats
    unit: Floats
    x_mean: Floats

    @classmethod
    def fit(cls, x: Floats, unit: Floats, mean: Floats | None = None) -> InputScale:
        """For calibration rows x [N, K] and a unit (scalar or [K]); ``mean`` 0 unless given."""
        mean = np.zeros(x.shape[1]) if mean is None else mean
        unit = np.broadcast_to(np.asarray(unit, np.float64), (x.shape[1],))
        return cls(mean, unit, _mean_rows(cls.integers(x, mean, unit)) if len(x) else np.zeros(x.shape[1]))

    @staticmethod
    def integers(x: Floats, mean: Floats, unit: Floats) -> Floats:
        return np.clip(np.rint((x - mean) / unit), -LIMIT, LIMIT)

    def of_rows(self, x: Floats) -> InputScale:
        """The same scale with the mean integer of other calibration rows."""
        return dataclasses.replace(self, x_mean=_mean_rows(self.integers(x, self.mean, self.unit)))


def _mean_rows(x: Floats) -> Floats:
    return mean(x, 0)


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


def weight_limit(bits: int) -> int:
    """Largest magnitude of a weight."""
    return (1 << (bits - 1)) - 1


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
    return powers[quarters]


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


def fixed_point(ratio: Floats) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint8]]:
    """Multipliers in [2^15, 2^16) and shifts with ``multiplier / 2^shift`` about ``ratio``.

    Raises:
        QuantizeError: a ratio outside 2^-32..2^15, which no sensible pair of scales has.
    """
    ratio = np.asarray(ratio, np.float64)
    wrong = ~((ratio >= 2.0**-32) & (ratio < 2.0**15))
    if wrong.any():
        raise QuantizeError(f"a ratio of scales must be in 2^-32..2^15, not {ratio[wrong][0]:.3g}; check the weights")
    fraction, exponent = np.frexp(ratio)
    multiplier = np.rint(fraction * 65536).astype(np.int64)
    exponent = exponent + (multiplier == 65536)
    multiplier = np.where(multiplier == 65536, 32768, multiplier)
    shift = 16 - exponent
    assert shift.min() >= 0 and shift.max() <= MAX_SHIFT
    return multiplier.astype(np.uint16), shift.astype(np.uint8)


def scalar_requant(ratio: float) -> Requant:
    """One multiplier and shift for all channels."""
    multiplier, shift = fixed_point(np.asarray(ratio))
    return Requant(int(multiplier), int(shift))


#: Least scale of a GELU's output with which the delta table reaches as far as delta does (docs/numerics.md, section 4).
SMALLEST_GELU_SCALE = GELU_SUPPORT / (GELU_ENTRIES - 1)


def make_gelu(scale: float) -> Gelu:
    return Gelu(*gelu_table(scale))


def gelu_unit(scale: float) -> float:
    """Real value of one unit of the 11-bit GELU input whose int8 output has ``scale``."""
    return scale / 2 ** gelu_table(scale)[1]


def _row_scales(w: Floats, importance: Floats, options: QuantizeOptions, bits: int) -> Floats:
    """Scales [N] of weight rows [N, K], of least squared error, inputs weighted by ``importance`` [K]."""
    limit = weight_limit(bits)
    peak = np.maximum(np.abs(w).max(1), TINY) / limit
    if not options.per_channel:
        peak = np.full_like(peak, peak.max())
    best, best_error = peak, np.full(len(w), np.inf)
    for clip in _WEIGHT_CLIPS[bits] if options.ranges == "mse" else (1.0,):
        s = options.rounded(peak * clip)
        error = total(np.square(np.clip(np.rint(w / s[:, None]), -limit, limit) * s[:, None] - w) * importance)
        if not options.per_channel:
            error = np.full_like(error, total(error))
        best, best_error = np.where(error < best_error, s, best), np.minimum(error, best_error)
    return best


def make_linear(
    weight: Floats,
    bias: Floats,
    inputs: InputScale,
    out_scale: Floats | float,
    options: QuantizeOptions = DEFAULT,
    bits: int = 8,
    *,
    max_activation: int = LIMIT,
    out_mean: Floats | None = None,
    power: Floats | None = None,
) -> IntegerLinear:
    """The integer layer of ``(weight @ real + bias) / out_scale``.

    Args:
        weight, bias: real [N, K], [N]
        out_scale: real value of one output unit, scalar or [N]
        bits: of the weights
        out_mean: mean of ``weight @ real`` over the calibration rows [N]: the bias then makes up for the mean error
        power: mean square of the integer inputs [K], which weighs the weights' rounding errors
    """
    out_scale = np.broadcast_to(np.asarray(out_scale, np.float64), (len(weight),))
    effective = weight.astype(np.float64) * inputs.unit  # per integer unit of the input
    real_bias = bias + total(weight * inputs.mean)
    importance = np.ones(weight.shape[1]) if power is None else power + 1e-3 * mean(power) + TINY
    s = _row_scales(effective, importance, options, bits)
    s = np.maximum(s, _SMALLEST_RATIO * out_scale)
    s = np.maximum(s, np.abs(real_bias) / _LARGEST_BIAS)
    limit = ACCUMULATOR_LIMIT - 1 - _LARGEST_BIAS - 1024
    for _ in range(8):  # widens the scale of a channel whose accumulator could overflow
        s = options.rounded(s if options.per_channel else np.full_like(s, s.max()))
        integers = np.clip(np.rint(effective / s[:, None]), -weight_limit(bits), weight_limit(bits))
        excess = max_activation * total(np.abs(integers)) / limit
        if (excess <= 1).all():
            break
        s = np.where(excess > 1, s * excess * 1.001, s)
    if out_mean is not None:
        real_bias = bias + out_mean - s * total(integers * inputs.x_mean)
    multiplier, shift = fixed_point(s / out_scale)
    return IntegerLinear(
        integers.astype(np.int8),
        np.clip(np.rint(real_bias / s), -_LARGEST_BIAS, _LARGEST_BIAS).astype(np.int32),
        multiplier,
        shift,
    )


def make_norm(weight: Floats, bias: Floats, outputs: InputScale, residual_scale: float, eps: float) -> IntegerLayerNorm:
    """The integer LayerNorm whose int8 outputs have the scale ``outputs`` (gain and bias real, [D])."""
    dim = len(weight)
    log2_dim, _ = norm_constants(dim)
    gamma = weight / outputs.unit * dim / 2.0 ** (log2_dim + 10)
    beta = (bias - outputs.mean) / outputs.unit
    by_gamma = _floor_log2(32767 / max(float(np.abs(gamma).max()), TINY))
    by_beta = _floor_log2(2.0**30 / max(float(np.abs(beta).max()), TINY))
    shift = min(by_gamma, by_beta, 31)
    if shift < 0:
        raise QuantizeError("a LayerNorm's gain or bias is too large for its output's scale; check its weights")
    units = dim / residual_scale
    integer_eps = round(eps * units * units)
    return IntegerLayerNorm(
        np.rint(gamma * 2.0**shift).astype(np.int16),
        np.rint(beta * 2.0**shift).astype(np.int32),
        shift,
        min(integer_eps, 2**32 - 1),
    )


def _floor_log2(x: float) -> int:
    return math.frexp(x)[1] - 1
