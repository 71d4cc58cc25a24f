"""Which unit an activation function's inputs have, and which shift each of its channels. NumPy only."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from edgemoe_models.arithmetic.ops import ACTIVATION_OFFSET
from edgemoe_models.arithmetic.tables import (
    ACTIVATION_ENTRIES,
    ACTIVATION_MARGIN,
    ACTIVATION_SUPPORT,
    MAX_ACTIVATION_SHIFT,
    activation_table,
)
from edgemoe_models.exact.sums import integer_product, mean, product, total, variance
from edgemoe_models.graph.integer_graph import Activation, IntegerGraph
from edgemoe_models.ptq.layers import InputScale, weight_limit
from edgemoe_models.ptq.observation import Halves
from edgemoe_models.ptq.options import LIMIT, TINY, Floats, QuantizeOptions
from edgemoe_models.ptq.search import SAMPLE_OUTPUTS, SAMPLE_ROWS, folds, sample_rows

Shifts = npt.NDArray[np.uint8]

__all__ = [
    "SMALLEST_UNIT",
    "ActivationScale",
    "Shifts",
    "activation_scale_of",
    "activation_scales",
    "fit_activation",
]

#: Least unit with which the table reaches as far as delta does (docs/numerics.md, section 4). ReLU's only keeps ratios
#: of scales small where a layer's outputs are all zero.
SMALLEST_UNIT = {kind: max(end / (ACTIVATION_ENTRIES - 1), 2.0**-16) for kind, end in ACTIVATION_SUPPORT.items()}
#: What a tensor's range has beyond the largest value seen, and a channel's beyond its own: candidates. Pictures that
#: were not seen reach further, and a channel that saturates costs more than one whose steps are coarser.
_HEADROOMS = (1.0, 1.3)
_CHANNEL_HEADROOMS = (1.25, 1.6, 2.0, 3.0)
#: Fewer rows than these do not tell how far a channel reaches: it gets the coarsest shift.
_ENOUGH_ROWS = 64


@dataclasses.dataclass(frozen=True)
class ActivationScale:
    """An activation function's unit, and what its int8 outputs stand for.

    Attributes:
        activation: the table
        unit: real value of one unit of the 12-bit inputs
    """

    activation: Activation
    unit: float

    def step(self, shift: Shifts) -> Floats:
        """Real value of one unit of the int8 outputs [N]."""
        result: Floats = np.ldexp(self.unit, shift.astype(np.int64))
        return result

    def centre(self, shift: Shifts) -> Floats:
        """Real value of output 0 [N]."""
        result: Floats = ACTIVATION_OFFSET * self.step(shift) - self.activation.base * self.unit
        return result

    def largest(self, shift: Shifts) -> Floats:
        """The largest real value that an output can stand for [N]."""
        return self.centre(shift) + LIMIT * self.step(shift)

    def inputs(self, x: Floats, shift: Shifts) -> InputScale:
        """The scale of the next layer's inputs, fitted to calibration rows x [R, N]."""
        return InputScale.fit(x, self.step(shift), self.centre(shift))

    def shifts(self, peaks: Floats) -> Shifts:
        """The smallest shift [N] with which each channel reaches ``peaks``; the largest one if none does."""
        shift = np.full(len(peaks), MAX_ACTIVATION_SHIFT, np.uint8)
        for candidate in reversed(range(MAX_ACTIVATION_SHIFT)):
            tried = np.full_like(shift, candidate)
            shift = np.where(self.largest(tried) >= peaks, tried, shift)
        return shift


def activation_scale_of(kind: str, unit: float) -> ActivationScale:
    """An activation function (``edgemoe_models.config.ACTIVATIONS``) of inputs in units of ``unit``."""
    unit = float(np.float32(unit))  # as files and QAT hold it
    return ActivationScale(Activation(activation_table(kind, unit)), unit)


def activation_scales(graph: IntegerGraph) -> Iterator[tuple[str, ActivationScale, Shifts]]:
    """The trace, the scale and the shifts [N] of every layer with an activation function."""
    for trace, activation, layer in graph.activated():
        assert layer.activation_shift is not None
        unit = np.ldexp(float(graph.scales[trace][0]), -int(layer.activation_shift[0]))
        yield trace, ActivationScale(activation, float(unit)), layer.activation_shift


