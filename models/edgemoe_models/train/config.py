"""Options of a training run."""

from __future__ import annotations

import dataclasses
import functools
import math
from pathlib import Path
from typing import Any

from edgemoe_models.config import PRESETS, ModelConfig, TaskConfig
from edgemoe_models.datasets import DATA_SETS, DataSet, find
from edgemoe_models.datasets.files import size_of
from edgemoe_models.storage.checks import shown
from edgemoe_models.storage.json_text import JsonError, read_json
from edgemoe_models.storage.toml_text import TomlError, read_toml

PRECISIONS = ("float32", "bfloat16", "float16")
DEVICES = ("auto", "cpu", "cuda")
AUGMENTATIONS = ("light", "strong")
_CHANNELS = {"depth": 1, "normals": 3, "edges": 1}


def _is_dense(kind: str) -> bool:
    return kind != "classification"


def option(default: Any, text: str) -> Any:
    """A field with its default and its line of ``--help``."""
    return dataclasses.field(default=default, metadata={"help": text})


def scheduled_rate(peak: float, warmup: int, step: int, progress: float) -> float:
    """Learning rate: linear warm-up over ``warmup`` steps, cosine over ``progress`` 0..1 to 1 % of ``peak``."""
    cosine = 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
    return peak * min((step + 1) / max(warmup, 1), 0.01 + 0.99 * cosine)


def unlike_classes(data_set: DataSet, model: ModelConfig) -> list[str]:
    """The model's tasks whose labels do not follow from classes, so that the strong augmentation cannot change them."""
    fits = ("classification", "segmentation", *(["edges"] if data_set.edges_of_classes else []))
    return [task.kind for task in model.tasks if task.kind not in fits]


def require_classes(weights: str, model: ModelConfig, data: DataSet) -> None:
    """ValueError where the model's classes are not the data set's; it names the file ``weights``."""
    for task in model.tasks:
        if task.kind in ("segmentation", "classification") and task.kind in data.kinds:
            known = data.class_names
            if task.channels != len(known) or (task.labels and task.labels != known):
                raise ValueError(
                    f"{weights}: {task.name} has {task.channels} classes ({task.class_name(0)}, ...), but {data.name} "
                    f"has {len(known)} ({known[0]}, ...)"
                )


