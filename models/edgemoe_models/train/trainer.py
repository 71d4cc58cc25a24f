"""The state of a training run: one step, checkpoints, and the weights that come of it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgemoe_models.config import DEPTH_SCALE, ModelConfig, TaskConfig
from edgemoe_models.datasets.arrays import Arrays
from edgemoe_models.evaluation.evaluate import evaluate as measure
from edgemoe_models.float_reference import check_shapes
from edgemoe_models.m3vit import M3ViT, MoE
from edgemoe_models.storage import checks
from edgemoe_models.storage.json_text import parse_json
from edgemoe_models.storage.torch_tensors import load_state, read_torch, write_torch
from edgemoe_models.train.config import TrainConfig
from edgemoe_models.train.data import draw_batch, pixels
from edgemoe_models.train.losses import task_loss
from edgemoe_models.train.processes import Processes

_STATE = ("step", "seconds", "best", "scaler")  # of a checkpoint, besides its tensors


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
        for task in self.drawn_tasks():
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

    def drawn_tasks(self) -> list[TaskConfig]:
        """The tasks of the next step: all, or as many as the configuration says, drawn anew."""
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
        """Write everything that ``load`` needs."""
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{k}": v for k, v in state.items()}
        tensors["random.data"] = self.generator.get_state()
        best = self.best if math.isfinite(self.best) else None
        state = {"step": self.step, "seconds": self.seconds, "best": best, "scaler": self.scaler.state_dict()}
        metadata = {"config": self.model_config.to_json(), "train": json.dumps(dataclasses.asdict(self.config))}
        write_torch(path, tensors, metadata | {"state": json.dumps(state, allow_nan=False)})

    def load(self, path: Path) -> None:
        """Continue from a checkpoint; ValueError if it is of another model."""
        tensors, metadata = read_torch(path)
        try:
            found, own = ModelConfig.from_json(metadata["config"]), self.model_config
            if other := [f.name for f in dataclasses.fields(own) if getattr(found, f.name) != getattr(own, f.name)]:
                raise ValueError(f"it must be of {own.name}, not of {found.name} with another {', '.join(other)}")
            self._restore(tensors, checks.record(parse_json(metadata["state"]), "state", _STATE))
        except (KeyError, TypeError, RuntimeError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            raise ValueError(f"{path}: not a checkpoint of a training run ({reason})") from None

    def _restore(self, tensors: Mapping[str, Tensor], state: dict[str, Any]) -> None:
        """Take everything over from a checkpoint's tensors and state."""
        step = checks.integer(state["step"], "step", 0, 1 << 40)
        seconds, best = checks.number(state["seconds"], "seconds", 0), _best(state["best"])
        load_state(self.model, {k[6:]: v for k, v in tensors.items() if k.startswith("model.")})
        moments: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith("optimizer."):
                _, index, name = key.split(".")
                moments.setdefault(int(index), {})[name] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})
        self.generator.set_state(tensors["random.data"])
        self.step, self.seconds, self.best = step, seconds, best
        if state.get("scaler"):
            self.scaler.load_state_dict(state["scaler"])


def _best(value: object) -> float:
    """The best score so far; JSON has no -infinity, so null says that there is none."""
    return -math.inf if value is None else checks.number(value, "best")


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
    write_torch(path, trainer.model.state_dict(), metadata)


def take_weights(model: M3ViT, path: Path) -> None:
    """Start from a weights file: tensors of the same name and shape are taken, the rest stays as drawn."""
    found = {key: value.float() for key, value in read_torch(path)[0].items()}
    own = model.state_dict()
    fitting = {key: value for key, value in found.items() if key in own and own[key].shape == value.shape}
    if not fitting:
        raise ValueError(f"{path} must have tensors that fit {model.config.name}, but none does")
    model.load_state_dict(own | fitting)


def load_weights(path: Path) -> M3ViT:
    """The model of an exported weights file, ready to evaluate.

    Raises:
        FileNotFoundError: there is no such file
        ValueError: it cannot be read, or its tensors are not those of its config
    """
    tensors, metadata = read_torch(path)
    if "config" not in metadata:
        raise ValueError(f"{path} must have metadata 'config', not only {sorted(metadata)!r}")
    try:
        config = ModelConfig.from_json(metadata["config"])
        check_shapes(config, {name: tuple(tensor.shape) for name, tensor in tensors.items()})
        model = M3ViT(config)
        load_state(model, {name: tensor.float() for name, tensor in tensors.items()})
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    result: M3ViT = model.eval()
    return result
