"""The state of a training run: one step, checkpoints, and the weights that come of it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from edgemoe_models.config import DEPTH_SCALE, ModelConfig, TaskConfig
from edgemoe_models.datasets.arrays import Arrays
from edgemoe_models.evaluation.evaluate import evaluate as measure
from edgemoe_models.m3vit import M3ViT, MoE
from edgemoe_models.train.config import TrainConfig
from edgemoe_models.train.data import draw_batch, pixels
from edgemoe_models.train.losses import task_loss
from edgemoe_models.train.processes import Processes


class Trainer:
    """Model, optimizer, random state and step number; what a checkpoint holds.

    Raises:
        ValueError: options that do not fit each other or the machine; FileNotFoundError: no file ``config.init``.
    """

    def __init__(self, config: TrainConfig, processes: Processes | None = None) -> None:
        self.config = config
        self.model_config = config.model_config
        self.processes = processes or Processes()
        device = self.processes.device
        if config.batch % self.processes.count:
            wanted = f"batch must be a multiple of the number of processes ({self.processes.count})"
            raise ValueError(f"{wanted}, not {config.batch!r}")
        torch.manual_seed(config.seed)
        self.model = M3ViT(self.model_config)
        for module in self.model.modules():
            if isinstance(module, MoE):
                module.noise *= config.gate_noise
        if config.init:
            take_weights(self.model, Path(config.init))
        self.model.to(device)
        self.joined = self.processes.joined(self.model)
        decayed = [p for p in self.model.parameters() if p.dim() >= 2 and p is not self.model.pos_embed]
        rest = [p for p in self.model.parameters() if not any(p is q for q in decayed)]
        groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": rest, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.98))
        self.scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "float16")
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
        """One update; returns the losses by task, and ``balance``, of this process's share of the batches."""
        start = time.monotonic()
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.rate(self.step, self.progress)
        self._seed_noise()
        self.model.train()
        self.optimizer.zero_grad()
        losses: dict[str, Tensor] = {}
        balances = []
        for task in self._drawn_tasks():
            loss, balance = self._losses(task, data)
            self.scaler.scale(loss + self.config.balance * balance).backward()
            losses[task.name] = loss.detach()
            balances.append(balance.detach())
        self.scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        result = {"balance": torch.stack(balances).mean().item()} | {name: loss.item() for name, loss in losses.items()}
        self.step += 1
        self.seconds = self.processes.agreed(self.seconds + time.monotonic() - start)
        return result

    def _seed_noise(self) -> None:
        """The gates' noise depends on seed, step and process alone, so a resumed run goes on as if uninterrupted."""
        entropy = np.random.SeedSequence([self.config.seed, self.step, self.processes.rank])
        torch.manual_seed(int(entropy.generate_state(1, np.uint32)[0]))

    def _drawn_tasks(self) -> list[TaskConfig]:
        tasks, count = self.model_config.tasks, self.config.tasks_per_step
        if not count:
            return list(tasks)
        return [tasks[i] for i in torch.randperm(len(tasks), generator=self.generator)[:count].sort().values]

    def _losses(self, task: TaskConfig, data: Arrays) -> tuple[Tensor, Tensor]:
        """The task's loss and the balance loss of its gates, on this process's share of a new batch."""
        processes, config = self.processes, self.config
        images, label = draw_batch(data, task.kind, config.batch, self.generator, processes.share, processes.device)
        with self._autocast():
            output = self.joined(images, task.name)
        return task_loss(output.float(), label, task, config.data_set.far), self.model.balance_loss()

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self.config.precision == "float32":
            return contextlib.nullcontext()
        context: contextlib.AbstractContextManager[Any] = torch.autocast(
            self.processes.device.type, getattr(torch, self.config.precision)
        )
        return context

    def save(self, path: Path) -> None:
        """Write everything that :meth:`load` needs."""
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{k}": v for k, v in state.items()}
        tensors["random.data"] = self.generator.get_state()
        state = {"step": self.step, "seconds": self.seconds, "best": self.best, "scaler": self.scaler.state_dict()}
        metadata = {"config": self.model_config.to_json(), "train": json.dumps(dataclasses.asdict(self.config))}
        write_tensors(path, tensors, metadata | {"state": json.dumps(state)})

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
        self.generator.set_state(tensors["random.data"])
        state = json.loads(metadata["state"])
        self.step, self.seconds, self.best = state["step"], state["seconds"], state["best"]
        if state.get("scaler"):
            self.scaler.load_state_dict(state["scaler"])


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file whole or not at all."""
    partial = path.with_suffix(".partial")
    save_file({name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}, partial, metadata)
    os.replace(partial, path)


@torch.no_grad()
def evaluate(model: M3ViT, data: Arrays, count: int, far: float = DEPTH_SCALE) -> dict[str, dict[str, float]]:
    """Metrics of every task on the first ``count`` pictures; ``far`` is the data set's."""
    model.eval()
    device = model.cls_token.device

    def outputs(task: str, images: Any) -> Any:
        return model(pixels(images, device), task).cpu().numpy()

    return measure(model.config, outputs, data, count, far)


def score(metrics: dict[str, dict[str, float]]) -> float:
    """One number to choose weights by, larger is better."""
    signs = {"miou": 1.0, "rmse": -0.1, "mean_angle": -0.01, "f1": 1.0}
    return sum(sign * task[name] for task in metrics.values() for name, sign in signs.items() if name in task)


def export(trainer: Trainer, path: Path, metrics: dict[str, dict[str, float]], count: int) -> None:
    """Write the weights with their metadata: config, metrics, and how they came to be."""
    data = trainer.config.data
    metadata = {
        "config": trainer.model_config.to_json(),
        "metrics": json.dumps(metrics),
        "metrics_split": f"val, first {count} " + ("scenes" if data == "scenes" else f"pictures of {data}"),
        "class_names": json.dumps(trainer.config.data_set.class_names),
        "train": json.dumps(dataclasses.asdict(trainer.config)),
        "seed": str(trainer.config.seed),
        "steps": str(trainer.step),
        "train_seconds": f"{trainer.seconds:.0f}",
    }
    write_tensors(path, trainer.model.state_dict(), metadata)


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
