"""Generated scenes through a model's tasks on the simulated accelerator, every tensor compared with the reference."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgemoe.reports.cycles import Inference
from edgemoe.reports.legends import unlabelled
from edgemoe.reports.pictures import caption_of, save_picture
from edgemoe.runtime.verify import Verifier
from edgemoe.workloads import weights_path
from edgemoe_models.config import PRESETS, ModelConfig, TaskConfig
from edgemoe_models.datasets import scenes
from edgemoe_models.evaluation.metrics import TaskMetrics
from edgemoe_models.graph.integer_graph import IntegerGraph
from edgemoe_models.integer import reference
from edgemoe_models.integer.postprocess import decode_output, postprocess, upsample

__all__ = ["SimulationRun", "has_scenes", "is_trained", "knows_scenes", "simulate"]

Track = Callable[[str, float], None]


@dataclass
class SimulationRun:
    """What ``simulate`` found."""

    runs: list[Inference] = field(default_factory=list)
    comparisons: list[Any] = field(default_factory=list)
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def first_mismatch(self) -> str:
        return next((c.first_mismatch for c in self.comparisons if c.mismatches), "")


@dataclass(frozen=True)
class _Found:
    """A dense prediction, with its label and metrics where the model has learnt scenes."""

    task: str
    kind: str
    model: ModelConfig
    values: npt.NDArray[Any]
    label: npt.NDArray[Any] | None
    metrics: dict[str, float]


def has_scenes(task: TaskConfig) -> bool:
    """Whether the scene generator has labels for a task."""
    if task.kind == "segmentation":
        return task.channels == len(scenes.CLASS_NAMES) and task.labels in ((), scenes.CLASS_NAMES)
    return task.is_dense


def knows_scenes(model: ModelConfig) -> bool:
    """Whether a model's classes, where it has any, are the generated scenes': others are of photographs."""
    return all(has_scenes(task) for task in model.tasks if task.kind == "segmentation")


def simulate(
    verifier: Verifier, graph: IntegerGraph, images: int, out: Path, track: Track, trained: bool
) -> SimulationRun:
    """Run ``images`` demo scenes through all tasks; pictures go to ``out``.

    ``track(what, share)`` is told the progress of all work, 0..1. Metrics are of a model only that has learnt scenes.
    """
    model = graph.config
    result = SimulationRun()
    known = trained and knows_scenes(model)
    measures = {task.name: TaskMetrics(task) for task in model.tasks if has_scenes(task)} if known else {}
    total = images * len(model.tasks)
    for number in range(images):
        scene = scenes.generate_scene(scenes.SPLITS["demo"].start + number, model.image_height, model.image_width)
        found: dict[str, _Found] = {}
        for index, task in enumerate(model.tasks):
            done = number * len(model.tasks) + index
            expected: dict[str, Any] = {}
            reference.run(graph, scene.image, task.name, expected)
            run = verifier.run(
                scene.image,
                task.name,
                expected=expected,
                progress=functools.partial(_advance, track, task.name, done, total),
            )
            track(task.name, (done + 1) / total)
            result.runs.append(Inference(task.name, f"demo-{number}", run.stats))
            result.comparisons.append(run.comparison)
            output = decode_output(graph, task.name, run.outputs)
            label: Any = None
            metrics: dict[str, float] = {}
            if task.name in measures:
                label, this = getattr(scene, task.kind), TaskMetrics(task)
                full = upsample(output.astype(np.float32), model.image_height, model.image_width)
                for measure in (measures[task.name], this):
                    measure.update(full[None], label[None])
                metrics = this.result()
            if task.is_dense:
                values = postprocess(model, task.name, output)
                found[task.name] = _Found(task.name, task.kind, model, values, label, metrics)
        for name, one in found.items():
            about = model.task(name)
            save_picture(
                out / f"{model.name}-{name}-{number}.png",
                one.kind,
                scene.image,
                one.values,
                one.label,
                without=unlabelled(one.kind, found),
                channels=about.channels,
                classes=about.labels,
                caption=caption_of(model, name, one.metrics),
            )
    result.metrics = {name: measure.result() for name, measure in measures.items()}
    return result


def _advance(track: Track, name: str, done: int, total: int, share: float) -> None:
    track(name, (done + share) / total)


def is_trained(model: str) -> bool:
    """Whether a name stands for trained weights: a file, or a preset whose weights are committed."""
    return model not in PRESETS or weights_path(model).is_file()
