"""Training of a preset on generated scenes: ``python -m edgemoe_models.train --preset m3vit-micro --minutes 45``.

A step takes one batch of each task, each through that task's gate and head, and sums the losses. The folder
``--out`` gets ``checkpoint.safetensors`` (everything that a resumed run needs), ``best.safetensors`` (weights of the
best evaluation so far), ``log.csv`` and at the end ``<preset>.safetensors`` with its metrics on held-out scenes.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import math
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from rich.progress import Progress, track
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from edgemoe_models import scenes
from edgemoe_models.config import PRESETS, ModelConfig, TaskConfig
from edgemoe_models.dataset import MILLIMETRES, NORMAL_STEPS, load_split
from edgemoe_models.evaluate import evaluate as measure
from edgemoe_models.model import M3ViT

Arrays = dict[str, np.ndarray[Any, Any]]


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How to train. ``minutes`` (of training time), when not 0, ends the run and its schedule in place of ``steps``."""

    preset: str = "m3vit-micro"
    steps: int = 3000
    minutes: float = 0.0
    batch: int = 32
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    warmup: int = 200
    balance: float = 0.01
    seed: int = 1
    init: str = ""
    train_scenes: int = 20000
    val_scenes: int = 768
    evaluate_minutes: float = 5.0

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise ValueError(f"preset must be one of {sorted(PRESETS)}, not {self.preset!r}")
        for field in ("steps", "batch", "train_scenes", "val_scenes"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field} must be at least 1, not {getattr(self, field)!r}")
        if self.minutes < 0:
            raise ValueError(f"minutes must be at least 0, not {self.minutes!r}")
        if not all(task.is_dense for task in PRESETS[self.preset].tasks):
            raise ValueError(f"preset must have dense tasks only to be trained on scenes, not {self.preset!r}")

    def rate(self, step: int, progress: float) -> float:
        """Learning rate: linear warm-up over ``warmup`` steps, cosine over ``progress`` 0..1 to 1 %."""
        cosine = 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
        return self.learning_rate * min((step + 1) / max(self.warmup, 1), 0.01 + 0.99 * cosine)


def task_loss(output: Tensor, label: Tensor, task: TaskConfig) -> Tensor:
    """Loss of one task, a scalar. output: [B, channels, H, W]; label as stored by :mod:`dataset`."""
    if task.kind == "segmentation":
        return F.cross_entropy(output, label.long())
    if task.kind == "depth":  # metres; a metre of error weighs about as much as a nat, the sky a quarter
        metres = label.float() / MILLIMETRES
        error = F.smooth_l1_loss(output[:, 0] * task.output_scale, metres, beta=0.5, reduction="none")
        weight = torch.where(metres < task.output_scale, 1.0, 0.25)
        return (error * weight).sum() / weight.sum()
    if task.kind == "normals":
        normals = label.float().permute(0, 3, 1, 2) / NORMAL_STEPS
        valid = normals.square().sum(1) > 0
        return ((1 - F.cosine_similarity(output, normals)) * valid).sum() / valid.sum().clamp(min=1)
    return F.binary_cross_entropy_with_logits(output[:, 0], label.float(), pos_weight=output.new_tensor(4.0))


def augment(images: Tensor, label: Tensor, generator: torch.Generator, kind: str) -> tuple[Tensor, Tensor]:
    """Mirror half of the batch; change brightness and contrast. images: [B, 3, H, W] in 0..1."""
    mirrored = torch.rand(len(images), generator=generator) < 0.5
    if kind != "edges":  # an edge is marked on the left of two pixels, so mirroring would shift it
        images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
        flipped = label.flip(2)
        if kind == "normals":
            flipped = flipped * torch.tensor([-1, 1, 1], dtype=flipped.dtype)
        label = torch.where(mirrored.view(-1, *[1] * (label.dim() - 1)), flipped, label)
    gain, shift = torch.rand(2, len(images), 1, 1, 1, generator=generator) * 0.4 - 0.2
    return (images * (1 + gain) + 0.5 * shift).clamp(0, 255 / 256), label


def pixels(images: np.ndarray[Any, Any]) -> Tensor:
    """uint8 [B, H, W, 3] -> float32 [B, 3, H, W], k / 256."""
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).float() / 256


