"""The integer functions of docs/numerics.md on tensors of integer-valued floats, with straight-through gradients.

Forward: exact to the bit (float32 holds integers up to 2^24, float64 up to 2^53; a comment says why where it is not
obvious). Backward: the gradient of the real function that the integers approximate, zero where a value saturates.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from edgemoe_models.arithmetic import ops
from edgemoe_models.arithmetic.tables import MAX_ACTIVATION_SHIFT, RSQRT
from edgemoe_models.graph.integer_graph import IntegerLayerNorm
from edgemoe_models.m3vit import ACTIVATION_FUNCTIONS
from edgemoe_models.ptq.activations import activation_scale_of

__all__ = [
    "activate",
    "gate_scores",
    "layer_norm",
    "multiplier_ratio",
    "requantize",
    "row_ratio",
    "softmax",
    "weighted_sum",
]

LN_2 = math.log(2.0)


@functools.lru_cache(maxsize=8)
def _rsqrt(device: torch.device) -> Tensor:
    """The table of reciprocal square roots."""
    return torch.from_numpy(RSQRT.copy()).double().to(device)


def _power_of_two(exponent: Tensor) -> Tensor:
    """``2^exponent`` in float64 from its bits, -1022..1023; a GPU's own power function may miss the last one."""
    return ((exponent.long() + 1023) << 52).view(torch.float64)


def multiplier_ratio(multiplier: np.ndarray[Any, Any], shift: np.ndarray[Any, Any]) -> Tensor:
    """``multiplier / 2^shift`` in float64, exact: 16 significant bits."""
    return torch.as_tensor(np.ldexp(np.asarray(multiplier, np.float64), -np.asarray(shift, np.int32)))


def row_ratio(multiplier: Any, shift: Any, row: Tensor, row_shift: Tensor | float = 0.0) -> Tensor:
    """With a row factor (section 2): ``((multiplier * row + 2^14) >> 15) / 2^(shift + row_shift)``.

    row, row_shift: integers in float64, broadcastable with multiplier. Exact: multiplier * row < 2^31.
    """
    multiplier = torch.as_tensor(np.asarray(multiplier, np.float64), device=row.device)
    shift = torch.as_tensor(np.asarray(shift, np.float64), device=row.device)
    factor = torch.floor((multiplier * row + 2.0**14) * 2.0**-15)
    return factor * _power_of_two(-(shift + row_shift))


def _unless_saturated(grad: Tensor, y: Tensor, limit: int) -> Tensor:
    """The gradient, zero where |y| has reached the limit."""
    return torch.ops.aten.hardtanh_backward(grad, y, -limit, limit)


class _Requantize(Function):
    @staticmethod
    def forward(ctx: Any, acc: Tensor, real: Tensor, row: Tensor | None, ratio: Tensor, limit: int) -> Tensor:
        # |acc| < 2^25 and ratio has 16 bits: their product has 41 and is exact.
        y = (acc.double() * ratio).round_().clamp_(-limit, limit).float()
        ctx.save_for_backward(acc, real, row, y)
        ctx.limit = limit
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        acc, real, row, y = ctx.saved_tensors
        grad = _unless_saturated(grad, y, ctx.limit)
        scaled = grad if row is None else grad * row
        d_real = d_row = None
        if ctx.needs_input_grad[1]:
            d_real = (scaled * acc).sum_to_size(real.shape)
        if row is not None and ctx.needs_input_grad[2]:
            d_row = (grad * acc * real).sum_to_size(row.shape)
        return scaled * real, d_real, d_row, None, None


def requantize(acc: Tensor, real: Tensor, ratio: Tensor, limit: int, row: Tensor | None = None) -> Tensor:
    """``clamp(rhe(acc * ratio))``.

    Args:
        acc: accumulators with bias, |acc| < 2^24, or < 2^25 in float64
        real: the wanted ratio of scales, what the gradient is of, [N] or scalar; ``row`` real row factors [..., 1]
        ratio: float64, what the hardware has in place of ``real * row``
    """
    return _Requantize.apply(acc, real, row, ratio.to(acc.device), limit)


def weighted_sum(p: Tensor, v: Tensor) -> Tensor:
    """P.V, exact: in float64 where so many keys could reach 2^24, beyond which float32 has no odd numbers."""
    if 255 * 127 * p.shape[-1] < ops.ACCUMULATOR_LIMIT:
        return p @ v
    return p.double() @ v.double()


class _Replace(Function):
    @staticmethod
    def forward(ctx: Any, surrogate: Tensor, exact: Tensor, limit: int) -> Tensor:
        ctx.save_for_backward(exact)
        ctx.limit = limit
        return exact

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return _unless_saturated(grad, ctx.saved_tensors[0], ctx.limit), None, None


def _look_up(table: Tensor, index: Tensor) -> Tensor:
    """``table[index]``, by the fastest of torch's ways."""
    return table.index_select(0, index.view(-1)).view(index.shape)


_LARGEST = 2 ** (ops.ACTIVATION_BITS - 1) - 1
_SHIFTS = range(MAX_ACTIVATION_SHIFT + 1)


class _Lookup(Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, start: Tensor, values: Tensor, slopes: Tensor) -> Tensor:
        index = q.int() + start
        ctx.save_for_backward(index, slopes)
        return _look_up(values, index)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        index, slopes = ctx.saved_tensors
        return grad * _look_up(slopes, index), None, None, None


