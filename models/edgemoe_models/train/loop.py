"""The training loop.

The folder ``out`` gets ``checkpoint.safetensors`` (everything that a resumed run needs), ``best.safetensors``
(weights of the best evaluation so far), ``log.csv`` and at the end ``<preset>.safetensors`` with its metrics on
held-out pictures.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edgemoe_models.datasets.arrays import Arrays
from edgemoe_models.train.config import TrainConfig
from edgemoe_models.train.data import load_data
from edgemoe_models.train.logs import Log
from edgemoe_models.train.processes import Processes
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
    processes = Processes.start(config.device)
    trainer = Trainer(config, processes)
    if resume:
        trainer.load(out / "checkpoint.safetensors")
    if not processes.is_first:
        processes.wait()  # the first prepares the data
    train = load_data(config, trainer.model_config, cache, "train", config.train_scenes, show)
    val = load_data(config, trainer.model_config, cache, "val", config.val_scenes, show)
    out.mkdir(parents=True, exist_ok=True)
    if processes.is_first:
        processes.wait()
        metrics = _train(trainer, train, val, out, show)
    else:
        metrics = {}
        while trainer.progress < 1:
            trainer.train_step(train)
    processes.wait()
    processes.end()
    return metrics


def _train(trainer: Trainer, train: Arrays, val: Arrays, out: Path, show: Show) -> Metrics:
    """The loop of the first process, which shows, logs, evaluates and saves."""
    config, far = trainer.config, trainer.config.data_set.far
    log = Log(out, [task.name for task in trainer.model_config.tasks], config.tensorboard)
    quick = min(_QUICK, len(val["image"]))
    evaluated = trainer.seconds
    while trainer.progress < 1:
        losses = trainer.train_step(train)
        text = " ".join(f"{name} {value:.3f}" for name, value in losses.items())
        show(f"step {trainer.step}: {text}", min(trainer.progress, 1.0))
        if trainer.step % _LOG_STEPS == 0:
            log.losses(trainer.step, trainer.seconds, losses)
        if trainer.seconds - evaluated > 60 * config.evaluate_minutes:
            evaluated = trainer.seconds
            metrics: Metrics = evaluate(trainer.model, val, quick, far)
            log.metrics(trainer.step, metrics)
            if score(metrics) > trainer.best:
                trainer.best = score(metrics)
                export(trainer, out / "best.safetensors", metrics, quick)
            trainer.save(out / "checkpoint.safetensors")
    trainer.save(out / "checkpoint.safetensors")
    metrics = evaluate(trainer.model, val, len(val["image"]), far)
    log.metrics(trainer.step, metrics)
    log.close()
    export(trainer, out / f"{config.preset}.safetensors", metrics, len(val["image"]))
    return metrics


def measure(config: TrainConfig, weights: Path, cache: Path, show: Show = _quiet) -> Metrics:
    """Metrics of a weights file on ``config.val_scenes`` held-out pictures.

    Raises:
        ValueError, OSError: the file is no weights file, or pictures cannot be read
    """
    model = load_weights(weights)
    val = load_data(config, model.config, cache, "val", config.val_scenes, show)
    model.to(Processes.start(config.device).device)
    result: Metrics = evaluate(model, val, len(val["image"]), config.data_set.far)
    return result
