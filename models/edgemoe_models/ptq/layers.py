"""From real layers and scales to integer ones. NumPy only.

Everything is computed with ``edgemoe_models.exact``, so that every machine rounds to the same integers.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import numpy.typing as npt

from edgemoe_models.arithmetic.ops import ACCUMULATOR_LIMIT, MAX_SHIFT
from edgemoe_models.arithmetic.tables import norm_constants
from edgemoe_models.exact.sums import mean, total
from edgemoe_models.graph.integer_graph import IntegerLayerNorm, IntegerLinear, Requant
from edgemoe_models.ptq.options import DEFAULT, LIMIT, TINY, Floats, QuantizeError, QuantizeOptions
from edgemoe_models.ptq.rounding import round_together

#: By bits of the weights.
_WEIGHT_CLIPS = {8: (1.0, 0.96, 0.92, 0.88, 0.84, 0.8), 4: tuple(1 - 0.04 * step for step in range(16))}
_SMALLEST_RATIO = 2.0**-30
_LARGEST_BIAS = 1 << 22


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
        result: Floats = np.clip(np.rint((x - mean) / unit), -LIMIT, LIMIT)
        return result

    def of_rows(self, x: Floats) -> InputScale:
        """The same scale with the mean integer of other calibration rows."""
        return dataclasses.replace(self, x_mean=_mean_rows(self.integers(x, self.mean, self.unit)))


def _mean_rows(x: Floats) -> Floats:
    return mean(x, 0)


def weight_limit(bits: int) -> int:
    """Largest magnitude of a weight."""
    return (1 << (bits - 1)) - 1


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


def _row_scales(w: Floats, importance: Floats, options: QuantizeOptions, bits: int) -> Floats:
    """Scales [N] of weight rows [N, K], of least squared error, inputs weighted by ``importance`` [K]."""
    limit = weight_limit(bits)
    peak = np.maximum(np.abs(w).max(1), TINY) / limit
    if not options.per_channel:
        peak = np.full_like(peak, peak.max())
    best: Floats = peak
    best_error = np.full(len(w), np.inf)
    for clip in _WEIGHT_CLIPS[bits] if options.ranges == "mse" else (1.0,):
        s = options.rounded(peak * clip)
        error = total(np.square(np.clip(np.rint(w / s[:, None]), -limit, limit) * s[:, None] - w) * importance)
        if not options.per_channel:
            error = np.full_like(error, total(error))
        best, best_error = np.where(error < best_error, s, best), np.minimum(error, best_error)
    return best


def rounded_weights(weight: Floats, bits: int, options: QuantizeOptions = DEFAULT) -> Floats:
    """Real weights [N, K] as ``bits`` bits hold them, all inputs alike."""
    limit, exact = weight_limit(bits), weight.astype(np.float64)
    s = _row_scales(exact, np.ones(weight.shape[1]), options, bits)[:, None]
    result: Floats = (np.clip(np.rint(exact / s), -limit, limit) * s).astype(weight.dtype)
    return result


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
    activation_shift: npt.NDArray[np.uint8] | None = None,
    covariance: Floats | None = None,
) -> IntegerLinear:
    """The integer layer of ``(weight @ real + bias) / out_scale``.

    Args:
        weight, bias: real [N, K], [N]
        out_scale: real value of one output unit, scalar or [N]
        bits: of the weights
        out_mean: mean of ``weight @ real`` over the calibration rows [N]: the bias then makes up for the mean error
        power: mean square of the integer inputs [K], which weighs the weights' rounding errors
        activation_shift: of the activation function behind it, [N]
        covariance: of the integer inputs (``rounding.spread``): weights are then rounded together
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
        if covariance is None:
            integers = np.clip(np.rint(effective / s[:, None]), -weight_limit(bits), weight_limit(bits))
        else:
            integers = round_together(effective / s[:, None], covariance, weight_limit(bits))
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
        activation_shift,
        bits,
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
