"""Which experts typical images use: measured once, so that the compiler knows which to fetch ahead of a gate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgemoe_models.graph.integer_graph import IntegerGraph
from edgemoe_models.integer import reference

__all__ = ["ExpertUse", "measure_use", "share_of_images"]

ExpertUse = dict[str, npt.NDArray[np.float32]]


def share_of_images(queues: Sequence[npt.NDArray[Any]], images: int, tokens: int) -> npt.NDArray[np.float32]:
    """The share of ``images`` images that use each expert, float32 [E], from queues of joined tokens."""
    used = [len(np.unique(np.asarray(queue) // tokens)) for queue in queues]
    return (np.asarray(used) / images).astype(np.float32)


def measure_use(graph: IntegerGraph, images: npt.NDArray[np.uint8]) -> ExpertUse:
    """``IntegerGraph.expert_use`` of images uint8 [B, H, W, 3], by the integer reference."""
    config, use = graph.config, {}
    for task in config.tasks if config.num_experts else ():
        trace: reference.Trace = {}
        reference.run_batch(graph, images, task.name, trace)
        for i in filter(config.is_moe, range(config.depth)):
            queues = trace[f"blocks.{i}.queues"]
            use[f"blocks.{i}.{task.name}"] = share_of_images(queues, len(images), config.num_tokens)
    return use
