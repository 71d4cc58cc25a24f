"""Brevitas layers that compute what the accelerator computes. Between them go ``QuantTensor``s with one scale each."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from brevitas.nn import QuantLinear
from brevitas.quant_tensor import IntQuantTensor
from torch import Tensor, nn

from edgemoe_models.graph import IntegerLayerNorm, IntegerLinear, Requant
from edgemoe_models.integer.ops import MAX_SCORE
from edgemoe_models.qat import functions
from edgemoe_models.qat.quantizers import Bias, Quantizer, integers, weight_options
from edgemoe_models.quantize_search import InputScale, fixed_point, make_gelu, make_norm

__all__ = ["Gelu", "LayerNorm", "Linear", "fixed_ratio"]


def fixed_ratio(*factors: Tensor | float, divisor: Tensor) -> tuple[Any, Any]:
    """Multiplier and shift of a ratio of scales, as the quantizer computes them."""
    ratio: Any = 1.0
    for factor in factors:
        ratio = ratio * np.asarray(factor.detach().numpy() if isinstance(factor, Tensor) else factor, np.float64)
    return fixed_point(ratio / divisor.double().numpy())


class Linear(QuantLinear):
    """``requantize(x @ weight + bias)`` (docs/numerics.md, section 2) with the learned weight scales of Brevitas.

    ``QuantLinear.forward`` is the same layer in plain Brevitas arithmetic: real products of dequantized floats,
    rounded by ``output_quant``. It differs by the rounding of float32 and of the multiplier.

    Parameters
    ----------
    bits: of the outputs; their scale is that of ``self.output``
    weight_bits: 8 or 4
    power_of_two: restrict the weight scales to powers of two
    """

    def __init__(self, inputs: int, outputs: int, bits: int, weight_bits: int, power_of_two: bool) -> None:
        options = weight_options(weight_bits, power_of_two)
        super().__init__(inputs, outputs, bias=True, bias_quant=Bias, return_quant_tensor=True, **options)
        self.output = Quantizer(bits)

    def forward(self, x: IntQuantTensor, row: Tensor | None = None) -> IntQuantTensor:
        """Rows [..., K] -> [..., N]; ``row`` [..., 1] holds real row factors (gate scores), multiples of 2^-15."""
        weight = self.quant_weight()
        bias = self.bias_quant(self.bias, x, weight)
        acc = nn.functional.linear(integers(x), integers(weight), integers(bias))
        weight_scale = weight.scale.view(-1)
        multiplier, shift = fixed_ratio(x.scale, weight_scale, divisor=self.output.scale)
        if row is None:
            ratio = functions.multiplier_ratio(multiplier, shift)
        else:
            ratio = functions.row_ratio(multiplier, shift, (row.detach() * MAX_SCORE).double())
        real = weight_scale * (x.scale / self.output.scale)
        return self.output.tensor(functions.requantize(acc, real, ratio, self.output.limit, row))

    def plain(self, x: IntQuantTensor) -> IntQuantTensor:
        """The layer in Brevitas' own arithmetic."""
        return self.output(super().forward(x))

    @torch.no_grad()
    def integer(self, x: Quantizer) -> IntegerLinear:
        """As the graph holds it, for inputs of the format ``x``."""
        weight = self.quant_weight()
        bias = self.bias_quant(self.bias, x.tensor(torch.zeros(1, self.in_features)), weight)
        multiplier, shift = fixed_ratio(x.scale, weight.scale.view(-1), divisor=self.output.scale)
        return IntegerLinear(
            integers(weight).numpy().astype(np.int8), integers(bias).numpy().astype(np.int32), multiplier, shift
        )


class LayerNorm(nn.Module):
    """LayerNorm of the residual stream to int8 (section 5): ``weight`` and ``bias`` real, [D]."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(dim)), nn.Parameter(torch.zeros(dim))
        self.eps = eps
        self.output = Quantizer(8)

    def forward(self, x: IntQuantTensor) -> IntQuantTensor:
        scale = self.output.scale
        layer = self.integer(float(x.scale))
        units = integers(x.detach())
        y = functions.layer_norm(x.value, self.weight / scale, self.bias / scale, self.eps, layer, units)
        return self.output.tensor(y)

    def integer(self, residual_scale: float) -> IntegerLayerNorm:
        """As the graph holds it."""
        weight, bias = (p.detach().double().numpy() for p in (self.weight, self.bias))
        zeros = np.zeros(len(weight))
        outputs = InputScale(zeros, np.full(len(weight), float(self.output.scale)), zeros)
        return make_norm(weight, bias, outputs, residual_scale, self.eps)


class Gelu(nn.Module):
    """A linear layer with GELU, to int8 (section 4). Its 11-bit scale follows from that of the output."""

    def __init__(self, linear: Linear) -> None:
        super().__init__()
        self.linear = linear
        self.output = Quantizer(8)

    def forward(self, x: IntQuantTensor) -> IntQuantTensor:
        return self.output.tensor(functions.gelu(integers(self.linear(x)), float(self.output.scale)))


def scalar(multiplier: Any, shift: Any) -> Requant:
    """One multiplier and shift for all channels."""
    return Requant(int(multiplier), int(shift))
