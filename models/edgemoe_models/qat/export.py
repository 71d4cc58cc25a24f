"""From the Brevitas model to the integer graph, bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from edgemoe_models.graph.integer_graph import (
    Activation,
    IntegerBlock,
    IntegerGraph,
    IntegerHead,
    IntegerLinear,
)
from edgemoe_models.ptq.activations import activation_scale_of
from edgemoe_models.qat.layers import Activated, Linear, scalar
from edgemoe_models.qat.model import MLP, Attention, Block, MoE, QuantM3ViT
from edgemoe_models.qat.quantizers import Quantizer, integers

__all__ = ["export"]

Scales = dict[str, npt.NDArray[np.float32]]


@torch.no_grad()
def export(model: QuantM3ViT) -> IntegerGraph:
    """The integer graph whose reference equals ``model`` on every tensor.

    Raises:
        GraphError: an accumulator could overflow (the learned weights have grown too large for 24 bits).
    """
    residual = _number(model.residual)
    scales: Scales = {"embed": np.float32(residual).reshape(())}
    graph = IntegerGraph(
        config=model.config.model,
        residual_scale=residual,
        pos_embed=integers(model.residual(model.pos_embed)).numpy().astype(np.int16),
        patch_embed=model.patch_embed.integer(model.pixels),
        blocks=tuple(_block(block, f"blocks.{i}", scales) for i, block in enumerate(model.blocks)),
        norm=model.norm.integer(residual),
        heads={name: _head(head, model.norm.output, f"heads.{name}", scales) for name, head in model.heads.items()},
        scales=scales | {"norm": _scale(model.norm.output)},
    )
    graph.bound_check()
    return graph


def _number(quantizer: Quantizer) -> float:
    return float(quantizer.scale)


def _scale(quantizer: Quantizer) -> npt.NDArray[np.float32]:
    return np.float32(_number(quantizer)).reshape(())


def _block(block: Block, name: str, scales: Scales) -> IntegerBlock:
    attn, residual = block.attn, _number(block.residual)
    scales |= {
        f"{name}.norm1": _scale(block.norm1.output),
        f"{name}.norm2": _scale(block.norm2.output),
        f"{name}.residual1": _scale(block.residual),
        f"{name}.residual2": _scale(block.residual),
        f"{name}.scores": _scale(attn.scores),
        f"{name}.context": _scale(attn.context),
    } | {f"{name}.{part}": _scale(getattr(attn, part).output) for part in "qkv"}
    common: dict[str, Any] = {
        "norm1": block.norm1.integer(residual),
        "qkv": _qkv(attn, block.norm1.output),
        "score": scalar(*attn.score_ratio()),
        "score_shift": attn.score_shift,
        "context": scalar(*attn.context_ratio()),
        "proj": attn.proj.integer(attn.context),
        "norm2": block.norm2.integer(residual),
    }
    x = block.norm2.output
    if isinstance(block.mlp, MoE):
        moe = block.mlp
        scales |= {f"{name}.experts.{e}.hidden": _scale(moe.hidden) for e in range(len(moe.fc1))}
        scales |= {f"{name}.gate_logits": _scale(next(iter(moe.gate.values())).output)}
        return IntegerBlock(
            **common,
            activation=_activation(moe.fc1[0]),
            gates={task: gate.integer(x) for task, gate in moe.gate.items()},
            expert_fc1=tuple(fc1.integer(x) for fc1 in moe.fc1),
            expert_fc2=tuple(fc2.integer(moe.hidden) for fc2 in moe.fc2),
        )
    fc1: Activated = block.mlp.fc1
    scales |= {f"{name}.hidden": _scale(fc1.output)}
    return IntegerBlock(
        **common,
        activation=_activation(fc1.linear),
        fc1=fc1.linear.integer(x),
        fc2=block.mlp.fc2.integer(fc1.output),
    )


def _activation(linear: Linear) -> Activation:
    return activation_scale_of(linear.kind, _number(linear.output)).activation


def _qkv(attn: Attention, x: Quantizer) -> IntegerLinear:
    parts = [part.integer(x) for part in (attn.q, attn.k, attn.v)]
    fields = ("weight", "bias", "multiplier", "shift")
    return IntegerLinear(*(np.concatenate([getattr(part, field) for part in parts]) for field in fields))


def _head(head: torch.nn.Module, x: Quantizer, name: str, scales: Scales) -> IntegerHead:
    if not isinstance(head, MLP):
        scales |= {name: _scale(head.output)}
        return IntegerHead(head.integer(x), _number(head.output))
    hidden = head.fc1.output
    scales |= {name: _scale(head.fc2.output), f"{name}.hidden": _scale(hidden)}
    out = head.fc2.integer(hidden)
    return IntegerHead(out, _number(head.fc2.output), head.fc1.linear.integer(x), _activation(head.fc1.linear))
