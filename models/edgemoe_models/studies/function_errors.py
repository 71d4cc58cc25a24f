"""Errors of softmax, activations and LayerNorm against float64: ours, I-BERT's, I-ViT's, FQ-ViT's and Edge-MoE's.

Every method gets the same integers, those of the integer graph (docs/functions.md says which). NumPy only.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from edgemoe_models.arithmetic import ops
from edgemoe_models.arithmetic.tables import ACTIVATION_SUPPORT, EXP2, MAX_ACTIVATION_SHIFT
from edgemoe_models.config import ACTIVATIONS
from edgemoe_models.exact.functions import ACTIVATION_FUNCTIONS
from edgemoe_models.ptq.activations import SMALLEST_UNIT, ActivationScale, activation_scale_of
from edgemoe_models.ptq.layers import InputScale, make_norm
from edgemoe_models.studies.published import (
    Ints,
    Quantized,
    edge_moe,
    fq_vit,
    i_bert,
    i_vit,
    to_int8,
)

__all__ = ["TABLES", "activation_rows", "activation_units", "cell", "layer_norm_rows", "results", "softmax_rows"]

Floats = npt.NDArray[np.float64]
Row = dict[str, Any]
#: Inputs and the output's scale to (results before they are rounded to int8, real; int8 results).
Int8Function = Callable[[Ints, float], tuple[Floats, Ints]]

ACTIVATION_INPUTS = np.arange(-2047, 2048)  # every one of 12 bits
SCORE_SCALE = math.log(2) / 64  # natural logarithm of one unit of a score
SCORE_LIMIT = 2047
KEYS, HEAD_DIM = 129, 64
RESIDUAL_SCALE = 2.0**-10  # only Edge-MoE's LayerNorm depends on it
_ROWS = 500


def _worst(error: npt.NDArray[Any]) -> tuple[float, float]:
    """Largest and mean magnitude."""
    magnitude = np.abs(error)
    return float(magnitude.max()), float(magnitude.mean())


def _int8_row(own: Floats, output: Ints, exact: Floats, scale: float) -> Row:
    """Errors of a function with int8 output.

    Args:
        own: results before they are rounded to int8, real
        output, scale: int8 results and their unit
        exact: float64 results, real
    """
    limited = np.clip(exact / scale, -127, 127)
    own_max, own_mean = _worst(own - exact)
    output_max, output_mean = _worst(output - limited)
    steps = np.abs(output - np.rint(limited))
    return {
        "own_max": own_max,
        "own_mean": own_mean,
        "int8_max_lsb": output_max,
        "int8_mean_lsb": output_mean,
        "rounded_max_lsb": int(steps.max()),
        "rounded_differ": float((steps > 0).mean()),
    }


# --- Activation functions --------------------------------------------------------------------------------------------


def _rounded(exact: Floats, scale: float) -> tuple[Floats, Ints]:
    """What no function can better: the float64 result rounded to int8."""
    return exact, np.clip(np.rint(exact / scale), -127, 127).astype(np.int64)


#: Inputs, their scale and a shift to (results before they are rounded to int8, less the centre; int8 results).
ActivationFunction = Callable[[Ints, ActivationScale, int], tuple[Floats, Ints]]


def _off_centre(scale: ActivationScale, shift: int) -> tuple[float, float]:
    """The real value of output 0 and of one unit."""
    shifts = np.array([shift], np.uint8)
    return float(scale.centre(shifts)[0]), float(scale.step(shifts)[0])


def _rounded_activation(kind: str) -> ActivationFunction:
    def run(q: Ints, scale: ActivationScale, shift: int) -> tuple[Floats, Ints]:
        centre, step = _off_centre(scale, shift)
        return _rounded(ACTIVATION_FUNCTIONS[kind](q * scale.unit) - centre, step)

    return run


def _our_activation(q: Ints, scale: ActivationScale, shift: int) -> tuple[Floats, Ints]:
    table = scale.activation.table
    entry = table.astype(np.int64)[np.minimum(np.abs(q), len(table) - 1)]
    own = (np.maximum(q, 0) + entry - scale.activation.base) * scale.unit
    return own - _off_centre(scale, shift)[0], ops.activate(q, table, shift)


def _published_gelu(function: Callable[[Ints, float], Quantized]) -> ActivationFunction:
    def run(q: Ints, scale: ActivationScale, shift: int) -> tuple[Floats, Ints]:
        ints, unit = function(q, scale.unit)
        centre, step = _off_centre(scale, shift)
        own = ints * unit - centre
        return own, to_int8((own, 1.0), step)

    return run


def _alone(q: Ints, unit: float, **options: Any) -> Quantized:
    """ShiftGELU of each input in a row with nothing but a zero, so that no larger neighbour takes its bits."""
    ints, out = i_vit.gelu(np.stack([q, np.zeros_like(q)], axis=-1), unit, **options)
    return ints[..., 0], out


PUBLISHED_GELUS: dict[str, ActivationFunction] = {
    "I-BERT": _published_gelu(i_bert.gelu),
    "I-ViT": _published_gelu(_alone),
    "I-ViT, M = 31": _published_gelu(lambda q, unit: _alone(q, unit, divider_bits=i_vit.PROGRAM_DIVIDER_BITS)),
    "I-ViT, all inputs one row": _published_gelu(i_vit.gelu),
    "Edge-MoE": _published_gelu(edge_moe.gelu),
}


def activation_rows(kind: str) -> Iterator[Row]:
    """All 4095 inputs, with each shift at the smallest unit, at a large one, and over 50 units and 4 shifts."""
    shifts = range(MAX_ACTIVATION_SHIFT + 1)
    units = activation_units(kind)
    cases = {f"unit {units[0]:.4f}, shift {shift}": [(units[0], shift)] for shift in shifts}
    cases["unit 0.0660, shift 3"] = [(0.066, 3)]
    cases[f"{len(units)} units, {units[0]:.4f} to {units[-1]:g}, all shifts"] = [
        (unit, shift) for unit in units for shift in shifts
    ]
    methods = {"float64, rounded": _rounded_activation(kind), "ours": _our_activation}
    for case, parts in cases.items():
        scales = [(activation_scale_of(kind, unit), shift) for unit, shift in parts]
        for method, function in (methods | (PUBLISHED_GELUS if kind == "gelu" else {})).items():
            rows = [_activation_row(kind, function, scale, shift) for scale, shift in scales]
            merged = {key: (max if "max" in key else np.mean)([row[key] for row in rows]) for key in rows[0]}
            yield {"function": ACTIVATIONS[kind], "inputs": case, "method": method} | merged


def activation_units(kind: str) -> Floats:
    """50 units from the smallest on; ReLU, which has none, gets GELU's."""
    smallest: float = SMALLEST_UNIT[kind if ACTIVATION_SUPPORT[kind] else "gelu"]
    return np.geomspace(smallest, 0.5, 50)


