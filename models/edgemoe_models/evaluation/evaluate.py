"""Accuracy of a float checkpoint and of its integer graph on held-out scenes, side by side. NumPy only."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgemoe_models import float_reference
from edgemoe_models.checkpoint import load_checkpoint
from edgemoe_models.config import DEPTH_SCALE, ModelConfig, TaskConfig
from edgemoe_models.datasets.arrays import MILLIMETRES, load_split
from edgemoe_models.evaluation.classes import ClassificationMetrics, best_of
from edgemoe_models.evaluation.metrics import TaskMetrics
from edgemoe_models.float_reference import State
from edgemoe_models.graph.integer_graph import IntegerGraph
from edgemoe_models.integer import reference
from edgemoe_models.integer.postprocess import arrange, decode_output, upsample
from edgemoe_models.ptq.quantize import calibration_images, quantize

__all__ = ["compare_with_float", "evaluate", "float_outputs", "integer_outputs"]

Floats = npt.NDArray[np.float32]
Images = npt.NDArray[np.uint8]
_BATCH = 16
_INTEGER_BATCH = 8  # the fastest: more do not fit into caches


def float_outputs(state: State, config: ModelConfig, task: str, images: Images) -> Iterable[Floats]:
    """The float model's head outputs [channels, h, w], image by image."""
    for rows in float_reference.forward(state, config, images, task):
        yield arrange(config, task, rows)


def integer_outputs(
    graph: IntegerGraph, task: str, images: Images, functions: reference.Functions = reference.OURS
) -> Iterable[Floats]:
    """The integer graph's, decoded to the float model's units."""
    for start in range(0, len(images), _INTEGER_BATCH):
        batch = images[start : start + _INTEGER_BATCH]
        for raw in reference.run_batch(graph, batch, task, functions=functions):
            yield decode_output(graph, task, raw)


def evaluate(
    config: ModelConfig,
    outputs: Callable[[str, Images], Iterable[Floats]],
    data: dict[str, Any],
    count: int,
    far: float = DEPTH_SCALE,
    details: bool = False,
) -> dict[str, dict[str, float]]:
    """Metrics of every task on the first ``count`` scenes or pictures.

    Args:
        outputs: a task's head outputs [channels, h, w], or [channels] of a whole picture, for uint8 images [B, H, W, 3]
        data: arrays of ``dataset.load_split`` or of a data set; labels may have another size than the images, to which
            outputs are then upsampled
        far: metres at which the data set's depth ends
        details: also those of ``TaskMetrics`` that take longer
    """
    results = {}
    for task in config.tasks:
        if task.kind == "classification":
            results[task.name] = _classified(functools.partial(outputs, task.name), task, data, count)
            continue
        metrics = TaskMetrics(task, far, details)
        for start in range(0, count, _BATCH):
            rows = slice(start, min(start + _BATCH, count))
            label = data[task.kind][rows]
            if task.kind == "depth":
                label = label / np.float32(MILLIMETRES)
            images = np.asarray(data["image"][rows])
            height, width = label.shape[1:3]
            output = [upsample(np.asarray(one, np.float32), height, width) for one in outputs(task.name, images)]
            metrics.update(np.stack(output), label)
        results[task.name] = metrics.result()
    return results


def _classified(
    outputs: Callable[[Images], Iterable[Floats]], task: TaskConfig, data: dict[str, Any], count: int
) -> dict[str, float]:
    """Top-1 and top-5 of the first ``count`` pictures."""
    metrics = ClassificationMetrics(task.channels)
    for start in range(0, count, _BATCH):
        rows = slice(start, min(start + _BATCH, count))
        for logits, label in zip(outputs(np.asarray(data["image"][rows])), data[task.kind][rows], strict=True):
            metrics.update(best_of(logits), int(label))
    return metrics.result()


def compare_with_float(weights: Path, count: int, cache: Path) -> Iterator[dict[str, Any]]:
    """Rows of a float checkpoint and of its integer graph: ``model``, ``executor``, ``images`` and ``metrics`` by task.

    Args:
        weights: float checkpoint with metadata ``config``
        count: validation scenes, from the first
        cache: folder that keeps generated scenes

    Raises:
        QuantizeError: the checkpoint cannot be read or quantized
        ValueError: there are not so many scenes, or none for a task
    """
    state, config = load_checkpoint(weights)
    graph = quantize(state, config, calibration_images(config))
    kinds = [task.kind for task in config.tasks]
    data = load_split(cache, "val", count, config.image_height, config.image_width, kinds)
    executors: dict[str, Callable[[str, Images], Iterable[Floats]]] = {
        "float": lambda task, images: float_outputs(state, config, task, images),
        "integer (PTQ W8A8)": lambda task, images: integer_outputs(graph, task, images),
    }
    for name, outputs in executors.items():
        metrics = evaluate(config, outputs, data, count)
        yield {"model": config.name, "executor": name, "images": count, "metrics": metrics}
