"""Seeded random integer graphs of any shape, without a float model: tensors that neither vanish nor saturate."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from edgemoe_models.config import ModelConfig
from edgemoe_models.graph.integer_graph import (
    INT4_MAX,
    Activation,
    IntegerBlock,
    IntegerGraph,
    IntegerHead,
    IntegerLayerNorm,
    IntegerLinear,
    Requant,
)

__all__ = ["random_graph"]


def _linear(rng: np.random.Generator, outputs: int, inputs: int, reach: int, largest: int = 40) -> IntegerLinear:
    """Weights up to ``largest``, outputs spread over about ``reach`` / 3; up to 7 they have 4 bits."""
    shift = 15 + max(math.ceil(math.log2(largest * math.sqrt(inputs) * 90 / reach)), 0)
    return IntegerLinear(
        rng.integers(-largest, largest + 1, (outputs, inputs)).astype(np.int8),
        rng.integers(-500, 500, outputs).astype(np.int32),
        rng.integers(20000, 50000, outputs).astype(np.uint16),
        np.full(outputs, shift, np.uint8),
        bits=4 if largest <= INT4_MAX else 8,
    )


def _norm(rng: np.random.Generator, dim: int) -> IntegerLayerNorm:
    gamma, beta = rng.integers(200, 1200, dim).astype(np.int16), rng.integers(-9000, 9000, dim).astype(np.int32)
    return IntegerLayerNorm(gamma, beta, 13, 1000)


def _activation(rng: np.random.Generator) -> Activation:
    return Activation(rng.integers(0, 60, 512).astype(np.uint8))


def _activated(rng: np.random.Generator, outputs: int, inputs: int, largest: int = 40) -> IntegerLinear:
    """A layer in front of an activation function."""
    linear = _linear(rng, outputs, inputs, 1500, largest)
    return dataclasses.replace(linear, activation_shift=rng.integers(0, 4, outputs).astype(np.uint8))


def _block(rng: np.random.Generator, model: ModelConfig, index: int, expert_bits: int) -> IntegerBlock:
    dim = model.dim
    block = IntegerBlock(
        norm1=_norm(rng, dim),
        qkv=_linear(rng, 3 * dim, dim, 127),
        score=Requant(30000, 22),
        score_shift=1,
        context=Requant(33000, 15),
        proj=_linear(rng, dim, dim, 3000),
        norm2=_norm(rng, dim),
        activation=_activation(rng),
    )
    if not model.is_moe(index):
        return dataclasses.replace(
            block, fc1=_activated(rng, model.mlp_hidden, dim), fc2=_linear(rng, dim, model.mlp_hidden, 3000)
        )
    experts, hidden, largest = range(model.num_experts), model.expert_hidden, 7 if expert_bits == 4 else 40
    return dataclasses.replace(
        block,
        gates={task.name: _linear(rng, model.num_experts, dim, 4000) for task in model.tasks},
        expert_fc1=tuple(_activated(rng, hidden, dim, largest) for _ in experts),
        expert_fc2=tuple(_linear(rng, dim, hidden, 3000, largest) for _ in experts),
    )


def random_graph(model: ModelConfig, seed: int = 0, expert_bits: int = 8) -> IntegerGraph:
    """An integer graph whose tensors neither vanish nor saturate everywhere."""
    rng = np.random.default_rng(seed)
    heads = {}
    for task in model.tasks:
        width = task.head_hidden or model.dim
        out = _linear(rng, task.head_outputs, width, 8000)
        first = (_activated(rng, width, model.dim), _activation(rng)) if task.head_hidden else (None, None)
        heads[task.name] = IntegerHead(out, 0.01, *first)
    position = rng.integers(-3000, 3000, (model.num_tokens, model.dim)).astype(np.int16)
    return IntegerGraph(
        model,
        0.01,
        position,
        _linear(rng, model.dim, model.patch_inputs, 3000),
        tuple(_block(rng, model, i, expert_bits) for i in range(model.depth)),
        _norm(rng, model.dim),
        heads,
    )