@functools.lru_cache(maxsize=64)
def _activation_tables(kind: str, unit: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Outputs and slopes of all inputs, for one shift after the other."""
    table = activation_scale_of(kind, unit).activation.table
    q = np.arange(-_LARGEST, _LARGEST + 1)
    with torch.inference_mode(False), torch.enable_grad():
        x = torch.from_numpy(q * unit).requires_grad_()
        (real,) = torch.autograd.grad(ACTIVATION_FUNCTIONS[kind](x).sum(), x)
    outputs = [torch.from_numpy(ops.activate(q, table, shift)) for shift in _SHIFTS]
    slopes = [torch.where(y < 127, real / 2**shift, 0.0) for shift, y in zip(_SHIFTS, outputs, strict=True)]
    return torch.cat(outputs).float().to(device), torch.cat(slopes).float().to(device)


def activate(q: Tensor, kind: str, unit: float, shift: Tensor) -> Tensor:
    """The activation function of 12-bit integers [..., N] in units of ``unit`` to int8 (section 4); shift: int [N]."""
    start = shift * (2 * _LARGEST + 1) + _LARGEST
    return _Lookup.apply(q, start, *_activation_tables(kind, unit, q.device))


def layer_norm(x: Tensor, gain: Tensor, bias: Tensor, eps: float, integer: IntegerLayerNorm, units: Tensor) -> Tensor:
    """LayerNorm of residual integers [..., D] to int8 (section 5).

    gain, bias: real, in units of the output's scale; eps: real, of the residual's real values; units: ``x`` as integers
    """
    surrogate = F.layer_norm(x, x.shape[-1:], gain, bias, eps)
    with torch.no_grad():
        exact = _integer_layer_norm(units.double(), integer).float()
    return _Replace.apply(surrogate, exact, 127)


def _integer_layer_norm(x: Tensor, layer: IntegerLayerNorm) -> Tensor:
    """In float64, where all of it is exact: the largest values are D*Q < 2^52, t*gamma + beta < 2^32, d*R < 2^42."""
    dim, c = x.shape[-1], layer.log2_dim
    total = x.sum(-1, keepdim=True)
    squares = x.square().sum(-1, keepdim=True)
    mean = torch.round(total * (layer.inv_dim * 2.0 ** -(c + 8)))
    variance = (dim * squares - total * total + layer.eps).clamp_(min=1)
    log2 = torch.frexp(variance).exponent - 1
    e = (51 - log2) >> 1
    u = (variance * _power_of_two(2 * e - 36)).long()  # truncates, as the shift does: variance is positive
    factor = _rsqrt(x.device)[u >> 6] * _power_of_two(e + c - 39)
    t = (x * 256.0).sub_(mean).mul_(factor).round_().clamp_(-32767, 32767)
    gamma, beta = (np.ldexp(v.astype(np.float64), -layer.shift) for v in (layer.gamma, layer.beta))
    gamma, beta = (torch.from_numpy(v).to(x.device) for v in (gamma, beta))
    return t.mul_(gamma).add_(beta).round_().clamp_(-127, 127)


@functools.lru_cache(maxsize=8)
def _probability_table(score_shift: int, device: torch.device) -> Tensor:
    """Probabilities of ``M - s`` = 0..4094, through the reference's own function."""
    scores = np.stack([np.zeros(4095, np.int64), -np.arange(4095)], 1)  # of two keys, the first has the maximum
    return torch.from_numpy(ops.softmax_probabilities(scores, score_shift)[0][:, 1]).float().to(device)


class _Softmax(Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, score_shift: int) -> tuple[Tensor, Tensor]:
        index = (scores.amax(-1, keepdim=True) - scores).int()
        p = _look_up(_probability_table(score_shift, scores.device), index)
        total = p.sum(-1, keepdim=True)  # at most 255 * tokens: exact
        ctx.save_for_backward(p, total)
        ctx.unit = LN_2 * 2.0**score_shift / 64
        ctx.mark_non_differentiable(total)
        return p, total

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        p, total = ctx.saved_tensors
        # With P = p / total and dP = grad * total: dS = P * (dP - sum(P * dP)), times the score's unit.
        weighted = p * grad
        return (weighted - p * (weighted.sum(-1, keepdim=True) / total)) * ctx.unit, None


def softmax(scores: Tensor, score_shift: int) -> tuple[Tensor, Tensor]:
    """uint8 probabilities of 12-bit scores [..., keys] and their sums [..., 1] (section 6).

    The gradient of a probability reaches the scores as that of ``p / sum``.
    """
    result: tuple[Tensor, Tensor] = _Softmax.apply(scores, score_shift)
    return result


def gate_scores(logits: Tensor, units: Tensor) -> Tensor:
    """Scores of the gate in units of 2^-15 (section 7), from base-2 logits [N, E] and their integers ``units``."""
    exact = torch.from_numpy(ops.gate_scores(units.detach().cpu().numpy().astype(np.int64))).float().to(units.device)
    surrogate = (logits * LN_2).softmax(-1) * float(ops.MAX_SCORE)
    return _Replace.apply(surrogate, exact, 2 * ops.MAX_SCORE)
