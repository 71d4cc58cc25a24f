"""Which experts a model's tasks use: tokens an expert gets, how even that is, and how far two tasks agree.

Measured from the queues of the integer reference, which are the accelerator's. NumPy only.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgemoe.reports.tables import TextTable
from edgemoe.workloads import precision_of
from edgemoe_models.config import ModelConfig
from edgemoe_models.datasets import scenes
from edgemoe_models.graph.integer_graph import IntegerGraph
from edgemoe_models.integer import reference
from edgemoe_models.pictures import Notes
from edgemoe_models.ptq.calibrate import calibration_folder

__all__ = ["chosen_experts", "expert_load_table", "held_out_load", "load_statistics", "measure_expert_load"]

Bools = npt.NDArray[np.bool_]


def chosen_experts(graph: IntegerGraph, image: npt.NDArray[np.uint8], task: str) -> dict[int, Bools]:
    """Whether a token visits an expert, [tokens, experts], by number of the MoE block."""
    trace: dict[str, Any] = {}
    reference.run(graph, image, task, trace)
    result = {}
    for index in moe_blocks(graph.config):
        chosen = result[index] = np.zeros((graph.config.num_tokens, graph.config.num_experts), bool)
        for expert, queue in enumerate(trace[f"blocks.{index}.queues"]):
            chosen[queue, expert] = True
    return result


def moe_blocks(config: ModelConfig) -> list[int]:
    """Numbers of the blocks that have experts."""
    return [index for index in range(config.depth) if config.is_moe(index)]


def load_statistics(counts: npt.NDArray[np.integer[Any]]) -> dict[str, Any]:
    """How even the load of a block's experts is.

    Args:
        counts: tokens that each expert gets, [images, experts]

    Returns:
        ``share``: of all visits, by expert (they sum to 1); ``busiest_over_mean``: of these shares;
        ``entropy_bits``: of these shares, at most log2(experts); ``unused``: experts that no image uses;
        ``image_busiest_over_mean``, ``image_unused``: the same of one image, on average over the images
    """
    images, experts = counts.shape
    share = counts.sum(0) / counts.sum()
    used = share[share > 0]
    return {
        "share": share.tolist(),
        "busiest_over_mean": float(share.max() * experts),
        "entropy_bits": abs(float(-(used * np.log2(used)).sum())),
        "unused": np.flatnonzero(share == 0).tolist(),
        "image_busiest_over_mean": float((counts.max(1) / counts.mean(1)).mean()),
        "image_unused": float((counts == 0).sum() / images),
    }


def measure_expert_load(
    graph: IntegerGraph, images: npt.NDArray[np.uint8], track: Callable[[float], None] = lambda share: None
) -> dict[str, Any]:
    """Statistics of every MoE block and task on ``images`` [B, H, W, 3].

    Returns:
        ``images``, ``tokens``, ``experts``, ``top_k``, ``tasks`` and ``blocks``, one entry a MoE block: ``block``,
        ``tasks`` (``load_statistics`` by task) and ``pairs``, by ``"task/task"``: ``same_experts``, the share of a
        token's experts that both tasks choose, and ``by_chance``, what independent choices with the same loads would
            give

    Raises:
        ValueError: the model has no experts
    """
    config = graph.config
    if not moe_blocks(config):
        raise ValueError(f"model {config.name} has no experts; choose a Mixture-of-Experts model")
    names = [task.name for task in config.tasks]
    choices: dict[int, dict[str, list[Bools]]] = {index: {name: [] for name in names} for index in moe_blocks(config)}
    for number, (image, name) in enumerate(itertools.product(images, names)):
        for index, chosen in chosen_experts(graph, image, name).items():
            choices[index][name].append(chosen)
        track((number + 1) / (len(images) * len(names)))
    blocks = []
    for index, by_task in choices.items():
        stacked = {name: np.stack(chosen) for name, chosen in by_task.items()}  # [images, tokens, experts]
        loads = {name: load_statistics(chosen.sum(1)) for name, chosen in stacked.items()}
        pairs = {
            f"{a}/{b}": {
                "same_experts": float((stacked[a] & stacked[b]).sum() / stacked[a].sum()),
                "by_chance": config.top_k * float(np.dot(loads[a]["share"], loads[b]["share"])),
            }
            for a, b in itertools.combinations(names, 2)
        }
        blocks.append({"block": index, "tasks": loads, "pairs": pairs})
    return {
        "model": config.name,
        "images": len(images),
        "tokens": config.num_tokens,
        "experts": config.num_experts,
        "top_k": config.top_k,
        "tasks": names,
        "blocks": blocks,
    }


def held_out_load(
    model: str,
    graph: IntegerGraph,
    count: int,
    track: Callable[[float], None],
    folder: Path | None = None,
    notes: Notes | None = None,
) -> dict[str, Any]:
    """``measure_expert_load`` on the first validation scenes, with the precision's name.

    Args:
        model: name, for the precision
        graph: the network
        count: scenes, or pictures at most
        track: told the share of the work that is done, 0..1
        folder: of pictures, evenly spaced in the order of their names, instead of scenes; the result says ``pictures``
        notes: told how pictures were converted

    Raises:
        QuantizeError: there is no such folder, or no picture in it
    """
    precision = {"precision": precision_of(model)}
    if folder is not None:
        images = calibration_folder(folder, graph.config, count, notes=notes)
        return precision | measure_expert_load(graph, images, track) | {"pictures": folder.name}
    size = graph.config.image_height, graph.config.image_width
    images = np.stack([scenes.generate_scene(seed, *size).image for seed in scenes.SPLITS["val"][:count]])
    return precision | measure_expert_load(graph, images, track)


def expert_load_table(statistics: dict[str, Any]) -> TextTable:
    """How even each block's load is, by task."""
    name = f"{statistics['model']}, {statistics['precision']}"
    view = TextTable(
        f"{name}: expert load on {statistics['images']} {'pictures' if 'pictures' in statistics else 'scenes'}",
        ["", ">busiest / mean", ">entropy", ">unused", ">least", ">largest"],
        caption="busiest expert's load over the mean one, experts that no token chose: over all\n"
        "images (of one image, on average); entropy in bits; shares of all tokens",
    )
    for block in statistics["blocks"]:
        view.heading(f"block {block['block']}")
        for task, load in block["tasks"].items():
            view.add(
                f"  {task}",
                f"{load['busiest_over_mean']:.2f} ({load['image_busiest_over_mean']:.2f})",
                f"{load['entropy_bits']:.2f}",
                f"{len(load['unused'])} ({load['image_unused']:.2f})",
                f"{min(load['share']):.1%}",
                f"{max(load['share']):.1%}",
            )
    return view
