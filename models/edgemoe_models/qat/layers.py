"""Brevitas layers that compute what the accelerator computes. Between them go ``QuantTensor``s with one scale each."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from brevitas.nn import QuantLinear
from brevitas.quant_tensor import IntQuantTensor
from torch import Tensor, nn

from edgemoe_models.arithmetic.ops import ACTIVATION_BITS, MAX_SCORE
from edgemoe_models.graph.integer_graph import IntegerLayerNorm, IntegerLinear, Requant
from edgemoe_models.ptq.layers import InputScale, fixed_point, make_norm
from edgemoe_models.qat import functions
from edgemoe_models.qat.quantizers import Bias, Quantizer, integers, weight_options

__all__ = ["Activated", "LayerNorm", "Linear", "fixed_ratio", "scalar", "shared_weights"]


def fixed_ratio(*factors: Tensor, divisor: Tensor) -> tuple[Any, Any]:
    """Multiplier and shift of a ratio of scales, as the quantizer computes them."""
    ratio = divisor.detach().double().reciprocal()
    for factor in factors:
        ratio = ratio * factor.detach().double()
    return fixed_point(ratio.cpu().numpy())  # a GPU is waited for once


class Quantized(NamedTuple):
    """A linear layer's integers as floats, weight [N, K] and bias [N], its weights' scale [N], multiplier and shift."""

    weight: Tensor
    bias: Tensor
    scale: Tensor
    multiplier: Any
    shift: Any


class Linear(QuantLinear):
    """``requantize(x @ weight + bias)`` (docs/numerics.md, section 2) with the learned weight scales of Brevitas.

    ``QuantLinear.forward`` is the same layer in plain Brevitas arithmetic: real products of dequantized floats,
    rounded by ``output_quant``. It differs by the rounding of float32 and of the multiplier.

    Args:
        bits: of the outputs; their scale is that of ``self.output``
        weight_bits: 8 or 4
        power_of_two: restrict the weight scales to powers of two
        kind: the activation function behind outputs of 12 bits (``ModelConfig.activation``)

    Of 12 bits are the inputs of an activation function; ``activation_shift`` has its shift of each channel.
    """

    def __init__(
        self, inputs: int, outputs: int, bits: int, weight_bits: int, power_of_two: bool, kind: str = "gelu"
    ) -> None:
        options = weight_options(weight_bits, power_of_two)
        super().__init__(inputs, outputs, bias=True, bias_quant=Bias, return_quant_tensor=True, **options)
        self.output, self.kind = Quantizer(bits), kind
        shift = torch.zeros(outputs, dtype=torch.int32) if bits == ACTIVATION_BITS else None
        self.register_buffer("activation_shift", shift)
        self.share = False
        self._shared: tuple[Quantized, Quantized] | None = None

    def quantized(self, x: IntQuantTensor) -> Quantized:
        """The layer's integers for inputs of the scale of ``x``."""
        weight = self.quant_weight()
        bias = self.bias_quant(self.bias, x, weight)
        scale = weight.scale.view(-1)
        multiplier, shift = fixed_ratio(x.scale, scale, divisor=self.output.scale)
        return Quantized(integers(weight), integers(bias), scale, multiplier, shift)

    def forward(self, x: IntQuantTensor, row: Tensor | None = None) -> IntQuantTensor:
        """Rows [..., K] -> [..., N]; ``row`` [..., 1] holds real row factors (gate scores), multiples of 2^-15."""
        layer = self._once(x) if self.share else self.quantized(x)
        acc = nn.functional.linear(integers(x), layer.weight, layer.bias)
        if row is None:
            ratio = functions.multiplier_ratio(layer.multiplier, layer.shift)
        else:
            ratio = functions.row_ratio(layer.multiplier, layer.shift, (row.detach() * MAX_SCORE).double())
        real = layer.scale * (x.scale / self.output.scale)
        return self.output.tensor(functions.requantize(acc, real, ratio, self.output.limit, row))

    def activate(self, x: IntQuantTensor, row: Tensor | None = None) -> Tensor:
        """Rows [..., K] -> int8 integers [..., N] behind the activation function."""
        unit = float(self.output.scale)
        return functions.activate(integers(self(x, row)), self.kind, unit, self.activation_shift)

    def _once(self, x: IntQuantTensor) -> Quantized:
        """``quantized``, computed once until ``gradients`` is called; its tensors are leaves of the graph."""
        if self._shared is None:
            source = self.quantized(x)
            weight, bias, scale = (tensor.detach().requires_grad_() for tensor in source[:3])
            self._shared = source, Quantized(weight, bias, scale, source.multiplier, source.shift)
        return self._shared[1]

    def gradients(self) -> list[tuple[Tensor, Tensor]]:
        """What the shared tensors have gathered: ``(tensor, gradient)`` to go on from; the next step starts anew."""
        pairs = zip(*(part[:3] for part in self._shared), strict=True) if self._shared else ()
        self._shared = None
        return [(source, leaf.grad) for source, leaf in pairs if leaf.grad is not None]

    def plain(self, x: IntQuantTensor) -> IntQuantTensor:
        """The layer in Brevitas' own arithmetic."""
        return self.output(super().forward(x))

    @torch.no_grad()
    def integer(self, x: Quantizer) -> IntegerLinear:
        """As the graph holds it, for inputs of the format ``x``."""
        layer = self.quantized(x.tensor(torch.zeros(1, self.in_features)))
        weight, bias = layer.weight.numpy().astype(np.int8), layer.bias.numpy().astype(np.int32)
        after = None if self.activation_shift is None else self.activation_shift.numpy().astype(np.uint8)
        bits = int(self.weight_quant.bit_width())
        return IntegerLinear(weight, bias, layer.multiplier, layer.shift, after, bits)


@contextlib.contextmanager
def shared_weights(model: nn.Module) -> Iterator[None]:
    """Quantize each layer's weights once for all the forwards and backwards inside, and end with their gradients."""
    layers = [module for module in model.modules() if isinstance(module, Linear)]
    for layer in layers:
        layer.share = True
    try:
        yield
    finally:
        pairs = [pair for layer in layers for pair in layer.gradients()]
        for layer in layers:
            layer.share = False
    if pairs:
        torch.autograd.backward(*zip(*pairs, strict=True))


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
        weight, bias = (p.detach().double().cpu().numpy() for p in (self.weight, self.bias))
        zeros = np.zeros(len(weight))
        outputs = InputScale(zeros, np.full(len(weight), float(self.output.scale)), zeros)
        return make_norm(weight, bias, outputs, residual_scale, self.eps)


class Activated(nn.Module):
    """A linear layer with its activation function, to int8 (section 4).

    What an output stands for is ``output``'s scale times it, of a layer behind it whose weights and bias have taken up
    each channel's shift and the offset.
    """

    def __init__(self, linear: Linear) -> None:
        super().__init__()
        self.linear = linear
        self.output = Quantizer(8)

    def forward(self, x: IntQuantTensor) -> IntQuantTensor:
        return self.output.tensor(self.linear.activate(x))


def scalar(multiplier: Any, shift: Any) -> Requant:
    """One multiplier and shift for all channels."""
    return Requant(int(multiplier), int(shift))
