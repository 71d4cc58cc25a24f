"""Random integer graphs whose gates spread tokens evenly over the experts, for measurements of cycles on the RTL."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from edgemoe_models.config import ModelConfig
from edgemoe_models.graph.integer_graph import IntegerGraph, IntegerLinear
from edgemoe_models.graph.random_graph import random_graph
from edgemoe_models.integer import reference

__all__ = ["balanced_graph", "even_offsets", "random_pictures"]

_STEPS = 300
_FIRST_STEP = 0.3  # of the logits' deviation


def random_pictures(model: ModelConfig, count: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Noise, uint8 [count, H, W, 3]: values hardly change cycles, only the use of experts does."""
    size = count, model.image_height, model.image_width, 3
    return np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)


def even_offsets(logits: npt.NDArray[np.int64], top_k: int) -> npt.NDArray[np.int64]:
    """What to add to each expert's logits [tokens, experts] so that ``top_k`` of them load all experts nearly alike.

    An expert that has too many tokens is made dearer, one that has too few cheaper, in steps that become smaller; the
    best offsets on the way are taken.
    """
    tokens, experts = logits.shape
    share, deviation = tokens * top_k / experts, float(logits.std())
    offsets, best, least = np.zeros(experts), np.zeros(experts), np.inf
    for number in range(_STEPS):
        chosen = np.argsort(-(logits + offsets), axis=1, kind="stable")[:, :top_k]
        load = np.bincount(chosen.ravel(), minlength=experts)
        if (unevenness := float(np.abs(load - share).max())) < least:
            best, least = offsets.copy(), unevenness
        offsets -= _FIRST_STEP * deviation / (1 + number / 20) * np.clip(load / share - 1, -1, 1)
    return np.rint(best).astype(np.int64)


def balanced_graph(
    model: ModelConfig, pictures: npt.NDArray[np.uint8], expert_bits: int = 8, seed: int = 0
) -> IntegerGraph:
    """A random graph whose gates' biases are such that these pictures' tokens load all experts of a block nearly alike.

    The cycle model assumes that, and trained gates have a balance loss for it. Block by block, because a gate's tokens
    depend on the experts before it.
    """
    graph = random_graph(model, seed, expert_bits)
    for number in (number for number in range(model.depth) if model.is_moe(number)):
        gates = {}
        for task, gate in graph.blocks[number].gates.items():
            trace: dict[str, Any] = {}
            reference.run_batch(graph, pictures, task, trace)
            gates[task] = _moved(gate, even_offsets(trace[f"blocks.{number}.gate_logits"], model.top_k))
        blocks = list(graph.blocks)
        blocks[number] = dataclasses.replace(blocks[number], gates=gates)
        graph = dataclasses.replace(graph, blocks=tuple(blocks))
    return graph


def _moved(gate: IntegerLinear, offsets: npt.NDArray[np.int64]) -> IntegerLinear:
    """The gate with offsets added to its logits: its biases are in units of accumulators."""
    units = 2.0 ** gate.shift.astype(np.float64) / gate.multiplier
    return dataclasses.replace(gate, bias=(gate.bias + np.rint(offsets * units)).astype(np.int32))