class Trainer:
    """Model, optimizer, random state and step number; what a checkpoint holds."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.model_config = PRESETS[config.preset]
        torch.manual_seed(config.seed)
        self.model = M3ViT(self.model_config)
        if config.init:
            take_weights(self.model, Path(config.init))
        decayed = [p for p in self.model.parameters() if p.dim() >= 2 and p is not self.model.pos_embed]
        rest = [p for p in self.model.parameters() if not any(p is q for q in decayed)]
        groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": rest, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.98))
        self.generator = torch.Generator().manual_seed(config.seed)
        self.step = 0
        self.seconds = 0.0
        self.best = -math.inf

    @property
    def progress(self) -> float:
        """Share of the run that is done, 0..1."""
        if self.config.minutes:
            return self.seconds / (60 * self.config.minutes)
        return self.step / self.config.steps

    def train_step(self, data: Arrays) -> dict[str, float]:
        """One update; returns the losses by task, and ``balance``."""
        start = time.monotonic()
        config = self.config
        for group in self.optimizer.param_groups:
            group["lr"] = config.rate(self.step, self.progress)
        self.model.train()
        self.optimizer.zero_grad()
        losses: dict[str, float] = {"balance": 0.0}
        for task in self.model_config.tasks:
            picked = torch.randint(len(data["image"]), (config.batch,), generator=self.generator).sort().values
            label = torch.from_numpy(data[task.kind][picked.numpy()].astype(_TORCH_TYPES[task.kind]))
            images, label = augment(pixels(data["image"][picked.numpy()]), label, self.generator, task.kind)
            loss = task_loss(self.model(images, task.name), label, task)
            balance = self.model.balance_loss()
            (loss + config.balance * balance).backward()
            losses[task.name] = loss.item()
            losses["balance"] += balance.item() / len(self.model_config.tasks)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.step += 1
        self.seconds += time.monotonic() - start
        return losses

    def save(self, path: Path) -> None:
        """Write everything that :meth:`load` needs."""
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{k}": v for k, v in state.items()}
        tensors["random.torch"] = torch.get_rng_state()
        tensors["random.data"] = self.generator.get_state()
        state = {"step": self.step, "seconds": self.seconds, "best": self.best}
        metadata = {"config": self.model_config.to_json(), "train": json.dumps(dataclasses.asdict(self.config))}
        _save(tensors, path, metadata | {"state": json.dumps(state)})

    def load(self, path: Path) -> None:
        """Continue from a checkpoint; ValueError if it is of another model."""
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}
        found = metadata.get("config", "")
        if found != self.model_config.to_json():
            raise ValueError(f"{path} must be a checkpoint of {self.model_config.to_json()}, not {found!r}")
        self.model.load_state_dict({k[6:]: v for k, v in tensors.items() if k.startswith("model.")})
        moments: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith("optimizer."):
                _, index, name = key.split(".")
                moments.setdefault(int(index), {})[name] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})
        torch.set_rng_state(tensors["random.torch"])
        self.generator.set_state(tensors["random.data"])
        state = json.loads(metadata["state"])
        self.step, self.seconds, self.best = state["step"], state["seconds"], state["best"]


_TORCH_TYPES = {"segmentation": np.uint8, "depth": np.int32, "normals": np.int8, "edges": np.bool_}


def _save(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    """Write whole or not at all."""
    partial = path.with_suffix(".partial")
    save_file({k: v.detach().contiguous() for k, v in tensors.items()}, partial, metadata)
    os.replace(partial, path)


@torch.no_grad()
def evaluate(model: M3ViT, data: Arrays, count: int) -> dict[str, dict[str, float]]:
    """Metrics of every task on the first ``count`` scenes."""
    model.eval()
    return measure(model.config, lambda task, images: model(pixels(images), task).numpy(), data, count)


def score(metrics: dict[str, dict[str, float]]) -> float:
    """One number to choose weights by, larger is better."""
    signs = {"miou": 1.0, "rmse": -0.1, "mean_angle": -0.01, "f1": 1.0}
    return sum(sign * task[name] for task in metrics.values() for name, sign in signs.items() if name in task)


def export(trainer: Trainer, path: Path, metrics: dict[str, dict[str, float]], count: int) -> None:
    """Write the weights with their metadata: config, metrics, and how they came to be."""
    metadata = {
        "config": trainer.model_config.to_json(),
        "metrics": json.dumps(metrics),
        "metrics_split": f"val, first {count} scenes",
        "class_names": json.dumps(scenes.CLASS_NAMES),
        "train": json.dumps(dataclasses.asdict(trainer.config)),
        "seed": str(trainer.config.seed),
        "steps": str(trainer.step),
        "train_seconds": f"{trainer.seconds:.0f}",
    }
    _save(dict(trainer.model.state_dict()), path, metadata)


def take_weights(model: M3ViT, path: Path) -> None:
    """Start from a weights file: tensors of the same name and shape are taken, the rest stays as drawn."""
    with safe_open(path, "pt") as file:
        found = {key: file.get_tensor(key).float() for key in file.keys()}
    own = model.state_dict()
    fitting = {key: value for key, value in found.items() if key in own and own[key].shape == value.shape}
    if not fitting:
        raise ValueError(f"{path} must have tensors that fit {model.config.name}, but none does")
    model.load_state_dict(own | fitting)


def load_weights(path: Path) -> M3ViT:
    """The model of an exported weights file, ready to evaluate."""
    with safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
        if "config" not in metadata:
            raise ValueError(f"{path} must have metadata 'config', not only {sorted(metadata)!r}")
        model = M3ViT(ModelConfig.from_json(metadata["config"]))
        model.load_state_dict({key: file.get_tensor(key).float() for key in file.keys()})
    return model.eval()


def _log(path: Path, row: dict[str, float]) -> None:
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        if new:
            writer.writeheader()
        writer.writerow(row)


def load_scenes(config: ModelConfig, cache: Path, split: str, count: int) -> Arrays:
    """The first ``count`` scenes of a split with the labels of the model's tasks, generated if they are not cached."""

    def shown(indices: range) -> Iterable[int]:
        return track(indices, f"generating {split} scenes")

    labels = [task.kind for task in config.tasks]
    return load_split(cache, split, count, config.image_height, config.image_width, labels, shown)


