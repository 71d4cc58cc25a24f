"""Fine-tuning of the Brevitas model: one step, checkpoints."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgemoe_models.checkpoint import load_checkpoint
from edgemoe_models.config import ModelConfig, TaskConfig
from edgemoe_models.m3vit import M3ViT
from edgemoe_models.ptq.quantize import data_set_pictures
from edgemoe_models.qat import storage
from edgemoe_models.qat.config import QatOptions
from edgemoe_models.qat.initialize import from_float
from edgemoe_models.qat.layers import shared_weights
from edgemoe_models.qat.model import QuantM3ViT
from edgemoe_models.storage import checks
from edgemoe_models.storage.json_text import parse_json
from edgemoe_models.train.augmentation import Strong
from edgemoe_models.train.config import require_classes, unlike_classes
from edgemoe_models.train.data import draw_batch
from edgemoe_models.train.losses import class_weights, distillation_loss, task_loss
from edgemoe_models.train.optimizer import Average
from edgemoe_models.train.processes import find_device
from edgemoe_models.train.resident import Resident
from edgemoe_models.train.trainer import load_weights

__all__ = ["QatTrainer"]

Arrays = dict[str, np.ndarray[Any, Any]]
#: Options that a resumed run must have in common with the one that it goes on from.
_SAME = (
    *("weights", "expert_bits", "scales", "batch", "learning_rate", "balance", "seed"),
    *("ema", "distill", "data", "train_scenes", "augment", "zoom", "mix", "class_balance"),
)


class QatTrainer:
    """Model, optimizer, random state and step number; what a checkpoint holds. The float model of a distillation is
    read from its own file, also by a resumed run."""

    def __init__(self, options: QatOptions, model: QuantM3ViT, device: torch.device) -> None:
        self.options, self.device = options, device
        self.model: QuantM3ViT = model.to(device)
        self.teacher: M3ViT | None = None
        self.teacher_digest = ""
        parameters = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.Adam(parameters, lr=options.learning_rate, betas=(0.9, 0.98))
        self.generator = torch.Generator().manual_seed(options.seed)
        self.average = Average(model, options.ema) if options.ema else None
        self.class_weights: Tensor | None = None
        self.step = 0
        self.seconds = 0.0

    @classmethod
    def start(cls, options: QatOptions, cache: Path) -> QatTrainer:
        """From a float checkpoint, quantized after training; ``cache`` keeps photographs as arrays."""
        device = find_device(options.device)
        state, config = load_checkpoint(options.weights)
        _check_tasks(options, config)
        images = data_set_pictures(options.data_set, options.data_root, cache, config)
        model = from_float(state, config, images, options.expert_bits, options.scales == "power-of-two")
        trainer = cls(options, model, device)
        trainer._take_teacher()
        return trainer

    def _take_teacher(self) -> None:
        """The float model that is distilled, if any."""
        if self.options.distill:
            teacher = load_weights(Path(self.options.weights)).requires_grad_(False)
            self.teacher_digest = _digest(teacher)
            self.teacher = teacher.to(self.device)

    @property
    def best_model(self) -> QuantM3ViT:
        """What is measured and kept: the average where there is one."""
        return self.average.model if self.average else self.model

    @property
    def name(self) -> str:
        """Of the files that training gives: ``m3vit-micro-w4a8`` has experts of 4 bits."""
        config = self.model.config
        return f"{config.model.name}-w{config.expert_bits}a8" + "-power-of-two" * config.power_of_two

    @property
    def progress(self) -> float:
        """Share of the run that is done, 0..1."""
        if self.options.minutes:
            return self.seconds / (60 * self.options.minutes)
        return self.step / self.options.steps

    def prepared(self, data: Arrays) -> Arrays | Resident:
        """Training data as ``train_step`` wants it; also sets the classes' weights."""
        options, classes = self.options, len(self.options.data_set.class_names)
        if options.class_balance and "segmentation" in data:
            weights = class_weights(data["segmentation"], classes, options.class_balance)
            self.class_weights = weights.to(self.device)
        if options.augment == "light":
            return data
        strong = Strong(options.zoom, options.mix, classes=classes)
        return Resident(data, self.device, strong, self.options.data_set.edges_of_classes)

    def train_step(self, data: Arrays | Resident) -> dict[str, float]:
        """One update from a batch of each task; returns the losses by task, and ``balance``."""
        start = time.monotonic()
        tasks = self.model.config.model.tasks
        for group in self.optimizer.param_groups:
            group["lr"] = self.options.rate(self.step, self.progress)
        if not self.model.training:
            self.model.train()
        self.optimizer.zero_grad()
        if isinstance(data, Resident):
            data.seed(int(np.random.SeedSequence([self.options.seed, self.step]).generate_state(1, np.uint32)[0]))
        losses = {"balance": 0.0}
        with shared_weights(self.model):
            for task in tasks:
                loss = self._loss(task, *self._draw(data, task.kind))
                balance = self.model.balance_loss()
                (loss + self.options.balance * balance).backward()
                losses[task.name] = loss.item()
                losses["balance"] += balance.item() / len(tasks)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        if self.average:
            self.average.update(self.model, self.step)
        self.step += 1
        self.seconds += time.monotonic() - start
        return losses

    def _loss(self, task: TaskConfig, images: Tensor, label: Tensor) -> Tensor:
        """Against the labels, the float model's outputs, or both in their shares."""
        share, far = self.options.distill, self.options.data_set.far
        output = self.model(images, task.name)
        losses = []
        if share < 1:
            losses.append((1 - share) * task_loss(output, label, task, far, self.class_weights))
        if self.teacher is not None:
            with torch.no_grad():
                target = self.teacher(images, task.name)
            losses.append(share * distillation_loss(output, target, task, far))
        return torch.stack(losses).sum()

    def _draw(self, data: Arrays | Resident, kind: str) -> tuple[Tensor, Tensor]:
        if isinstance(data, Resident):
            return data.draw(kind, self.options.batch)
        return draw_batch(data, kind, self.options.batch, self.generator, device=self.device)

    def save(self, path: Path) -> None:
        """Write everything that ``resume`` needs besides the options' files."""
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": value for name, value in state.items()}
        if self.average:
            tensors |= {f"average.{name}": value for name, value in self.average.model.state_dict().items()}
        tensors["random.data"] = self.generator.get_state()
        storage.write(path, tensors, self.metadata())

    def metadata(self) -> dict[str, str]:
        """Of a checkpoint or of the final weights: the model, and how it came to be."""
        return storage.model_metadata(self.model.config) | {
            "train": json.dumps(dataclasses.asdict(self.options)),
            "seed": str(self.options.seed),
            "steps": str(self.step),
            "train_seconds": repr(self.seconds),
            "teacher": self.teacher_digest,
        }

    @classmethod
    def resume(cls, options: QatOptions, path: Path) -> QatTrainer:
        """Continue from a checkpoint.

        Raises:
            ValueError: it cannot be read, was made with other options (an end or intervals may differ), or the data set
                has other classes now, or the float model that is distilled other weights.
        """
        device = find_device(options.device)
        tensors, metadata = storage.read(path)
        try:
            trainer = cls._resumed(options, device, tensors, metadata)
        except (KeyError, TypeError, RuntimeError, ValueError, OverflowError) as error:
            reason = str(error).partition("\n")[0]
            raise ValueError(f"{path}: not a checkpoint of this training ({reason})") from None
        _check_tasks(options, trainer.model.config.model)
        trainer._take_teacher()
        if trainer.teacher_digest != metadata.get("teacher", ""):
            raise ValueError(f"{options.weights} has other weights than when {path} was made; put those back to go on")
        return trainer

    @classmethod
    def _resumed(
        cls, options: QatOptions, device: torch.device, tensors: dict[str, Tensor], metadata: dict[str, str]
    ) -> QatTrainer:
        wanted = dataclasses.asdict(options)
        found = checks.record(parse_json(metadata.get("train", "{}")), "train", (), others=True)
        usual = {field.name: field.default for field in dataclasses.fields(options)}
        for field in _SAME:
            # An option that the checkpoint does not know had the effect of its default.
            if (had := found.get(field, usual[field])) != wanted[field]:
                raise ValueError(
                    f"it was made with {field.replace('_', '-')} {checks.shown(had)}, "
                    f"not {wanted[field]!r}; give the same options to continue it"
                )
        model = storage.rebuild({name[6:]: v for name, v in tensors.items() if name.startswith("model.")}, metadata)
        trainer = cls(options, model, device)
        if trainer.average:
            kept = {name[8:]: value for name, value in tensors.items() if name.startswith("average.")}
            trainer.average.model.load_state_dict(kept)
            # Brevitas makes its quantizers anew when a state is loaded: on the CPU, and trainable.
            trainer.average.model.to(device).requires_grad_(False)
        moments: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith("optimizer."):
                _, index, name = key.split(".")
                moments.setdefault(int(index), {})[name] = value
        trainer.optimizer.load_state_dict({**trainer.optimizer.state_dict(), "state": moments})
        trainer.generator.set_state(tensors["random.data"])
        trainer.step, trainer.seconds = int(metadata["steps"]), float(metadata["train_seconds"])
        return trainer


def _digest(model: M3ViT) -> str:
    """Of a model's shape and weights."""
    digest = hashlib.sha256(model.config.to_json().encode())
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode() + value.numpy().tobytes())
    return digest.hexdigest()


def _check_tasks(options: QatOptions, model: ModelConfig) -> None:
    """ValueError where the data set, or its augmentation, has no labels of the model's tasks."""
    data_set = options.data_set
    if unknown := [task.kind for task in model.tasks if task.kind not in data_set.kinds]:
        raise ValueError(f"the model must have tasks of {options.data} only, not {', '.join(unknown)}; see --data")
    require_classes(options.weights, model, data_set)
    if options.augment == "strong" and (unfit := unlike_classes(data_set, model)):
        raise ValueError(f"augment must be light to train {', '.join(unfit)} on {options.data}, not 'strong'")