def fit_activation(
    kind: str,
    rows: list[Floats],
    weights: list[Floats],
    options: QuantizeOptions,
    bits: int = 8,
    halves: list[Halves | None] | None = None,
) -> tuple[ActivationScale, list[Shifts]]:
    """The unit that some layers share and the shifts of each with which the layers behind them lose least.

    Args:
        kind: one of ``edgemoe_models.config.ACTIVATIONS``
        rows: the activation's real outputs in calibration, [R, N] of each layer; R may be 0
        weights: of the layer behind each, [M, N], which will have ``bits``
        halves: of each layer's rows, whether their picture is of the second half (``Observation.halves``): how far
            beyond a half's peaks the ranges go is then judged on the other half's rows
    """
    known = [i for i, x in enumerate(rows) if len(x) >= _ENOUGH_ROWS]
    sample = max(1, SAMPLE_ROWS // max(len(known), 1))
    sides = [halves[i] if halves is not None else None for i in known]
    best: tuple[float, float, float] = np.inf, 1.0, _CHANNEL_HEADROOMS[1]
    if options.ranges == "mse" and known:
        judged = [
            [_Part.of(rows[i], weights[i], fold, sample) for i, fold in zip(known, masks, strict=True)]
            for masks in zip(*(_two_folds(rows[i], half) for i, half in zip(known, sides, strict=True)), strict=True)
        ]
        for room, headroom in itertools.product(_HEADROOMS, _CHANNEL_HEADROOMS):
            error = sum(_error(kind, parts, room, headroom, options, bits) for parts in judged)
            best = min(best, (error, room, headroom))
    _, room, headroom = best
    peaks = [np.abs(x).max(0, initial=0.0) for x in rows]
    scale = _scale(kind, peaks, room, options)
    coarsest = np.full(weights[0].shape[1], np.inf)
    return scale, [scale.shifts(p * headroom if i in known else coarsest) for i, p in enumerate(peaks)]


def _two_folds(x: Floats, half: Halves | None) -> list[tuple[Halves, Halves]]:
    """``folds``, two of them also where there are too few rows of a half: all for all, twice."""
    if half is not None and min(half.sum(), (~half).sum()) < _ENOUGH_ROWS // 2:
        half = None
    found = folds(x, half)
    return found * (2 // len(found))


def _scale(kind: str, peaks: list[Floats], room: float, options: QuantizeOptions) -> ActivationScale:
    peak = max(float(p.max(initial=0.0)) for p in peaks)
    reach = (ACTIVATION_OFFSET + LIMIT) * 2**MAX_ACTIVATION_SHIFT - ACTIVATION_MARGIN
    return activation_scale_of(kind, float(options.rounded(max(peak * room / reach, SMALLEST_UNIT[kind]))))


def _error(kind: str, parts: list[_Part], room: float, headroom: float, options: QuantizeOptions, bits: int) -> float:
    scale = _scale(kind, [part.peaks for part in parts], room, options)
    return sum(part.error(scale, scale.shifts(part.peaks * headroom), bits) for part in parts)


@dataclasses.dataclass(frozen=True)
class _Part:
    """A layer's sample: rows that judge, the weights behind them, the outputs wanted, their power, and the peaks [N] of
    the rows that give ranges."""

    x: Floats
    weight: Floats
    wanted: Floats
    power: Floats
    peaks: Floats

    @classmethod
    def of(cls, rows: Floats, weight: Floats, fold: tuple[Halves, Halves], count: int) -> _Part:
        peaks, x = np.abs(rows[fold[0]]).max(0), rows[fold[1]]
        x, weight = sample_rows(x, count), sample_rows(weight, SAMPLE_OUTPUTS).astype(np.float64)
        wanted = product(x, weight)
        power = np.maximum(variance(wanted, 0), TINY + 1e-6 * variance(wanted.reshape(-1)))
        return cls(x, weight, wanted, power, peaks)

    def error(self, scale: ActivationScale, shift: Shifts, bits: int) -> float:
        """The mean square error of the layer's outputs but for their means, in units of their power."""
        step, centre = scale.step(shift), scale.centre(shift)
        effective = self.weight * step
        unit = np.maximum(np.abs(effective).max(1), TINY) / weight_limit(bits)
        found = integer_product(
            InputScale.integers(self.x, centre, step), np.rint(effective / unit[:, None]), LIMIT * LIMIT
        )
        errors = found * unit + total(self.weight * centre) - self.wanted
        errors = errors - mean(errors, 0)
        return float(mean(mean(np.square(errors), 0) / self.power))
