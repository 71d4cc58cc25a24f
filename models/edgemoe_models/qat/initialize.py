"""Where training starts: the post-training quantized graph, with the float weights as the latent ones.

Equalization (per-channel ranges and means that moved between layers, ``edgemoe_models.ptq.quantizer``) is put
into the latent parameters, so one scale a tensor is enough.
Latent weights are the float ones, moved where needed into the
interval that rounds to the graph's integer: the fresh model equals the graph.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from edgemoe_models.arithmetic.tables import norm_constants
from edgemoe_models.checkpoint import check_state
from edgemoe_models.config import ModelConfig
from edgemoe_models.float_reference import PIXEL_SCALE
from edgemoe_models.graph.integer_graph import (
    IntegerBlock,
    IntegerGraph,
    IntegerLayerNorm,
    IntegerLinear,
)
from edgemoe_models.ptq.layers import weight_limit
from edgemoe_models.ptq.quantize import QuantizeOptions, quantize
from edgemoe_models.qat.layers import LayerNorm, Linear
from edgemoe_models.qat.model import (
    GATE_UNIT,
    MLP,
    SCORE_UNIT,
    Attention,
    Block,
    MoE,
    QatConfig,
    QuantM3ViT,
)
from edgemoe_models.qat.quantizers import Quantizer, scale_parameter

__all__ = ["from_float", "from_graph"]

Floats = npt.NDArray[Any]
#: How near to the edge of its rounding interval a latent weight may start, in units of its scale.
_INSIDE = 0.49


def from_float(
    state: Mapping[str, Floats],
    config: ModelConfig,
    images: npt.NDArray[np.uint8],
    expert_bits: int = 8,
    power_of_two: bool = False,
) -> QuantM3ViT:
    """Quantize a float state dict, calibrated on ``images``, and make the model that trains on from there.

    Raises:
        QuantizeError: weights or images do not fit the model, or are not finite.
    """
    options = QuantizeOptions(expert_bits=expert_bits, power_of_two=power_of_two)
    result: QuantM3ViT = from_graph(check_state(state, config), quantize(state, config, images, options), power_of_two)
    return result


@torch.no_grad()
def from_graph(state: Mapping[str, Floats], graph: IntegerGraph, power_of_two: bool) -> QuantM3ViT:
    """The model that equals ``graph``, which ``state`` was quantized to."""
    shifts = tuple(block.score_shift for block in graph.blocks)
    model = QuantM3ViT(QatConfig(graph.config, graph.expert_bits, power_of_two, shifts))
    return _Initializer(model, state, graph).model


class _Initializer:
    """Fills ``model``. A unit is the real value of one integer step in the float model, per channel; a scale the
    model's own."""

    def __init__(self, model: QuantM3ViT, state: Mapping[str, Floats], graph: IntegerGraph) -> None:
        self.model, self.state, self.graph = model, state, graph
        _set(model.residual, graph.residual_scale)
        model.pos_embed.copy_(_tensor(graph.pos_embed * graph.residual_scale))
        weight, pixels = self.layer("patch_embed"), np.asarray(PIXEL_SCALE)
        self.linear(model.patch_embed, graph.patch_embed, weight, pixels, model.pixels, self.residual)
        for i, (block, integer) in enumerate(zip(model.blocks, graph.blocks, strict=True)):
            self.block(block, integer, f"blocks.{i}")
        self.norm(model.norm, graph.norm, "norm")
        for task in graph.config.tasks:
            self.head(task.name)

    @property
    def residual(self) -> Floats:
        return np.asarray(self.graph.residual_scale)

    def layer(self, name: str) -> Floats:
        """The weight of a layer of the state dict (biases are taken from the graph, which corrected them)."""
        return self.state[f"{name}.weight"].astype(np.float64)

    def units(self, trace: str) -> Floats:
        return self.graph.scales[trace].astype(np.float64)

    def centre(self, *traces: str) -> float:
        """One scale in the middle of some traces' units, a power of two if all must be."""
        log2 = float(np.mean([np.log2(self.units(trace)).mean() for trace in traces]))
        return 2.0 ** (round(log2) if self.model.config.power_of_two else log2)

    def linear(
        self, layer: Linear, integer: IntegerLinear, weight: Floats, units: Floats, x: Quantizer, out_units: Floats
    ) -> None:
        """One layer. weight: real; units, out_units: of its inputs and outputs, in the float model."""
        if layer.output.bits == 16 and out_units.ndim == 0:
            _set(layer.output, float(out_units))
        ratio = np.ldexp(integer.multiplier.astype(np.float64), -integer.shift.astype(np.int64))
        scale = ratio * (float(layer.output.scale) / float(x.scale))
        limit = weight_limit(int(layer.weight_quant.bit_width()))
        latent = weight * units / (ratio * out_units)[:, None]  # in units of ``scale``
        low = np.where(integer.weight == -limit, -np.inf, integer.weight - _INSIDE)
        high = np.where(integer.weight == limit, np.inf, integer.weight + _INSIDE)
        layer.weight.copy_(_tensor(np.clip(latent, low, high) * scale[:, None]))
        layer.bias.copy_(_tensor(integer.bias * scale * float(x.scale)))
        scale_parameter(layer.weight_quant.tensor_quant).copy_(_tensor(np.log2(scale)[:, None]))

    def norm(self, layer: LayerNorm, integer: IntegerLayerNorm, trace: str) -> None:
        _set(layer.output, self.centre(trace))
        dim, scale = len(integer.gamma), float(layer.output.scale) * 2.0**-integer.shift
        layer.weight.copy_(_tensor(integer.gamma * scale * 2.0 ** (norm_constants(dim)[0] + 10) / dim))
        layer.bias.copy_(_tensor(integer.beta * scale))

    def block(self, block: Block, integer: IntegerBlock, name: str) -> None:
        self.norm(block.norm1, integer.norm1, f"{name}.norm1")
        self.attention(block.attn, integer, name, block.norm1.output)
        self.norm(block.norm2, integer.norm2, f"{name}.norm2")
        x = self.units(f"{name}.norm2"), block.norm2.output
        if isinstance(block.mlp, MoE):
            self.experts(block.mlp, integer, name, *x)
        else:
            assert integer.fc1 is not None and integer.fc2 is not None
            self.mlp(block.mlp, integer.fc1, integer.fc2, f"{name}.mlp", f"{name}.hidden", *x, self.residual)

    def attention(self, attn: Attention, integer: IntegerBlock, name: str, x: Quantizer) -> None:
        unit = 2.0**integer.score_shift / SCORE_UNIT
        s_q, s_v = self.centre(f"{name}.q"), self.centre(f"{name}.v")
        _set(attn.scores, unit)
        _set(attn.q.output, s_q)
        _set(attn.k.output, unit * integer.score.multiplier / 2.0**integer.score.shift / s_q)
        _set(attn.v.output, s_v)
        _set(attn.context, s_v / (integer.context.multiplier / 2.0**integer.context.shift))
        weight = self.layer(f"{name}.attn.qkv")
        for part, layer in enumerate((attn.q, attn.k, attn.v)):
            rows = slice(part * len(weight) // 3, (part + 1) * len(weight) // 3)
            one = IntegerLinear(
                integer.qkv.weight[rows], integer.qkv.bias[rows], integer.qkv.multiplier[rows], integer.qkv.shift[rows]
            )
            self.linear(layer, one, weight[rows], self.units(f"{name}.norm1"), x, self.units(f"{name}.{'qkv'[part]}"))
        context = self.units(f"{name}.context")
        self.linear(attn.proj, integer.proj, self.layer(f"{name}.attn.proj"), context, attn.context, self.residual)

    def mlp(
        self,
        mlp: MLP,
        fc1: IntegerLinear,
        fc2: IntegerLinear,
        name: str,
        hidden: str,
        units: Floats,
        x: Quantizer,
        out_units: Floats,
    ) -> None:
        _set(mlp.fc1.output, self.centre(hidden))
        self.activated(mlp.fc1.linear, fc1, self.layer(f"{name}.fc1"), units, x, hidden)
        self.linear(mlp.fc2, fc2, self.layer(f"{name}.fc2"), self.units(hidden), mlp.fc1.output, out_units)

    def activated(
        self, layer: Linear, integer: IntegerLinear, weight: Floats, units: Floats, x: Quantizer, trace: str
    ) -> None:
        """A layer with its activation function, whose outputs are ``trace``."""
        shift = integer.activation_shift
        assert shift is not None and layer.activation_shift is not None
        unit = float(np.ldexp(self.units(trace)[0], -int(shift[0])))
        _set(layer.output, unit)
        layer.activation_shift.copy_(torch.from_numpy(shift))
        self.linear(layer, integer, weight, units, x, np.asarray(unit))

    def experts(self, moe: MoE, integer: IntegerBlock, name: str, units: Floats, x: Quantizer) -> None:
        traces = [f"{name}.experts.{e}.hidden" for e in range(len(integer.expert_fc1))]
        _set(moe.hidden, self.centre(*traces))
        for task, gate in moe.gate.items():
            _set(gate.output, 1 / GATE_UNIT)
            weight = self.state[f"{name}.moe.gate.{task}"].astype(np.float64)
            out_units = np.full(len(weight), self.units(f"{name}.gate_logits"))
            self.linear(gate, integer.gates[task], weight - weight.mean(0), units, x, out_units)
        for e, (fc1, fc2) in enumerate(zip(moe.fc1, moe.fc2, strict=True)):
            w1, w2 = (self.state[f"{name}.moe.{part}"][e].astype(np.float64) for part in ("w1", "w2"))
            self.activated(fc1, integer.expert_fc1[e], w1, units, x, traces[e])
            self.linear(fc2, integer.expert_fc2[e], w2, self.units(traces[e]), moe.hidden, self.residual)

    def head(self, task: str) -> None:
        name, integer, layer = f"heads.{task}", self.graph.heads[task], self.model.heads[task]
        units, x, out_units = self.units("norm"), self.model.norm.output, np.asarray(integer.output_scale)
        if isinstance(layer, MLP):
            assert integer.fc1 is not None
            self.mlp(layer, integer.fc1, integer.out, name, f"{name}.hidden", units, x, out_units)
        else:
            self.linear(layer, integer.out, self.layer(name), units, x, out_units)


def _set(quantizer: Quantizer, scale: float) -> None:
    quantizer.scale.fill_(scale)


def _tensor(values: Floats) -> torch.Tensor:
    return torch.from_numpy(np.asarray(values)).float()
