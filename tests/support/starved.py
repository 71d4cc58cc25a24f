"""Graphs of which some experts get no token, and what a program fetches for them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from edgemoe.bundle import Bundle
from edgemoe_hw.spec.isa import EnginePayload, Header, Load, MatMul, Memory, decode_program
from edgemoe_models.graph.integer_graph import IntegerGraph

__all__ = ["bytes_needed", "fetched_ahead", "random_image", "starved"]

Commands = Sequence[tuple[Header, EnginePayload]]


def starved(graph: IntegerGraph, experts: tuple[int, ...], use: float | None = None) -> IntegerGraph:
    """The graph whose gates choose none of some experts; ``use``: what calibration is said to have seen of these."""
    blocks, shares = [], {}
    for number, block in enumerate(graph.blocks):
        gates = {}
        for task, gate in block.gates.items():
            weight, bias = gate.weight.copy(), gate.bias.copy()
            for expert in experts:
                weight[expert], bias[expert] = 0, -(1 << 23)
            gates[task] = dataclasses.replace(gate, weight=weight, bias=bias)
            share = np.ones(graph.config.num_experts, np.float32)
            share[list(experts)] = 1 if use is None else use
            shares[f"blocks.{number}.{task}"] = share
        blocks.append(dataclasses.replace(block, gates=gates))
    return dataclasses.replace(graph, blocks=tuple(blocks), expert_use={} if use is None else shares)


def random_image(bundle: Bundle, seed: int) -> np.ndarray:
    """Pixels of the model's size."""
    model = bundle.model
    return np.random.default_rng(seed).integers(0, 256, (model.image_height, model.image_width, 3)).astype(np.uint8)


def fetched_ahead(bundle: Bundle, task: str) -> list[int]:
    """Bytes fetched ahead of the gates by expert, of all blocks together."""
    sizes = [phase.prefetched for phase in bundle.task(task).phases if phase.prefetched]
    return [sum(column) for column in zip(*sizes, strict=True)]


def bytes_needed(bundle: Bundle, task: str, trace: dict) -> tuple[int, int]:
    """Bytes that a program's LOADs read for an image, and those of them that are for experts without tokens.

    Whose a LOAD without a condition is follows from who reads its rows next.
    """
    config, total, vain = bundle.config, 0, 0
    info = bundle.task(task)
    commands = [(header, p) for header, p in decode_program(info.program) if isinstance(p, EnginePayload)]
    for place, (header, p) in enumerate(commands):
        if not isinstance(p, Load):
            continue
        size = p.rows * config.row_bytes[p.memory.name]
        block = info.phases[header.phase].name.removesuffix(".moe")
        if header.predicated:
            total += size if len(trace[f"{block}.queues"][header.expert]) else 0
            continue
        total += size
        owner = _reader(commands[place + 1 :], p)
        if owner is not None and not len(trace[f"{block}.queues"][owner]):
            vain += size
    return total, vain


def _reader(commands: Commands, load: Load) -> int | None:
    """The expert whose MATMUL reads a LOAD's first row before anyone else; None where it is none's."""
    base = {Memory.WEIGHT: "weight_base", Memory.PARAM: "param_base"}.get(load.memory)
    for header, p in commands:
        if base and isinstance(p, MatMul) and getattr(p, base) == load.row:
            return header.expert if p.use_queue else None
    return None