def _activation_row(kind: str, function: ActivationFunction, scale: ActivationScale, shift: int) -> Row:
    own, output = function(ACTIVATION_INPUTS, scale, shift)
    centre, step = _off_centre(scale, shift)
    return _int8_row(own, output, ACTIVATION_FUNCTIONS[kind](ACTIVATION_INPUTS * scale.unit) - centre, step)


# --- LayerNorm -------------------------------------------------------------------------------------------------------


def exact_norm(x: Ints) -> Floats:
    """Normalised rows in float64."""
    result: Floats = (x - x.mean(-1, keepdims=True)) / x.std(-1, keepdims=True)
    return result


def _rounded_norm(x: Ints, scale: float) -> tuple[Floats, Ints]:
    return _rounded(exact_norm(x), scale)


def _our_norm(x: Ints, scale: float) -> tuple[Floats, Ints]:
    dim = x.shape[-1]
    layer = make_norm(
        np.ones(dim), np.zeros(dim), InputScale.fit(np.zeros((0, dim)), np.asarray(scale)), RESIDUAL_SCALE, 0.0
    )
    own = ops.normalize(x, layer.eps) * (dim / 2.0 ** (dim.bit_length() - 1) / 1024)
    return own, ops.layer_norm(x, layer.gamma, layer.beta, layer.shift, layer.eps)


def _published_norm(function: Callable[[Ints], Quantized]) -> Int8Function:
    def run(x: Ints, scale: float) -> tuple[Floats, Ints]:
        ints, unit = function(x)
        return ints * unit, to_int8((ints, unit), scale)

    return run


NORMS: dict[str, Int8Function] = {
    "float64, rounded": _rounded_norm,
    "ours": _our_norm,
    "I-BERT": _published_norm(i_bert.layer_norm),
    "I-ViT": _published_norm(i_vit.layer_norm),
    "Edge-MoE": _published_norm(lambda x: edge_moe.layer_norm(x, RESIDUAL_SCALE)),
}


def residual_rows(case: str, dim: int) -> Ints:
    """Random int16 rows [500, dim] of one of ``RESIDUALS``."""
    rng = np.random.default_rng(0)
    mean, deviation, outliers = RESIDUALS[case]
    x = rng.normal(mean, deviation, (_ROWS, dim))
    x[:, :2] += rng.choice([-1, 1], (_ROWS, 2)) * outliers
    result: Ints = np.clip(np.rint(x), -32767, 32767).astype(np.int64)
    return result


#: Mean, deviation, and what two channels have on top, in units of the residual stream.
RESIDUALS = {
    "deviation 1": (5, 1, 0),
    "deviation 10": (50, 10, 0),
    "deviation 300": (100, 300, 0),
    "deviation 8000": (0, 8000, 0),
    "outliers": (0, 100, 10000),
}


def layer_norm_rows() -> Iterator[Row]:
    """Random rows of 96 and 192 channels; gain 1, bias 0, epsilon 0; the output's scale holds the largest result."""
    for dim in (96, 192):
        for case in RESIDUALS:
            x = residual_rows(case, dim)
            exact = exact_norm(x)
            scale = float(np.abs(exact).max()) / 127
            for method, function in NORMS.items():
                row = _int8_row(*function(x, scale), exact, scale)
                yield {"function": "LayerNorm", "inputs": f"{dim} channels, {case}", "method": method} | row


