"""Brevitas quantizers of the accelerator's number formats: symmetric narrow integers, and pixels.

A scale is a number of the state dict, so a saved model carries its own. Weight scales are learned, as base-2 logarithms
(in power-of-two mode rounded to whole ones); activation scales stay what post-training quantization chose.
"""

from __future__ import annotations

from typing import Any

import torch
from brevitas.core.function_wrapper import TensorClampSte
from brevitas.core.utils import SingleArgStatelessBuffer
from brevitas.function.ops_ste import round_ste
from brevitas.inject import ExtendedInjector
from brevitas.inject.enum import RestrictValueType, ScalingImplType, ScalingPerOutputType
from brevitas.nn import QuantIdentity
from brevitas.quant.base import NarrowIntQuant, UintQuant
from brevitas.quant.scaled_int import Int32Bias
from brevitas.quant.solver import ActQuantSolver, WeightQuantSolver
from brevitas.quant_tensor import IntQuantTensor
from torch import Tensor

__all__ = ["Bias", "Quantizer", "Weight", "integers", "scale_parameter", "weight_options"]


class _ParameterScale(ExtendedInjector):
    """The scale itself is the parameter, not the range that it gives."""

    scaling_impl_type = ScalingImplType.PARAMETER
    scaling_init = torch.tensor(1.0)
    int_scaling_impl = SingleArgStatelessBuffer(1.0)


class Weight(NarrowIntQuant, _ParameterScale, WeightQuantSolver):
    """Narrow signed weights, a scale for each output channel; clipped weights keep their gradient."""

    bit_width = 8
    scaling_per_output_type = ScalingPerOutputType.CHANNEL
    restrict_scaling_type = RestrictValueType.LOG_FP
    tensor_clamp_impl = TensorClampSte


def weight_options(bits: int, power_of_two: bool) -> dict[str, Any]:
    """Keyword arguments of a Brevitas layer for its ``Weight``."""
    kind = RestrictValueType.POWER_OF_TWO if power_of_two else RestrictValueType.LOG_FP
    return {"weight_quant": Weight, "weight_bit_width": bits, "weight_restrict_scaling_type": kind}


class Bias(Int32Bias):
    """In units of the accumulator, at most 2^22 as in post-training quantization."""

    bit_width = 23
    narrow_range = True


class _Signed(NarrowIntQuant, _ParameterScale, ActQuantSolver):
    bit_width = 8
    scaling_per_output_type = ScalingPerOutputType.TENSOR
    restrict_scaling_type = RestrictValueType.FP


class _Pixels(UintQuant, _ParameterScale, ActQuantSolver):
    bit_width = 8
    scaling_per_output_type = ScalingPerOutputType.TENSOR
    restrict_scaling_type = RestrictValueType.FP


#: Flags as tensors, made once: there are hundreds of QuantTensors in a step.
_TRAINING = {flag: torch.tensor(flag) for flag in (False, True)}


class Quantizer(QuantIdentity):
    """An activation's format: ``bits``, and one scale that training leaves alone.

    Called with real values it rounds to nearest even and saturates (plain Brevitas); ``tensor`` wraps integers that
    were computed exactly.
    """

    def __init__(self, bits: int, signed: bool = True) -> None:
        super().__init__(_Signed if signed else _Pixels, return_quant_tensor=True, bit_width=bits)
        self.bits, self.signed = bits, signed
        self.scale.requires_grad_(False)
        # Brevitas makes its quantizers anew when a state dict is loaded.
        self.register_load_state_dict_post_hook(Quantizer._freeze)
        self._zero, self._bits, self._signed = torch.tensor(0.0), torch.tensor(float(bits)), torch.tensor(signed)

    def _freeze(self, _: Any) -> None:
        self.scale.requires_grad_(False)

    @property
    def scale(self) -> Tensor:
        """The scale, a scalar parameter."""
        return scale_parameter(self.act_quant.fused_activation_quant_proxy.tensor_quant)

    @property
    def limit(self) -> int:
        """The largest integer."""
        result: int = 2 ** (self.bits - 1) - 1 if self.signed else 2**self.bits - 1
        return result

    def tensor(self, values: Tensor) -> IntQuantTensor:
        """The QuantTensor of integer ``values``."""
        training = _TRAINING[self.training]
        return IntQuantTensor(values * self.scale, self.scale, self._zero, self._bits, self._signed, training)


def scale_parameter(tensor_quant: Any) -> Tensor:
    """Where Brevitas keeps a quantizer's scale (weights: its base-2 logarithm)."""
    return tensor_quant.scaling_impl.value


def integers(tensor: IntQuantTensor) -> Tensor:
    """The integers of a QuantTensor as floats, with a straight-through gradient; exact below 2^22."""
    return round_ste(tensor.value / tensor.scale)
