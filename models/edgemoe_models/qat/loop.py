"""The fine-tuning loop.

The folder ``out`` gets ``checkpoint.safetensors`` (what a resumed run needs), ``log.csv`` and at the end, NAME being
such as ``m3vit-micro-w4a8``, ``NAME.safetensors`` (the Brevitas model's parameters) and ``NAME.graph.safetensors`` (the
integer graph to compile).
"""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

from edgemoe_models.evaluation.evaluate import evaluate, integer_outputs
from edgemoe_models.graph.file import write_graph
from edgemoe_models.graph.integer_graph import IntegerGraph
from edgemoe_models.ptq.expert_use import measure_use
from edgemoe_models.ptq.quantize import data_set_pictures
from edgemoe_models.qat import storage
from edgemoe_models.qat.config import QatOptions
from edgemoe_models.qat.export import export
from edgemoe_models.qat.trainer import Arrays, QatTrainer
from edgemoe_models.train.data import load_data
from edgemoe_models.train.processes import Processes
from edgemoe_models.train.resident import Resident

__all__ = ["finish", "measure", "run"]

Metrics = dict[str, dict[str, float]]
#: Told what is being done, and the share of it that is done, 0..1.
Show = Callable[[str, float], None]
_LOG_STEPS = 10
_CHECKPOINT = "checkpoint.safetensors"


def _quiet(text: str, share: float) -> None:
    pass


def run(options: QatOptions, out: Path, cache: Path, resume: bool, show: Show = _quiet) -> Metrics:
    """Train to the end, write the model and its graph, and return the graph's metrics on held-out scenes.

    Args:
        options: how to train
        out: folder for the files
        cache: folder that keeps generated scenes
        resume: go on from the checkpoint in ``out``
        show: told how far the run is

    Raises:
        ValueError, OSError: bad weights, a bad checkpoint, a model that the data set cannot train, or its files.
    """
    if Processes.expected() > 1:
        raise ValueError("quantization-aware training is of one process; start it without torchrun")
    trainer = QatTrainer.resume(options, out / _CHECKPOINT) if resume else QatTrainer.start(options, cache)
    return finish(trainer, out, cache, show)


def finish(trainer: QatTrainer, out: Path, cache: Path, show: Show = _quiet) -> Metrics:
    """``run`` of a trainer that has been started."""
    options, config = trainer.options, trainer.model.config.model
    train = load_data(options, config, cache, "train", options.train_scenes, show)
    val = load_data(options, config, cache, "val", options.val_scenes, show)
    out.mkdir(parents=True, exist_ok=True)
    _train(trainer, trainer.prepared(train), out, show)
    trainer.save(out / _CHECKPOINT)
    graph = export(trainer.best_model.cpu())
    used = data_set_pictures(options.data_set, options.data_root, cache, config)
    graph = dataclasses.replace(graph, expert_use=measure_use(graph, used))
    write_graph(graph, out / f"{trainer.name}.graph.safetensors")
    count = len(val["image"])
    metrics = measure(graph, val, count, options.data_set.far)
    split = f"val, first {count} " + ("scenes" if options.data == "scenes" else f"pictures of {options.data}")
    found = {"metrics": json.dumps(metrics), "metrics_split": split}
    storage.write(out / f"{trainer.name}.safetensors", trainer.best_model.state_dict(), trainer.metadata() | found)
    return metrics


def measure(graph: IntegerGraph, val: Arrays, count: int, far: float) -> Metrics:
    """Metrics of the integer graph on the first ``count`` pictures; ``far`` is the data set's."""
    return evaluate(graph.config, lambda task, images: integer_outputs(graph, task, images), val, count, far)


def _train(trainer: QatTrainer, train: Arrays | Resident, out: Path, show: Show) -> None:
    saved = trainer.seconds
    while trainer.progress < 1:
        losses = trainer.train_step(train)
        text = " ".join(f"{name} {value:.3f}" for name, value in losses.items())
        show(f"step {trainer.step}: {text}", min(trainer.progress, 1.0))
        if trainer.step % _LOG_STEPS == 0:
            _log(out / "log.csv", {"step": trainer.step, "seconds": trainer.seconds, **losses})
        if trainer.seconds - saved > 60 * trainer.options.save_minutes:
            saved = trainer.seconds
            trainer.save(out / _CHECKPOINT)


def _log(path: Path, row: dict[str, float]) -> None:
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        if new:
            writer.writeheader()
        writer.writerow({name: round(value, 4) for name, value in row.items()})
