"""Programs of several token sequences: which there are in tests, extreme gates, and what must have been compared."""

from __future__ import annotations

import dataclasses

import numpy as np

from edgemoe.bundle import Joined
from edgemoe_models.graph.integer_graph import IntegerGraph

__all__ = ["JOINED", "crowded", "joined_programs", "untraced"]

TASKS = ("segmentation", "classification")
JOINED = {
    "tasks": Joined(TASKS),
    "two images": Joined(TASKS[:1], 2),
    "four images": Joined(TASKS[1:], 4),
    "tasks of two images": Joined(TASKS, 2),
}


def joined_programs(names: tuple[str, ...]) -> list[Joined]:
    """All tasks of a frame, and two images of the first."""
    return [Joined(names), Joined(names[:1], 2)]


def crowded(graph: IntegerGraph) -> IntegerGraph:
    """The graph whose gates all choose the last two experts for every token: full queues, and empty ones."""
    blocks = []
    for block in graph.blocks:
        gates = {}
        for task, gate in block.gates.items():
            weight, bias = np.zeros_like(gate.weight), np.full_like(gate.bias, -(1 << 23))
            bias[-2:] = 1 << 23
            gates[task] = dataclasses.replace(gate, weight=weight, bias=bias)
        blocks.append(dataclasses.replace(block, gates=gates))
    return dataclasses.replace(graph, blocks=tuple(blocks))


def untraced(traces: list[dict], joined: Joined, tensors: set[str], first_moe: int) -> set[str]:
    """Tensors of the sequences that were not compared, apart from those that go from unit to unit.

    Of tasks that share the trunk, only the first one's has been computed before the first gate.
    """
    trunk = {"embed", *(name for name in traces[0] if _block(name) < first_moe)}
    trunk |= {f"blocks.{first_moe}.{name}" for name in ("norm1", "q", "k", "v", "scores", "score_max", "context")}
    never = {"probabilities", "gate_logits", "normed"}
    missing = set()
    for number, trace in enumerate(traces):
        for name in trace:
            shared = name in trunk and number >= joined.images
            # An expert's hidden rows are compared for all sequences together, under the last one's name.
            shared |= ".experts." in name and number < len(traces) - 1
            if not shared and name.rsplit(".", 1)[-1] not in never and f"{number}: {name}" not in tensors:
                missing.add(f"{number}: {name}")
    return missing


def _block(name: str) -> int:
    return int(name.split(".")[1]) if name.startswith("blocks.") else 1 << 20
