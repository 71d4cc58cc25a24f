"""The integer reference with other papers' softmax, GELU and LayerNorm, for comparisons only. NumPy only."""

from __future__ import annotations

import math
from collections.abc import Callable

from edgemoe_models.arithmetic.tables import Ints
from edgemoe_models.graph.integer_graph import (
    Activation,
    IntegerBlock,
    IntegerGraph,
    IntegerLayerNorm,
    IntegerLinear,
)
from edgemoe_models.integer.reference import Functions, Trace
from edgemoe_models.ptq.activations import activation_scales
from edgemoe_models.studies.published import Quantized, fq_vit, i_vit, repq_vit, to_int8

#: One unit of a score with ``score_shift`` 0, in natural logarithms.
_SCORE_UNIT = math.log(2) / 64
#: Units of the integer LayerNorm's normalised value to one deviation.
_NORM_UNITS = 1024

Published = Callable[[Ints, float], Quantized]


def attend_with(softmax: Published) -> Callable[[Ints, Ints, IntegerBlock], tuple[Ints, Trace]]:
    """Attention with a softmax whose probabilities are multiplied with v, then requantized by the exact ratio."""

    def attend(scores: Ints, v: Ints, block: IntegerBlock) -> tuple[Ints, Trace]:
        probabilities, unit = softmax(scores, _SCORE_UNIT * 2.0**block.score_shift)
        ratio = block.context.multiplier / 2.0**block.context.shift
        return to_int8((probabilities @ v, unit), 1 / ratio), {"probabilities": probabilities}

    return attend


def gelu_with(gelu: Published, graph: IntegerGraph) -> Callable[[Ints, Activation, IntegerLinear], Ints]:
    """A GELU from the graph's 12-bit inputs to its int8 outputs, whose scales the graph knows."""
    layers = (layer for _, _, layer in graph.activated())
    scales = {id(layer): scale for layer, scale in zip(layers, activation_scales(graph), strict=True)}

    def activate(q: Ints, activation: Activation, layer: IntegerLinear) -> Ints:
        if not len(q):
            return q
        _, scale, shift = scales[id(layer)]
        values, unit = gelu(q, scale.unit)
        return to_int8((values * unit - scale.centre(shift), 1.0), scale.step(shift))

    return activate


def norm_with(layer_norm: Callable[[Ints], Quantized]) -> Callable[[Ints, IntegerLayerNorm], Ints]:
    """A LayerNorm followed by the graph's gains and biases."""

    def norm(x: Ints, layer: IntegerLayerNorm) -> Ints:
        normalised, unit = layer_norm(x)
        unit *= _NORM_UNITS * 2.0**layer.log2_dim / x.shape[-1]
        gained = normalised * unit * layer.gamma.astype(float) + layer.beta
        return to_int8((gained, 1.0), 2.0**layer.shift)

    return norm


def i_vit_functions(graph: IntegerGraph) -> Functions:
    """Shiftmax, ShiftGELU and I-LayerNorm (Li and Gu, ICCV 2023); other activations than GELU stay ours."""
    is_gelu = graph.config.activation == "gelu"
    activate = gelu_with(i_vit.gelu, graph) if is_gelu else Functions().activate
    return Functions(attend_with(i_vit.softmax), activate, norm_with(i_vit.layer_norm))


def fq_vit_functions(graph: IntegerGraph) -> Functions:
    """Attention in 4-bit base-2 logarithms (Lin et al., IJCAI 2022), all else as the accelerator computes it."""
    return Functions(attend=attend_with(fq_vit.softmax))


def repq_vit_functions(graph: IntegerGraph) -> Functions:
    """Attention in 4-bit logarithms to the base sqrt(2) (Li et al., ICCV 2023), all else as the accelerator does."""
    return Functions(attend=attend_with(repq_vit.softmax))