# --- Softmax ---------------------------------------------------------------------------------------------------------


def score_rows() -> dict[str, tuple[Ints, int]]:
    """12-bit scores [rows, 129] and their ``score_shift``, by name."""
    rng = np.random.default_rng(0)
    flat = np.zeros((1, KEYS), np.int64)
    one, two = flat - 10 * 64, flat - 10 * 64
    one[:, 5] = two[:, 5] = two[:, 77] = 0
    cases: dict[str, tuple[npt.NDArray[Any], int]] = {
        f"normal, deviation {deviation:g}": (rng.normal(0, deviation / SCORE_SCALE, (_ROWS, KEYS)), 0)
        for deviation in (0.5, 2, 8)
    }
    cases["normal, deviation 8, score_shift 2"] = (rng.normal(0, 2 / SCORE_SCALE, (_ROWS, KEYS)), 2)
    cases |= {
        "all equal": (flat, 0),
        "one maximum, 2^10 above": (one, 0),
        "two maxima, 2^10 above": (two, 0),
        "ramp": (np.arange(KEYS)[None] * 30 - SCORE_LIMIT, 0),
    }
    return {
        name: (np.rint(np.clip(scores, -SCORE_LIMIT, SCORE_LIMIT)).astype(np.int64), shift)
        for name, (scores, shift) in cases.items()
    }


def _shares(exponentials: npt.NDArray[Any]) -> Floats:
    result: Floats = exponentials / exponentials.sum(-1, keepdims=True)
    return result


def _our_softmax(scores: Ints, shift: int) -> tuple[Floats, Floats]:
    p, maximum = ops.softmax_probabilities(scores, shift)
    delta = (maximum[..., None] - scores) << shift
    row, row_shift = ops.reciprocal(p.sum(-1, keepdims=True))
    return _shares(EXP2[delta & 63] / 2.0 ** (delta >> 6)), p * row / 2.0 ** (15 + row_shift)


def _published_softmax(
    module: Any, exponentials: Callable[[Ints, float], Ints] | None
) -> Callable[[Ints, int], tuple[Floats, Floats]]:
    def run(scores: Ints, shift: int) -> tuple[Floats, Floats]:
        scale = SCORE_SCALE * 2**shift
        ints, unit = module.softmax(scores, scale)
        return ints * unit if exponentials is None else _shares(exponentials(scores, scale)), ints * unit

    return run


SOFTMAXES: dict[str, Callable[[Ints, int], tuple[Floats, Floats]]] = {
    "ours": _our_softmax,
    "I-BERT": _published_softmax(i_bert, i_bert.softmax_exp),
    "I-ViT": _published_softmax(i_vit, i_vit.softmax_exp),
    "FQ-ViT": _published_softmax(fq_vit, i_bert.softmax_exp),
    "Edge-MoE": _published_softmax(edge_moe, None),
}


def softmax_rows() -> Iterator[Row]:
    """Rows of 129 scores; the context is of normal values, 64 channels."""
    values = np.random.default_rng(1).normal(size=(KEYS, HEAD_DIM))
    for case, (scores, shift) in score_rows().items():
        exact = _shares(np.exp((scores - scores.max(-1, keepdims=True)) * (SCORE_SCALE * 2**shift)))
        for method, function in SOFTMAXES.items():
            own, output = function(scores, shift)
            own_max, own_mean = _worst(own - exact)
            output_max, output_mean = _worst(output - exact)
            context = np.square((output - exact) @ values).mean() / np.square(exact @ values).mean()
            yield {
                "function": "softmax",
                "inputs": case,
                "method": method,
                "own_max": own_max,
                "own_mean": own_mean,
                "output_max": output_max,
                "output_mean": output_mean,
                "sum_max": _worst(output.sum(-1) - 1)[0],
                "context_rms": math.sqrt(context),
            }


# --- Tables ----------------------------------------------------------------------------------------------------------

_INT8 = {
    "own_max": "own max",
    "own_mean": "own mean",
    "int8_max_lsb": "int8 max, LSB",
    "int8_mean_lsb": "mean, LSB",
    "rounded_max_lsb": "from rounded, LSB",
    "rounded_differ": "differ",
}
TABLES: dict[str, tuple[Callable[[], Iterator[Row]], dict[str, str]]] = {
    "softmax": (
        softmax_rows,
        {
            "own_max": "own max",
            "own_mean": "own mean",
            "output_max": "output max",
            "output_mean": "output mean",
            "sum_max": "sum - 1",
            "context_rms": "context",
        },
    ),
    **{name: (functools.partial(activation_rows, kind), _INT8) for kind, name in ACTIVATIONS.items()},
    "LayerNorm": (layer_norm_rows, _INT8),
}


def results() -> Iterator[Row]:
    """Every row of every table."""
    for rows, _ in TABLES.values():
        yield from rows()


def cell(key: str, value: float) -> str:
    """A row's value as it is printed."""
    if key in ("rounded_differ", "sum_max", "context_rms"):
        return f"{100 * value:.2f} %"
    return str(value) if isinstance(value, int) else f"{value:.3f}" if "lsb" in key else f"{value:.1e}"
