"""An integer graph of a shape, of zeros: what the compiler's schedule needs, without weights or quantization."""

from __future__ import annotations

import dataclasses

import numpy as np

from edgemoe_hw.spec import constants
from edgemoe_models.config import ModelConfig
from edgemoe_models.graph.integer_graph import (
    Activation,
    IntegerBlock,
    IntegerGraph,
    IntegerHead,
    IntegerLayerNorm,
    IntegerLinear,
    Requant,
)

__all__ = ["graph_of_zeros"]


def graph_of_zeros(model: ModelConfig, expert_bits: int) -> IntegerGraph:
    """A graph of this shape; nothing is known of its experts, so the compiler takes a balanced gate's.

    Args:
        model: the shape
        expert_bits: 8 or 4, of the experts' weights
    """
    dim = model.dim
    heads = {}
    for number, task in enumerate(model.tasks):
        hidden = (_linear(task.head_hidden, dim), _table(model.depth + number)) if task.head_hidden else (None, None)
        heads[task.name] = IntegerHead(_linear(task.head_outputs, task.head_hidden or dim), 1.0, *hidden)
    blocks = tuple(_block(model, index, expert_bits) for index in range(model.depth))
    tokens = np.zeros((model.num_tokens, dim), np.int16)
    return IntegerGraph(model, 1.0, tokens, _linear(dim, model.patch_inputs), blocks, _norm(dim), heads)


def _linear(outputs: int, inputs: int, bits: int = 8) -> IntegerLinear:
    weight = np.broadcast_to(np.int8(0), (outputs, inputs))
    multiplier, shift = np.zeros(outputs, np.uint16), np.zeros(outputs, np.uint8)
    return IntegerLinear(weight, np.zeros(outputs, np.int32), multiplier, shift, bits=bits)


def _norm(dim: int) -> IntegerLayerNorm:
    return IntegerLayerNorm(np.zeros(dim, np.int16), np.zeros(dim, np.int32), 0, 0)


def _table(number: int) -> Activation:
    """One that no other is equal to: equal tables are loaded once."""
    entries = np.zeros(constants.ACTIVATION_ENTRIES, np.uint8)
    entries[:2] = number % 256, number // 256
    return Activation(entries)


def _block(model: ModelConfig, index: int, expert_bits: int) -> IntegerBlock:
    dim, pair = model.dim, Requant(1, 0)
    attention = (_linear(3 * dim, dim), pair, 0, pair, _linear(dim, dim))
    block = IntegerBlock(_norm(dim), *attention, _norm(dim), _table(index))
    if not model.is_moe(index):
        hidden = model.mlp_hidden
        return dataclasses.replace(block, fc1=_linear(hidden, dim), fc2=_linear(dim, hidden))
    hidden, experts = model.expert_hidden, range(model.num_experts)
    return dataclasses.replace(
        block,
        gates={task.name: _linear(model.num_experts, dim) for task in model.tasks},
        expert_fc1=tuple(_linear(hidden, dim, expert_bits) for _ in experts),
        expert_fc2=tuple(_linear(dim, hidden, expert_bits) for _ in experts),
    )
