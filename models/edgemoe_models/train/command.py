"""The training loop and its command line.

The folder ``--out`` gets ``checkpoint.safetensors`` (everything that a resumed run needs), ``best.safetensors``
(weights of the best evaluation so far), ``log.csv`` and at the end ``<preset>.safetensors`` with its metrics on
held-out pictures.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress

from edgemoe_models.datasets.arrays import Arrays
from edgemoe_models.train.config import TrainConfig, read_options
from edgemoe_models.train.data import load_data
from edgemoe_models.train.logs import Log
from edgemoe_models.train.processes import Processes
from edgemoe_models.train.trainer import Trainer, evaluate, export, load_weights, score

Metrics = dict[str, dict[str, float]]
_LOG_STEPS = 25
_QUICK = 256  # pictures of an evaluation during training


def run(config: TrainConfig, out: Path, cache: Path, resume: bool) -> Metrics:
    """Train to the end and return the final metrics on all held-out pictures ({} in all processes but the first)."""
    processes = Processes.start(config.device)
    trainer = Trainer(config, processes)
    if resume:
        trainer.load(out / "checkpoint.safetensors")
    if not processes.is_first:
        processes.wait()  # the first prepares the data
    train = load_data(config, trainer.model_config, cache, "train", config.train_scenes)
    val = load_data(config, trainer.model_config, cache, "val", config.val_scenes)
    out.mkdir(parents=True, exist_ok=True)
    if processes.is_first:
        processes.wait()
        metrics = _train(trainer, train, val, out)
    else:
        metrics = {}
        while trainer.progress < 1:
            trainer.train_step(train)
    processes.wait()
    processes.end()
    return metrics


def _train(trainer: Trainer, train: Arrays, val: Arrays, out: Path) -> Metrics:
    """The loop of the first process, which shows, logs, evaluates and saves."""
    config, far = trainer.config, trainer.config.data_set.far
    log = Log(out, [task.name for task in trainer.model_config.tasks], config.tensorboard)
    quick = min(_QUICK, len(val["image"]))
    evaluated = trainer.seconds
    with Progress() as bar:
        shown = bar.add_task(config.preset, total=1.0)
        while trainer.progress < 1:
            losses = trainer.train_step(train)
            text = " ".join(f"{name} {value:.3f}" for name, value in losses.items())
            bar.update(shown, completed=trainer.progress, description=f"step {trainer.step}: {text}")
            if trainer.step % _LOG_STEPS == 0:
                log.losses(trainer.step, trainer.seconds, losses)
            if trainer.seconds - evaluated > 60 * config.evaluate_minutes:
                evaluated = trainer.seconds
                metrics = evaluate(trainer.model, val, quick, far)
                bar.print(trainer.step, metrics)
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="edgemoe-train", description="Train a preset on several tasks.")
    parser.add_argument("--config", type=Path, help="TOML or JSON file of options; the command line goes before it")
    for field in dataclasses.fields(TrainConfig):
        name, text = "--" + field.name.replace("_", "-"), field.metadata["help"]
        if field.default not in ("", False):
            text += f" (default: {field.default})"
        if isinstance(field.default, bool):
            parser.add_argument(name, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, help=text)
        else:
            parser.add_argument(name, type=type(field.default), metavar="X", default=argparse.SUPPRESS, help=text)
    parser.add_argument("--out", type=Path, help="default: build/train/<preset>")
    parser.add_argument("--cache", type=Path, default=Path("build/scenes"), help="prepared pictures; %(default)s")
    parser.add_argument("--resume", action="store_true", help="continue from <out>/checkpoint.safetensors")
    parser.add_argument("--evaluate", type=Path, help="only measure this weights file on --val-scenes pictures")
    parser.add_argument("--threads", type=int, default=1, help="of torch on the CPU; default: %(default)s")
    return parser


def _measure(config: TrainConfig, weights: Path, cache: Path) -> Metrics:
    model = load_weights(weights)
    val = load_data(config, model.config, cache, "val", config.val_scenes)
    model.to(Processes.start(config.device).device)
    return evaluate(model, val, len(val["image"]), config.data_set.far)


def main(arguments: list[str] | None = None) -> None:
    """Command line of :func:`run`."""
    values: dict[str, Any] = vars(_parser().parse_args(arguments))
    file, out, cache, resume, weights, threads = (
        values.pop(name) for name in ("config", "out", "cache", "resume", "evaluate", "threads")
    )
    torch.set_num_threads(threads)
    try:
        config = TrainConfig(**((read_options(file) if file else {}) | values))
        if weights:
            metrics = _measure(config, weights, cache)
        else:
            metrics = run(config, out or Path("build/train") / config.preset, cache, resume)
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from error
    if metrics:
        print(json.dumps(metrics, indent=1))
