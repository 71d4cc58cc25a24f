"""The fine-tuning loop and its command line."""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import sys
from pathlib import Path

import torch
from rich.progress import Progress

from edgemoe_models.evaluation.evaluate import evaluate, integer_outputs
from edgemoe_models.graph.file import write_graph
from edgemoe_models.graph.integer_graph import IntegerGraph
from edgemoe_models.qat import storage
from edgemoe_models.qat.export import export
from edgemoe_models.qat.trainer import Arrays, QatOptions, QatTrainer
from edgemoe_models.train import load_scenes

__all__ = ["main", "run"]

Metrics = dict[str, dict[str, float]]
_DESCRIPTION = """\
Fine-tune a float checkpoint with the accelerator's integer arithmetic in the loop. The folder --out gets
checkpoint.safetensors (what --resume needs), log.csv and at the end, NAME being such as m3vit-micro-w4a8,
NAME.safetensors (the Brevitas model's parameters) and NAME.graph.safetensors (the integer graph to compile)."""
_LOG_STEPS = 10


def run(options: QatOptions, out: Path, cache: Path, resume: bool) -> Metrics:
    """Train to the end, write the model and its graph, and return the graph's metrics on held-out scenes.

    Raises:
        ValueError: bad weights, a bad checkpoint, or a model that scenes cannot train.
    """
    checkpoint = out / "checkpoint.safetensors"
    trainer = QatTrainer.resume(options, checkpoint) if resume else QatTrainer.start(options)
    config = trainer.model.config.model
    train = load_scenes(config, cache, "train", options.train_scenes)
    val = load_scenes(config, cache, "val", options.val_scenes)
    out.mkdir(parents=True, exist_ok=True)
    _train(trainer, train, out)
    trainer.save(checkpoint)
    graph = export(trainer.model)
    write_graph(graph, out / f"{trainer.name}.graph.safetensors")
    metrics = measure(graph, val, options.val_scenes)
    found = {"metrics": json.dumps(metrics), "metrics_split": f"val, first {options.val_scenes} scenes"}
    storage.write(out / f"{trainer.name}.safetensors", trainer.model.state_dict(), trainer.metadata() | found)
    return metrics


def measure(graph: IntegerGraph, val: Arrays, count: int) -> Metrics:
    """Metrics of the integer graph on the first ``count`` scenes."""
    return evaluate(graph.config, lambda task, images: integer_outputs(graph, task, images), val, count)


def _train(trainer: QatTrainer, train: Arrays, out: Path) -> None:
    saved = trainer.seconds
    with Progress() as bar:
        shown = bar.add_task(trainer.name, total=1.0)
        while trainer.progress < 1:
            losses = trainer.train_step(train)
            text = " ".join(f"{name} {value:.3f}" for name, value in losses.items())
            bar.update(shown, completed=trainer.progress, description=f"step {trainer.step}: {text}")
            if trainer.step % _LOG_STEPS == 0:
                _log(out / "log.csv", {"step": trainer.step, "seconds": trainer.seconds, **losses})
            if trainer.seconds - saved > 60 * trainer.options.save_minutes:
                saved = trainer.seconds
                trainer.save(out / "checkpoint.safetensors")


def _log(path: Path, row: dict[str, float]) -> None:
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        if new:
            writer.writeheader()
        writer.writerow({name: round(value, 4) for name, value in row.items()})


def main(arguments: list[str] | None = None) -> int:
    """Command line of :func:`run`; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m edgemoe_models.qat", description=_DESCRIPTION, formatter_class=argparse.RawTextHelpFormatter
    )
    for field in dataclasses.fields(QatOptions):
        name = "--" + field.name.replace("_", "-")
        parser.add_argument(name, type=type(field.default), default=field.default, help="default: %(default)s")
    parser.add_argument("--out", type=Path, default=Path("build/qat"), help="default: %(default)s")
    parser.add_argument("--cache", type=Path, default=Path("build/scenes"), help="folder that keeps generated scenes")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="default: all cores")
    parser.add_argument("--resume", action="store_true", help="continue from --out's checkpoint")
    values = vars(parser.parse_args(arguments))
    out, cache, resume = (values.pop(name) for name in ("out", "cache", "resume"))
    torch.set_num_threads(values.pop("threads"))
    try:
        metrics = run(QatOptions(**values), out, cache, resume)
    except (ValueError, OSError) as error:
        print(f"qat: {error}", file=sys.stderr)
        return 1
    print(json.dumps(metrics, indent=1))
    return 0