def run(config: TrainConfig, out: Path, cache: Path, resume: bool) -> dict[str, dict[str, float]]:
    """Train to the end and return the final metrics on all held-out scenes."""
    out.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(config)
    if resume:
        trainer.load(out / "checkpoint.safetensors")
    train = load_scenes(trainer.model_config, cache, "train", config.train_scenes)
    val = load_scenes(trainer.model_config, cache, "val", config.val_scenes)
    quick = min(256, config.val_scenes)
    evaluated = trainer.seconds
    with Progress() as bar:
        shown = bar.add_task(config.preset, total=1.0)
        while trainer.progress < 1:
            losses = trainer.train_step(train)
            text = " ".join(f"{name} {value:.3f}" for name, value in losses.items())
            bar.update(shown, completed=trainer.progress, description=f"step {trainer.step}: {text}")
            if trainer.step % 25 == 0:
                row = {"step": trainer.step, "seconds": round(trainer.seconds, 1), **losses}
                _log(out / "log.csv", {name: round(value, 4) for name, value in row.items()})
            if trainer.seconds - evaluated > 60 * config.evaluate_minutes:
                evaluated = trainer.seconds
                metrics = evaluate(trainer.model, val, quick)
                bar.print(trainer.step, metrics)
                if score(metrics) > trainer.best:
                    trainer.best = score(metrics)
                    export(trainer, out / "best.safetensors", metrics, quick)
                trainer.save(out / "checkpoint.safetensors")
    metrics = evaluate(trainer.model, val, config.val_scenes)
    trainer.save(out / "checkpoint.safetensors")
    export(trainer, out / f"{config.preset}.safetensors", metrics, config.val_scenes)
    return metrics


def main(arguments: list[str] | None = None) -> None:
    """Command line of :func:`run`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for field in dataclasses.fields(TrainConfig):
        name = "--" + field.name.replace("_", "-")
        parser.add_argument(name, type=type(field.default), default=field.default, help="default: %(default)s")
    parser.add_argument("--out", type=Path, default=None, help="default: build/train/<preset>")
    parser.add_argument("--cache", type=Path, default=Path("build/scenes"), help="generated scenes")
    parser.add_argument("--resume", action="store_true", help="continue from <out>/checkpoint.safetensors")
    parser.add_argument("--evaluate", type=Path, help="only measure this weights file on --val-scenes scenes")
    parser.add_argument("--threads", type=int, default=1, help="of torch; default: %(default)s")
    values = vars(parser.parse_args(arguments))
    out, cache, resume, weights = (values.pop(name) for name in ("out", "cache", "resume", "evaluate"))
    torch.set_num_threads(values.pop("threads"))
    try:
        config = TrainConfig(**values)
        if weights:
            model = load_weights(weights)
            val = load_scenes(model.config, cache, "val", config.val_scenes)
            metrics = evaluate(model, val, config.val_scenes)
        else:
            metrics = run(config, out or Path("build/train") / config.preset, cache, resume)
    except (ValueError, FileNotFoundError) as error:
        raise SystemExit(f"error: {error}") from error
    print(json.dumps(metrics, indent=1))


if __name__ == "__main__":
    main()