class CommonOptions:
    """What options of float and of quantization-aware training have in common, first of all the data set: ``data``,
    its name, and ``data_root``, its folder."""

    data: str
    data_root: str
    augment: str
    zoom: float
    mix: float
    mixup: float = 0.0  # quantization-aware training has none
    ema: float
    device: str

    def check_common(self) -> None:
        """ValueError where one of them is out of range."""
        for name, allowed in (("augment", AUGMENTATIONS), ("device", DEVICES)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {list(allowed)}, not {getattr(self, name)!r}")
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema must be at least 0 and below 1, not {self.ema!r}")
        if not 0 <= self.mix <= 1:
            raise ValueError(f"mix must be in 0..1, not {self.mix!r}")
        if not 0 <= self.mixup <= 100:
            raise ValueError(f"mixup must be in 0..100, not {self.mixup!r}")
        if not 1 <= self.zoom <= 8:
            raise ValueError(f"zoom must be in 1..8, not {self.zoom!r}")
        for name in ("mix", "mixup"):
            if (share := getattr(self, name)) and self.augment != "strong":
                raise ValueError(f"{name} must be 0 with augment {self.augment!r}, not {share!r}")

    @functools.cached_property
    def data_set(self) -> DataSet:
        """Where pictures come from.

        Raises:
            ValueError: it is unknown, or a damaged folder of classes
            FileNotFoundError: a folder that knows the classes is missing
        """
        return find(self.data).at(self.data_root)


@dataclasses.dataclass(frozen=True)
class TrainConfig(CommonOptions):
    """How to train.

    Raises:
        ValueError: an option that is out of range, or not of its default's type.
    """

    preset: str = option("m3vit-micro", f"model, one of {', '.join(sorted(PRESETS))}")
    tasks: str = option("", "of the data set's labels, between commas; default: the preset's, or all of them")
    image_size: str = option("", "HEIGHTxWIDTH of the model's pictures, of whole patches; default: the preset's")
    head_hidden: int = option(-1, "width of the heads' hidden layer, 0 for none; -1: the preset's")
    cells: int = option(0, "of a patch's side that dense heads predict; 0: the preset's")
    tasks_per_step: int = option(0, "tasks that a step trains, drawn anew each time; 0: all")
    steps: int = option(3000, "length of the run")
    minutes: float = option(0.0, "of training time; when not 0, they end the run and its schedule in place of steps")
    wall_clock: bool = option(False, "count evaluations and checkpoints among the minutes")
    batch: int = option(32, "pictures of each task in a step, of all processes together")
    learning_rate: float = option(1e-3, "highest, after the warm-up")
    weight_decay: float = option(0.05, "of matrices")
    warmup: int = option(200, "steps of it")
    balance: float = option(0.01, "weight of the balance loss")
    gate_noise: float = option(1.0, "deviation of the noise on the gates' logits, in 1 / experts")
    layer_decay: float = option(1.0, "of the learning rate, from each block to the one before it; 1: none")
    drop_path: float = option(0.0, "share of pictures that skip the last block; the first one's is 0")
    ema: float = option(0.0, "decay of the weights' moving average, which is then what is measured and kept; 0: none")
    class_balance: float = option(0.0, "power of the classes' median-frequency weights; 0: none, 1: as published")
    augment: str = option("light", f"how pictures are changed, one of {', '.join(AUGMENTATIONS)}")
    zoom: float = option(2.0, "largest scale of the strong augmentation")
    mix: float = option(0.0, "share of pictures that get a rectangle of another one, of the strong augmentation")
    mixup: float = option(0.0, "of classification: alpha of the shares in which two pictures are mixed; 0: none")
    label_smoothing: float = option(0.0, "of classification: share of a label that all classes get")
    workers: int = option(0, "processes that generate scenes while training goes on; 0: all scenes first, cached")
    seed: int = option(1, "of weights, batches and noise")
    init: str = option("", "weights file to start from; what fits is taken")
    data: str = option("scenes", f"data set, one of {', '.join(DATA_SETS)}")
    data_root: str = option("", "folder of the data set")
    train_scenes: int = option(20000, "pictures to train on, at most")
    val_scenes: int = option(768, "held-out pictures to measure, at most")
    split: str = option("val", "held-out pictures that --evaluate measures, val or test")
    label_size: str = option("", "HEIGHTxWIDTH of the labels that --evaluate compares with; default: the picture's")
    details: bool = option(False, "--evaluate tells class accuracy, boundary F1 and each class's IoU, too")
    evaluate_minutes: float = option(5.0, "of training time between evaluations and checkpoints")
    device: str = option("auto", f"one of {', '.join(DEVICES)}; auto: a GPU if there is one")
    precision: str = option("float32", f"of products, one of {', '.join(PRECISIONS)}; weights stay in float32")
    tensorboard: bool = option(False, "also write TensorBoard's files to <out>/tensorboard")

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value, wanted = getattr(self, field.name), type(field.default)
            fits = isinstance(value, (int, float) if wanted is float else wanted)
            if not fits or (isinstance(value, bool) and wanted is not bool):
                raise ValueError(f"{field.name} must be of type {wanted.__name__}, not {value!r}")
        choices = {
            "preset": sorted(PRESETS),
            "precision": PRECISIONS,
            "split": ("val", "test"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {list(allowed)}, not {getattr(self, name)!r}")
        for name in ("steps", "batch", "train_scenes", "val_scenes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)!r}")
        for name in ("minutes", "gate_noise", "tasks_per_step", "class_balance", "cells", "workers"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, not {getattr(self, name)!r}")
        self._check_ranges()
        if self.tasks_per_step > (tasks := len(self.model_config.tasks)):
            raise ValueError(f"tasks_per_step must be at most the tasks' number {tasks}, not {self.tasks_per_step!r}")

    def _check_ranges(self) -> None:
        if self.head_hidden < -1:
            raise ValueError(f"head_hidden must be at least -1, not {self.head_hidden!r}")
        self.check_common()
        for name in ("drop_path", "label_smoothing"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 0 and below 1, not {getattr(self, name)!r}")
        if not 0 < self.layer_decay <= 1:
            raise ValueError(f"layer_decay must be above 0 and at most 1, not {self.layer_decay!r}")
        self._check_kinds()
        if self.workers and self.data != "scenes":
            raise ValueError(f"workers must be 0 with data {self.data!r}: they generate scenes")

    def _check_kinds(self) -> None:
        """Options that are of some kinds of tasks only."""
        kinds = [task.kind for task in self.model_config.tasks]
        is_whole = "classification" in kinds  # no data set has both
        for name in ("mixup", "label_smoothing"):
            if getattr(self, name) and not is_whole:
                raise ValueError(f"{name} must be 0 without a classification, not {getattr(self, name)!r}")
        if is_whole and self.class_balance:
            raise ValueError(f"class_balance must be 0 with a classification, not {self.class_balance!r}")
        if self.label_shape is not None and is_whole:
            raise ValueError(f"label_size must be empty with a classification, not {self.label_size!r}")
        if self.augment == "strong":
            if unfit := unlike_classes(self.data_set, self.model_config):
                raise ValueError(f"augment must be light to train {', '.join(unfit)} on {self.data}, not 'strong'")

    @property
    def model_config(self) -> ModelConfig:
        """The preset with the chosen tasks, their heads' form, the data set's classes, and the pictures' size."""
        preset = PRESETS[self.preset]
        kinds = self.data_set.kinds
        usual = [task.kind for task in preset.tasks if task.kind in kinds]
        if not usual and not any(_is_dense(kind) for kind in kinds):
            usual = list(kinds)
        wanted = [name.strip() for name in self.tasks.split(",")] if self.tasks else usual
        if not wanted:
            raise ValueError(f"preset must have dense tasks only to be trained on {self.data}, not {self.preset!r}")
        if unknown := [name for name in wanted if name not in kinds]:
            raise ValueError(f"tasks of {self.data} must be among {list(kinds)}, not {unknown!r}")
        if size := size_of(self.image_size, "image_size"):
            preset = dataclasses.replace(preset, image_height=size[0], image_width=size[1])
        own_heads = self.head_hidden < 0 and not self.cells
        if not self.tasks and self.data == "scenes" and own_heads:
            return preset
        return dataclasses.replace(preset, tasks=tuple(self._task(preset.tasks[0], kind) for kind in wanted))

    def _task(self, form: TaskConfig, kind: str) -> TaskConfig:
        """A task of a kind, whose head has the form of a preset's where that is possible."""
        names = tuple(self.data_set.class_names) if kind in ("segmentation", "classification") else ()
        channels = len(names) or _CHANNELS[kind]
        labels = () if self.data == "scenes" else names
        if not _is_dense(kind):  # one linear layer on one token, unless another is asked for
            return TaskConfig(kind, kind, channels, max(self.head_hidden, 0), self.cells or 1, labels=labels)
        hidden = form.head_hidden if self.head_hidden < 0 else self.head_hidden
        return TaskConfig(kind, kind, channels, hidden, self.cells or form.cells, labels=labels)

    @property
    def label_shape(self) -> tuple[int, int] | None:
        """Height and width of ``label_size``; None for the picture's."""
        return size_of(self.label_size)

    def rate(self, step: int, progress: float) -> float:
        """Learning rate of a step, see ``scheduled_rate``."""
        return scheduled_rate(self.learning_rate, self.warmup, step, progress)


def read_options(path: Path) -> dict[str, Any]:
    """Options of a TOML or JSON file, whose keys are the fields of ``TrainConfig``; ValueError for others."""
    try:
        options = read_json(path) if path.suffix == ".json" else read_toml(path)
    except (JsonError, TomlError) as error:
        raise ValueError(f"{path} must be TOML, or JSON with a name that ends in .json: {error}") from None
    known = [field.name for field in dataclasses.fields(TrainConfig)]
    if not isinstance(options, dict) or (unknown := sorted(set(options) - set(known))):
        found = unknown if isinstance(options, dict) else options
        raise ValueError(f"{path} must have keys among {known}, not {shown(found)}")
    return options
