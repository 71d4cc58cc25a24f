"""Seeded random integer graphs for compiler and simulation tests: odd sizes, no float model needed."""

from __future__ import annotations

import dataclasses
from typing import Any

from edgemoe_models.config import ModelConfig, TaskConfig
from edgemoe_models.graph.integer_graph import INT4_MAX, IntegerGraph, IntegerLinear
from edgemoe_models.graph.random_graph import random_graph

__all__ = ["flat_attention", "random_graph", "small_model", "smallest_model", "with_int4"]


def smallest_model() -> ModelConfig:
    """5 tokens of 20 and two tasks, for what simulates slowly."""
    tasks = (TaskConfig("depth", "depth", channels=1, cells=2), TaskConfig("scene", "classification", channels=3))
    return small_model(
        image_height=8, image_width=8, dim=20, heads=2, mlp_hidden=17, num_experts=3, expert_hidden=9, tasks=tasks
    )


def small_model(name: str = "small", **changes: Any) -> ModelConfig:
    """A model of odd sizes that fits every preset: 13 tokens, dim 40, 2 blocks, 5 experts, 2 tasks."""
    tasks = (
        TaskConfig("segmentation", "segmentation", channels=5, head_hidden=20, cells=2),
        TaskConfig("classification", "classification", channels=11),
    )
    base = ModelConfig(
        name=name,
        image_height=12,
        image_width=16,
        patch=4,
        dim=40,
        depth=2,
        heads=2,
        mlp_hidden=72,
        num_experts=5,
        top_k=2,
        expert_hidden=36,
        tasks=tasks,
    )
    return dataclasses.replace(base, **changes)


def with_int4(graph: IntegerGraph, names: tuple[str, ...]) -> IntegerGraph:
    """The graph with 4-bit weights in some layers of blocks, ``blocks.{i}.{field}``; their outputs are as wide."""
    blocks = list(graph.blocks)
    for name in names:
        _, i, field = name.split(".")
        linear: IntegerLinear = getattr(blocks[int(i)], field)
        narrow = dataclasses.replace(
            linear,
            weight=linear.weight.clip(-INT4_MAX, INT4_MAX),
            shift=linear.shift - 2,
            bits=4,
        )
        blocks[int(i)] = dataclasses.replace(blocks[int(i)], **{field: narrow})
    return dataclasses.replace(graph, blocks=tuple(blocks))


def flat_attention(graph: IntegerGraph) -> IntegerGraph:
    """The graph with q = k = 0 in every block, so that all keys have the largest probability, and with every other
    channel of v at its limits: no sum of exponentials and no accumulator of P.V can be larger."""
    dim, blocks = graph.config.dim, []
    for block in graph.blocks:
        weight, bias = block.qkv.weight.copy(), block.qkv.bias.copy()
        weight[: 2 * dim], bias[: 2 * dim] = 0, 0
        bias[2 * dim :: 4], bias[2 * dim + 2 :: 4] = 1 << 22, -(1 << 22)
        blocks.append(dataclasses.replace(block, qkv=dataclasses.replace(block.qkv, weight=weight, bias=bias)))
    return dataclasses.replace(graph, blocks=tuple(blocks))
