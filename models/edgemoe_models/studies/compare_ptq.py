"""Post-training quantization compared: ours, ours without each of its parts, and other papers' functions. NumPy only.

Every row has the same float weights, calibration images and scenes, and changes one thing in the first integer row.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from edgemoe_models.config import ModelConfig
from edgemoe_models.datasets.arrays import load_split
from edgemoe_models.evaluation.evaluate import evaluate, float_outputs, integer_outputs
from edgemoe_models.float_reference import State
from edgemoe_models.graph.integer_graph import IntegerGraph
from edgemoe_models.integer.reference import OURS, Functions
from edgemoe_models.ptq.quantize import (
    QuantizeOptions,
    calibration_images,
    quantize,
)
from edgemoe_models.studies.compare_functions import fq_vit_functions, i_vit_functions, repq_vit_functions

__all__ = ["COLUMNS", "VARIANTS", "Column", "Row", "Variant", "columns_of", "compare"]

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Variant:
    """One integer row: how the model is quantized, and which functions compute it."""

    name: str
    options: QuantizeOptions = QuantizeOptions()
    functions: Callable[[IntegerGraph], Functions] = lambda graph: OURS


PLAIN = QuantizeOptions(
    ranges="min-max", equalize=False, correct_bias=False, per_channel=False, refit=False, compensate=False
)
#: Of RepQ-ViT (Li et al., ICCV 2023): percentile ranges, a LayerNorm's channels moved whole, weights to the nearest.
REPQ = QuantizeOptions(ranges="percentile", whole_channels=True, correct_bias=False, refit=False, compensate=False)
VARIANTS = (
    Variant("ours"),
    Variant("percentile ranges", QuantizeOptions(ranges="percentile")),
    Variant("min-max ranges", QuantizeOptions(ranges="min-max")),
    Variant("no equalization", QuantizeOptions(equalize=False)),
    Variant("weights to the nearest", QuantizeOptions(compensate=False)),
    Variant("no bias correction", QuantizeOptions(correct_bias=False)),
    Variant("one weight scale a layer", QuantizeOptions(per_channel=False)),
    Variant("heads not refitted", QuantizeOptions(refit=False)),
    Variant("all of these, min-max", PLAIN),
    Variant("power-of-two scales", QuantizeOptions(power_of_two=True)),
    Variant("4-bit experts", QuantizeOptions(expert_bits=4)),
    Variant("half of the others 4-bit", QuantizeOptions(int4_share=0.5)),
    Variant("all blocks 4-bit", QuantizeOptions(expert_bits=4, int4_share=1.0)),
    Variant("I-ViT's functions", functions=i_vit_functions),
    Variant("FQ-ViT's attention", functions=fq_vit_functions),
    Variant("RepQ-ViT's ranges", REPQ),
    Variant("RepQ-ViT's, attention too", REPQ, repq_vit_functions),
)


@dataclasses.dataclass(frozen=True)
class Column:
    """The metric shown for a kind of task, and what its loss against float is counted in."""

    metric: str
    title: str
    shown: Callable[[float], float]
    loss: Callable[[float, float], float]
    unit: str


def _percent(value: float) -> float:
    return 100 * value


def _points(reference: float, value: float) -> float:
    return 100 * (reference - value)


COLUMNS = {
    "segmentation": Column("miou", "mIoU %", _percent, _points, "points"),
    "depth": Column("rmse", "RMSE m", float, lambda reference, value: 100 * (value / reference - 1), "%"),
    "normals": Column("mean_angle", "angle deg", float, lambda reference, value: value - reference, "deg"),
    "edges": Column("f1", "F1 %", _percent, _points, "points"),
}


def columns_of(config: ModelConfig) -> dict[str, Column]:
    """The column of each task; ValueError if the scenes have no labels for one."""
    if strange := [task.name for task in config.tasks if task.kind not in COLUMNS]:
        raise ValueError(f"the scenes have no labels for {', '.join(strange)}")
    return {task.name: COLUMNS[task.kind] for task in config.tasks}


def compare(
    state: State, config: ModelConfig, scenes: int, cache: Path, variants: tuple[Variant, ...] = VARIANTS
) -> Iterator[Row]:
    """Rows as ``make accuracy`` has them: model, precision, executor, images, metrics and drop by task; float first.

    Raises:
        ValueError: the model cannot be quantized, has a task without labels, or there are not so many scenes.
    """
    columns = columns_of(config)
    kinds = [task.kind for task in config.tasks]
    data = load_split(cache, "val", scenes, config.image_height, config.image_width, kinds)
    images = calibration_images(config)

    def row(name: str, executor: str, metrics: dict[str, dict[str, float]]) -> Row:
        drop = {
            task: column.loss(base[task][column.metric], metrics[task][column.metric])
            for task, column in columns.items()
        }
        return {
            "model": config.name,
            "precision": name,
            "executor": executor,
            "images": scenes,
            "metrics": metrics,
            "drop": drop,
        }

    base = evaluate(config, lambda task, batch: float_outputs(state, config, task, batch), data, scenes)
    yield row("float", "float reference", base)
    for variant in variants:
        graph = quantize(state, config, images, variant.options)
        yield row(variant.name, "integer reference", _measure(graph, variant, data, scenes))


def _measure(graph: IntegerGraph, variant: Variant, data: dict[str, Any], scenes: int) -> dict[str, dict[str, float]]:
    functions = variant.functions(graph)
    return evaluate(graph.config, lambda task, batch: integer_outputs(graph, task, batch, functions), data, scenes)
