"""The state of a training run: one step, checkpoints, and the weights that come of it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import time
from collections.abc import Callable, Mapping
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
from edgemoe_models.train.augmentation import Strong
from edgemoe_models.train.config import TrainConfig
from edgemoe_models.train.data import draw_batch, pixels
from edgemoe_models.train.losses import class_weights, task_loss
from edgemoe_models.train.optimizer import Average, make_optimizer, set_drop_path
from edgemoe_models.train.processes import Processes
from edgemoe_models.train.resident import Resident, size_of
from edgemoe_models.train.start import take_weights

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
        set_drop_path(self.model, config.drop_path)
        if config.init:
            take_weights(self.model, Path(config.init))
        self.model.to(device)
        self.joined = self.processes.joined(self.model)
        self.optimizer = make_optimizer(self.model, config)
        self.average = Average(self.model, config.ema) if config.ema else None
        self.class_weights: Tensor | None = None
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

    @property
    def best_model(self) -> M3ViT:
        """What is measured and kept: the average where there is one."""
        return self.average.model if self.average else self.model

    def prepared(self, data: Arrays, available: Callable[[], int] | None = None) -> Arrays | Resident:
        """Training data as ``train_step`` wants it: on the device where that is a GPU with room, or changes need it.

        Also sets the classes' weights.

        Args:
            data: arrays of the data set
            available: how many pictures are there by now, if not all; see ``Resident``
        """
        config, device = self.config, self.processes.device
        if config.class_balance and "segmentation" in data:
            count = len(config.data_set.class_names)
            self.class_weights = class_weights(data["segmentation"], count, config.class_balance).to(device)
        classes = len(config.data_set.class_names)
        strong = Strong(config.zoom, config.mix, config.mixup, classes) if config.augment == "strong" else None
        on_gpu = device.type == "cuda" and size_of(data) < torch.cuda.mem_get_info(device)[0] // 2
        if strong is None and available is None and not on_gpu:
            return data
        return Resident(data, device, strong, config.data_set.edges_of_classes, available)

    def train_step(self, data: Arrays | Resident) -> dict[str, float]:
        """One update; returns the losses by task, and ``balance``, of this process's share of the batches."""
        return {name: loss.item() for name, loss in self.update(data).items()}

    def update(self, data: Arrays | Resident) -> dict[str, Tensor]:
        """``train_step`` that leaves the losses on the device, so that a GPU is not waited for."""
        start = time.monotonic()
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.rate(self.step, self.progress) * group["lr_scale"]
        self._seed_noise(data)
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
        if self.average:
            self.average.update(self.model, self.step)
        self.step += 1
        self.seconds = self.processes.agreed(self.seconds + time.monotonic() - start)
        return {"balance": torch.stack(balances).mean()} | losses

    def _seed_noise(self, data: Arrays | Resident) -> None:
        """Noise depends on seed, step and process alone, so a resumed run goes on as if uninterrupted.

        A resident data set draws the same batch in all processes, of which each takes its share.
        """
        config = self.config
        entropy = np.random.SeedSequence([config.seed, self.step, self.processes.rank])
        torch.manual_seed(int(entropy.generate_state(1, np.uint32)[0]))
        if isinstance(data, Resident):
            data.seed(int(np.random.SeedSequence([config.seed, self.step]).generate_state(1, np.uint32)[0]))

    def drawn_tasks(self) -> list[TaskConfig]:
        """The tasks of the next step: all, or as many as the configuration says, drawn anew."""
        tasks, count = self.model_config.tasks, self.config.tasks_per_step
        if not count:
            return list(tasks)
        return [tasks[i] for i in torch.randperm(len(tasks), generator=self.generator)[:count].sort().values]

    def _losses(self, task: TaskConfig, data: Arrays | Resident) -> tuple[Tensor, Tensor]:
        """The task's loss and the balance loss of its gates, on this process's share of a new batch."""
        processes, config = self.processes, self.config
        if isinstance(data, Resident):
            images, label = data.draw(task.kind, config.batch, processes.share)
        else:
            images, label = draw_batch(data, task.kind, config.batch, self.generator, processes.share, processes.device)
        with self._autocast():
            output = self.joined(images, task.name)
        far, smoothing = config.data_set.far, config.label_smoothing
        loss = task_loss(output.float(), label, task, far, self.class_weights, smoothing)
        return loss, self.model.balance_loss()

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
        if self.average:
            tensors |= {f"average.{k}": v for k, v in self.average.model.state_dict().items()}
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
        if self.average:
            load_state(self.average.model, {k[8:]: v for k, v in tensors.items() if k.startswith("average.")})
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
def evaluate(
    model: M3ViT, data: Arrays, count: int, far: float = DEPTH_SCALE, details: bool = False
) -> dict[str, dict[str, float]]:
    """Metrics of every task on the first ``count`` pictures; ``far`` is the data set's, ``details`` of ``measure``."""
    model.eval()
    device = model.pos_embed.device

    def outputs(task: str, images: Any) -> Any:
        about = model.config.task(task)
        same = not about.is_dense or data[about.kind].shape[1:3] == images.shape[1:3]
        # Labels of another size: upsampled once, from what the head gives to theirs.
        return (model if same else model.raw)(pixels(images, device), task).cpu().numpy()

    return measure(model.config, outputs, data, count, far, details)


def score(metrics: dict[str, dict[str, float]]) -> float:
    """One number to choose weights by, larger is better."""
    signs = {"miou": 1.0, "rmse": -0.1, "mean_angle": -0.01, "f1": 1.0, "top1": 1.0}
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
    write_torch(path, trainer.best_model.state_dict(), metadata)


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
