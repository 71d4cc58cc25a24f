"""Accuracy of a float checkpoint and of its integer graph on held-out scenes, side by side. NumPy only.

Usage: ``python -m edgemoe_models.evaluation.evaluate [--weights FILE] [--scenes N] [--json FILE]``
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgemoe_models import float_reference
from edgemoe_models.config import DEPTH_SCALE, ModelConfig
from edgemoe_models.datasets.arrays import MILLIMETRES, load_split
from edgemoe_models.evaluation.metrics import TaskMetrics
from edgemoe_models.float_reference import State
from edgemoe_models.graph.integer_graph import IntegerGraph
from edgemoe_models.integer import reference
from edgemoe_models.integer.postprocess import arrange, decode_output, upsample
from edgemoe_models.ptq.quantize import QuantizeError, calibration_images, load_checkpoint, quantize

__all__ = ["evaluate", "float_outputs", "integer_outputs", "main"]

Floats = npt.NDArray[np.float32]
Images = npt.NDArray[np.uint8]
WEIGHTS = Path(__file__).parents[1] / "weights" / "m3vit-micro.safetensors"
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
) -> dict[str, dict[str, float]]:
    """Metrics of every dense task on the first ``count`` scenes.

    Args:
        outputs: a task's head outputs [channels, h, w] for uint8 images [B, H, W, 3]
        data: arrays of ``dataset.load_split`` or of a data set
        far: metres at which the data set's depth ends
    """
    results = {}
    for task in config.tasks:
        metrics = TaskMetrics(task, far)
        for start in range(0, count, _BATCH):
            rows = slice(start, min(start + _BATCH, count))
            label = data[task.kind][rows]
            if task.kind == "depth":
                label = label / np.float32(MILLIMETRES)
            images = np.asarray(data["image"][rows])
            output = [
                upsample(np.asarray(one, np.float32), config.image_height, config.image_width)
                for one in outputs(task.name, images)
            ]
            metrics.update(np.stack(output), label)
        results[task.name] = metrics.result()
    return results


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m edgemoe_models.evaluation.evaluate",
        description="Accuracy of a float checkpoint and of its integer graph.",
    )
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="float checkpoint with metadata 'config'")
    parser.add_argument("--scenes", type=int, default=512, help="validation scenes (from the first)")
    parser.add_argument("--cache", type=Path, default=Path("build/scenes"), help="folder that keeps generated scenes")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    options = parser.parse_args(arguments)
    if options.scenes < 1:
        parser.error(f"--scenes must be at least 1, not {options.scenes}")
    try:
        state, config = load_checkpoint(options.weights)
        graph = quantize(state, config, calibration_images(config))
    except (QuantizeError, OSError) as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 1
    data = load_split(
        options.cache,
        "val",
        options.scenes,
        config.image_height,
        config.image_width,
        [task.kind for task in config.tasks],
    )
    executors: dict[str, Callable[[str, Images], Iterable[Floats]]] = {
        "float": lambda task, images: float_outputs(state, config, task, images),
        "integer (PTQ W8A8)": lambda task, images: integer_outputs(graph, task, images),
    }
    rows = []
    for name, outputs in executors.items():
        metrics = evaluate(config, outputs, data, options.scenes)
        rows.append({"model": config.name, "executor": name, "images": options.scenes, "metrics": metrics})
        figures = ", ".join(
            f"{task} {metric} {float(value):.4f}"
            for task, values in metrics.items()
            for metric, value in values.items()
            if np.isscalar(value)
        )
        print(f"{config.name}, {name}, {options.scenes} scenes: {figures}", flush=True)
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
