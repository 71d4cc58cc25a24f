"""The training loop.

The folder ``out`` gets ``checkpoint.safetensors`` (everything that a resumed run needs), ``best.safetensors``
(weights of the best evaluation so far), ``log.csv`` and at the end ``<preset>.safetensors`` with its metrics on
held-out pictures.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

from edgemoe_models.datasets.arrays import Arrays
from edgemoe_models.datasets.growing import GrowingScenes
from edgemoe_models.train.config import TrainConfig, require_classes
from edgemoe_models.train.data import load_data
from edgemoe_models.train.logs import Log
from edgemoe_models.train.processes import Processes
from edgemoe_models.train.resident import Resident
from edgemoe_models.train.trainer import Trainer, evaluate, export, load_weights, score

__all__ = ["Metrics", "Show", "measure", "run"]

Metrics = dict[str, dict[str, float]]
#: Told what is being done, and the share of it that is done, 0..1.
Show = Callable[[str, float], None]
_LOG_STEPS = 25
_QUICK = 256  # pictures of an evaluation during training


def _quiet(text: str, share: float) -> None:
    pass


def run(config: TrainConfig, out: Path, cache: Path, resume: bool, show: Show = _quiet) -> Metrics:
    """Train to the end and return the final metrics on all held-out pictures ({} in all processes but the first).

    Args:
        config: how to train
        out: folder for checkpoints, logs and weights
        cache: folder for prepared pictures
        resume: go on from the checkpoint in ``out``
        show: told how far the run is

    Raises:
        ValueError, OSError: options that do not fit each other, or files that cannot be read or written
    """
    with contextlib.ExitStack() as stack:
        source = _source(config, stack)  # before anything else runs that could be in a forked process's way
        processes = Processes.start(config.device)
        trainer = Trainer(config, processes)
        if resume:
            trainer.load(out / "checkpoint.safetensors")
        if not processes.is_first:
            processes.wait()  # the first prepares the data
        train, val = source or _cached(config, trainer, cache, show)
        prepared = _prepared(trainer, train, show)
        out.mkdir(parents=True, exist_ok=True)
        if processes.is_first:
            processes.wait()
            metrics = _train(trainer, prepared, val, out, show)
        else:
            metrics = {}
            while trainer.progress < 1:
                trainer.update(prepared)
                _refresh(prepared, trainer.step)
        processes.wait()
        processes.end()
        return metrics


def _source(config: TrainConfig, stack: contextlib.ExitStack) -> tuple[GrowingScenes, Arrays] | None:
    """Scenes that other processes generate from now on, and held-out ones; None without workers."""
    if not config.workers:
        return None
    model = config.model_config
    size, labels = (model.image_height, model.image_width), [task.kind for task in model.tasks]
    val = GrowingScenes("val", config.val_scenes, size, labels, config.workers)
    stack.callback(val.stop)
    val.wait(config.val_scenes)
    train = GrowingScenes("train", config.train_scenes, size, labels, config.workers)
    stack.callback(train.stop)
    return train, val.arrays


def _cached(config: TrainConfig, trainer: Trainer, cache: Path, show: Show) -> tuple[Arrays, Arrays]:
    """Pictures to train on and held-out ones."""
    train = load_data(config, trainer.model_config, cache, "train", config.train_scenes, show)
    return train, load_data(config, trainer.model_config, cache, "val", config.val_scenes, show)


def _prepared(trainer: Trainer, train: Arrays | GrowingScenes, show: Show) -> Arrays | Resident:
    if not isinstance(train, GrowingScenes):
        return trainer.prepared(train)
    show("generating the first scenes", 0.0)
    train.wait(4 * trainer.config.batch)
    return trainer.prepared(train.arrays, lambda: train.ready)


def _refresh(data: Arrays | Resident, step: int) -> None:
    """Now and then take over what other processes have generated."""
    if isinstance(data, Resident) and step % _LOG_STEPS == 0:
        data.refresh()


def _train(trainer: Trainer, train: Arrays | Resident, val: Arrays, out: Path, show: Show) -> Metrics:
    """The loop of the first process, which shows, logs, evaluates and saves."""
    config = trainer.config
    log = Log(out, [task.name for task in trainer.model_config.tasks], config.tensorboard)
    evaluated = trainer.seconds
    on_gpu = trainer.processes.device.type == "cuda"
    begin = time.monotonic() - trainer.seconds
    while trainer.progress < 1:
        updated = trainer.update(train)
        _refresh(train, trainer.step)
        logged = trainer.step % _LOG_STEPS == 0
        if logged or not on_gpu:  # a GPU is not waited for at every step
            start = time.monotonic()
            losses = {name: loss.item() for name, loss in updated.items()}
            trainer.seconds += time.monotonic() - start
            text = " ".join(f"{name} {value:.3f}" for name, value in losses.items())
            show(f"step {trainer.step}: {text}", min(trainer.progress, 1.0))
            if logged:
                log.losses(trainer.step, trainer.seconds, losses)
        if trainer.seconds - evaluated > 60 * config.evaluate_minutes:
            _evaluate(trainer, val, out, log)
            evaluated = trainer.seconds
        if config.wall_clock:
            trainer.seconds = time.monotonic() - begin
    trainer.save(out / "checkpoint.safetensors")
    metrics: Metrics = evaluate(trainer.best_model, val, len(val["image"]), config.data_set.far)
    log.last_metrics(trainer.step, metrics)
    log.close()
    export(trainer, out / f"{config.preset}.safetensors", metrics, len(val["image"]))
    return metrics


def _evaluate(trainer: Trainer, val: Arrays, out: Path, log: Log) -> None:
    """Measure on some of the held-out pictures, keep the weights if they are the best so far, save a checkpoint."""
    quick = min(_QUICK, len(val["image"]))
    metrics: Metrics = evaluate(trainer.best_model, val, quick, trainer.config.data_set.far)
    log.metrics(trainer.step, trainer.seconds, metrics)
    if score(metrics) > trainer.best:
        trainer.best = score(metrics)
        export(trainer, out / "best.safetensors", metrics, quick)
    trainer.save(out / "checkpoint.safetensors")


def measure(config: TrainConfig, weights: Path, cache: Path, show: Show = _quiet) -> Metrics:
    """Metrics of a weights file on ``config.val_scenes`` held-out pictures of ``config.split``.

    Raises:
        ValueError, OSError: the file is no weights file, or pictures cannot be read
    """
    model = load_weights(weights)
    require_classes(str(weights), model.config, config.data_set)
    held_out = load_data(config, model.config, cache, config.split, config.val_scenes, show, config.label_shape)
    model.to(Processes.start(config.device).device)
    count = len(held_out["image"])
    result: Metrics = evaluate(model, held_out, count, config.data_set.far, config.details)
    return result
