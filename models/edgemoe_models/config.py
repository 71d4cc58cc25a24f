"""The model's shape: one frozen, validated dataclass, its JSON form and the presets.

Needs neither NumPy nor torch, so the compiler and the on-board runtime can read a model's shape anywhere.
"""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

from edgemoe_models.config_fields import LIMITS, require_fields, require_int, require_labels, require_name
from edgemoe_models.storage.checks import shown
from edgemoe_models.storage.json_text import JsonError, parse_json

__all__ = [
    "ACTIVATIONS",
    "DEPTH_SCALE",
    "IMAGE_CHANNELS",
    "LIMITS",
    "POOLS",
    "PRESETS",
    "TASK_KINDS",
    "ModelConfig",
    "TaskConfig",
]

#: Metres a unit of a depth head's raw output: ``depth_in_metres = output * DEPTH_SCALE``.
DEPTH_SCALE = 10.0

#: What a task head may predict.
TASK_KINDS = ("segmentation", "depth", "normals", "edges", "classification", "features")

#: What the head of a whole picture may read, and how many sets of outputs a row of it has then (``TaskConfig.pool``).
POOLS = {"cls": 1, "avg": 1, "avg-norm": 1, "cls-dist": 2, "cls-avg": 2}

#: Activation functions of MLPs, experts and heads, and how they are written. GELU is the exact one (erf), SiLU
#: x * sigmoid(x), QuickGELU x * sigmoid(1.702 x).
ACTIVATIONS = {"gelu": "GELU", "silu": "SiLU", "relu": "ReLU", "quick-gelu": "QuickGELU"}

_WHOLE_PICTURE = ("classification", "features")
_FIXED_CHANNELS = {"depth": 1, "normals": 3, "edges": 1}
IMAGE_CHANNELS = 3

#: Fields that are left out of a config's text where they have their default: older files have none of them.
_LATER = ("prefix_tokens", "activation", "pool", "labels")


@dataclasses.dataclass(frozen=True)
class TaskConfig:
    """One task: its gate in every MoE block and its head.

    The head sees the tokens after the final LayerNorm: every patch token for a dense task, what ``pool`` says for
    ``classification`` and ``features``, which are of the whole picture. A dense head's outputs are ordered
    (cell_y, cell_x, channel).

    Attributes:
        name: the task's name, a key of gates and heads
        kind: one of ``TASK_KINDS``
        channels: classes of segmentation or classification, width of features; 1 for depth and edges, 3 for normals
        head_hidden: width of the hidden layer of a two-layer head; 0 for one linear layer
        cells: output cells along one side of a patch; 1 for the whole picture
        pool: what a head of the whole picture reads. ``cls``: token 0. ``avg``: the mean of the patch tokens; the
            accelerator computes the head of each, and the host the mean of the outputs, which is the same as a head is
            linear. ``avg-norm``: the mean of the patch tokens before the final LayerNorm, which with the head is the
            host's. ``cls-dist``: the mean of a head on token 0 and another on token 1, whose outputs come second in
            every row (a distilled DeiT's). ``cls-avg``: the sum of a head on token 0 and another on the patch tokens'
            mean, likewise
        labels: names of the classes, in their order; () where they have none

    Raises:
        ValueError: a field is out of range.
    """

    name: str
    kind: str
    channels: int
    head_hidden: int = 0
    cells: int = 1
    pool: str = "cls"
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require_name("TaskConfig", self.name)
        if self.kind not in TASK_KINDS:
            raise ValueError(f"TaskConfig.kind must be one of {TASK_KINDS}, not {shown(self.kind)}")
        require_int("TaskConfig", "channels", self.channels, 1)
        fixed = _FIXED_CHANNELS.get(self.kind)
        if fixed is not None and self.channels != fixed:
            raise ValueError(f"TaskConfig.channels of {self.kind} must be {fixed}, not {self.channels!r}")
        require_int("TaskConfig", "head_hidden", self.head_hidden, 0)
        require_int("TaskConfig", "cells", self.cells, 1)
        if not self.is_dense and self.cells != 1:
            raise ValueError(f"TaskConfig.cells of {self.kind} must be 1, not {self.cells!r}")
        if self.pool not in POOLS:
            raise ValueError(f"TaskConfig.pool must be one of {tuple(POOLS)}, not {shown(self.pool)}")
        if self.pool != "cls" and (self.is_dense or self.head_hidden):
            raise ValueError(
                f"TaskConfig.pool {self.pool!r} is of linear heads of the whole picture, not of {self.kind} with "
                f"head_hidden {self.head_hidden}"
            )
        require_labels(self.labels, self.kind, self.channels)
        require_int("TaskConfig", "head_outputs", self.head_outputs, 1)

    @property
    def is_dense(self) -> bool:
        """True when every patch token gives ``cells`` x ``cells`` outputs, False when the whole picture gives one."""
        return self.kind not in _WHOLE_PICTURE

    @property
    def is_finished_by_host(self) -> bool:
        """Whether the accelerator's outputs are the residual stream, and the host computes norm and head."""
        return self.pool == "avg-norm"

    @property
    def head_outputs(self) -> int:
        """Outputs of the head for one token: ``cells * cells * channels``, for each of the heads that read it."""
        return self.cells * self.cells * self.channels * POOLS[self.pool]

    @property
    def output_scale(self) -> float:
        """Physical units a unit of raw output: metres for depth, 1 for logits and unit vectors."""
        return DEPTH_SCALE if self.kind == "depth" else 1.0

    def class_name(self, number: int) -> str:
        """Of a class the task's own name, else its number: ``class 7``."""
        return self.labels[number] if self.labels else f"class {number}"


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """A multi-task (Mixture-of-Experts) Vision Transformer.

    Attributes:
        name: the model's name
        image_height: of the RGB input, in pixels, a multiple of ``patch``
        image_width: likewise
        patch: side of a square patch, in pixels
        dim: width D of a token
        depth: number of blocks
        heads: attention heads; must divide ``dim``
        mlp_hidden: hidden width of a dense block's MLP
        num_experts: experts of a MoE block; 0 for a model without experts
        top_k: experts a token visits
        expert_hidden: hidden width of one expert
        moe_every: block i is MoE iff ``num_experts > 0 and i % moe_every == moe_every - 1``
        tasks: at least one, with different names
        eps: of every LayerNorm
        prefix_tokens: tokens before those of the patches: 1, a class token; more with a distillation token or
            registers; 0 without
        activation: of every MLP, expert and head of two layers, one of ``ACTIVATIONS``

    Raises:
        ValueError: a field is out of range (``LIMITS``) or contradicts another.
    """

    name: str
    image_height: int
    image_width: int
    patch: int
    dim: int
    depth: int
    heads: int
    mlp_hidden: int
    num_experts: int
    top_k: int
    expert_hidden: int
    tasks: tuple[TaskConfig, ...]
    moe_every: int = 2
    eps: float = 1e-6
    prefix_tokens: int = 1
    activation: str = "gelu"

    def __post_init__(self) -> None:
        require_name("ModelConfig", self.name)
        for field in ("image_height", "image_width", "patch", "dim", "depth", "heads", "mlp_hidden", "moe_every"):
            require_int("ModelConfig", field, getattr(self, field), 1)
        for field in ("image_height", "image_width"):
            if getattr(self, field) % self.patch:
                value = getattr(self, field)
                raise ValueError(f"ModelConfig.{field} must be a multiple of patch ({self.patch}), not {value!r}")
        require_int("ModelConfig", "prefix_tokens", self.prefix_tokens, 0)
        require_int("ModelConfig", "num_tokens", self.num_tokens, 1)
        if self.dim % self.heads:
            raise ValueError(f"ModelConfig.heads must divide dim ({self.dim}), not {self.heads!r}")
        self._validate_experts()
        if not isinstance(self.activation, str) or self.activation not in ACTIVATIONS:
            raise ValueError(
                f"ModelConfig.activation must be one of {tuple(ACTIVATIONS)}, not {shown(self.activation)}"
            )
        if not isinstance(self.eps, float) or not (math.isfinite(self.eps) and self.eps > 0):
            raise ValueError(f"ModelConfig.eps must be a positive float, not {shown(self.eps)}")
        self._validate_tasks()

    def _validate_experts(self) -> None:
        for field in ("num_experts", "top_k", "expert_hidden"):
            require_int("ModelConfig", field, getattr(self, field), 0)
        if self.num_experts == 0:
            for field in ("top_k", "expert_hidden"):
                if getattr(self, field) != 0:
                    value = getattr(self, field)
                    raise ValueError(f"ModelConfig.{field} must be 0 without experts, not {value!r}")
            return
        if not 1 <= self.top_k <= self.num_experts:
            raise ValueError(f"ModelConfig.top_k must be in 1..num_experts ({self.num_experts}), not {self.top_k!r}")
        require_int("ModelConfig", "expert_hidden", self.expert_hidden, 1)

    def _validate_tasks(self) -> None:
        if not isinstance(self.tasks, tuple) or not self.tasks:
            raise ValueError(f"ModelConfig.tasks must be a non-empty tuple, not {shown(self.tasks)}")
        if len(self.tasks) > LIMITS["tasks"]:
            raise ValueError(f"ModelConfig.tasks must be at most {LIMITS['tasks']}, not {len(self.tasks)}")
        for task in self.tasks:
            if not isinstance(task, TaskConfig):
                raise ValueError(f"ModelConfig.tasks must hold TaskConfig, not {task!r}")
            if task.is_dense and task.cells > self.patch:
                raise ValueError(f"TaskConfig.cells must be at most patch ({self.patch}), not {task.cells!r}")
            need = 0 if task.is_dense or task.pool.startswith("avg") else 2 if task.pool == "cls-dist" else 1
            if self.prefix_tokens < need:
                raise ValueError(
                    f"ModelConfig.prefix_tokens must be at least {need} for the pool {task.pool!r} of the task "
                    f"{task.name}, not {self.prefix_tokens}"
                )
        names = [task.name for task in self.tasks]
        if len(set(names)) != len(names):
            raise ValueError(f"ModelConfig.tasks must have different names, not {names!r}")

    @property
    def grid(self) -> tuple[int, int]:
        """Patches down and across: (grid_h, grid_w)."""
        return self.image_height // self.patch, self.image_width // self.patch

    @property
    def num_patches(self) -> int:
        """Patches of an image; patch (y, x) is number ``y * grid_w + x``."""
        return self.grid[0] * self.grid[1]

    @property
    def num_tokens(self) -> int:
        """Tokens of the sequence: the prefix (cls is token 0), then the patches."""
        return self.num_patches + self.prefix_tokens

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.dim // self.heads

    @property
    def patch_inputs(self) -> int:
        """Inputs of the patch embedding: 3 * patch * patch, ordered (channel, y, x)."""
        return IMAGE_CHANNELS * self.patch * self.patch

    def is_moe(self, block: int) -> bool:
        """Whether block number ``block`` has experts in place of the dense MLP."""
        if not 0 <= block < self.depth:
            raise ValueError(f"block must be in 0..{self.depth - 1}, not {block!r}")
        return self.num_experts > 0 and block % self.moe_every == self.moe_every - 1

    def task(self, name: str) -> TaskConfig:
        """The task called ``name``; ValueError when there is none."""
        for task in self.tasks:
            if task.name == name:
                return task
        raise ValueError(f"task must be one of {[task.name for task in self.tasks]!r}, not {name!r}")

    def head_rows(self, name: str) -> tuple[int, int]:
        """The first of the tokens that a task's head reads, and how many there are: the rows of its outputs."""
        task = self.task(name)
        if task.is_dense or task.pool.startswith("avg"):
            return self.prefix_tokens, self.num_patches
        return 0, {"cls": 1, "cls-dist": 2, "cls-avg": self.num_tokens}[task.pool]

    def device_outputs(self, name: str) -> tuple[int, int]:
        """Rows and channels that the accelerator writes for a task: its head's, or the residual stream's."""
        task = self.task(name)
        return self.head_rows(name)[1], self.dim if task.is_finished_by_host else task.head_outputs

    def output_shape(self, name: str) -> tuple[int, ...]:
        """Shape of a task's raw output: (channels, grid_h*cells, grid_w*cells), or (channels,)."""
        task = self.task(name)
        if not task.is_dense:
            return (task.channels,)
        return task.channels, self.grid[0] * task.cells, self.grid[1] * task.cells

    def to_dict(self) -> dict[str, Any]:
        """As JSON types; ``from_dict`` inverts it."""
        tasks = [{**_plain(task), **({"labels": list(task.labels)} if task.labels else {})} for task in self.tasks]
        return {**_plain(self), "tasks": tasks}

    def to_json(self) -> str:
        """As one line of JSON with sorted keys, so equal configs give equal text."""
        return json.dumps(self.to_dict(), sort_keys=True)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> ModelConfig:
        """The config that ``to_dict`` wrote; ValueError for unknown, missing or bad fields."""
        fields = require_fields(cls, data)
        if not isinstance(fields["tasks"], (list, tuple)):
            raise ValueError(f"ModelConfig.tasks must be a list, not {shown(fields['tasks'])}")
        fields["tasks"] = tuple(_task(task) for task in fields["tasks"])
        return cls(**fields)

    @classmethod
    def from_json(cls, text: str) -> ModelConfig:
        """The config that ``to_json`` wrote."""
        try:
            data = parse_json(text)
        except JsonError as error:
            raise ValueError(f"ModelConfig must be JSON text: {error}") from None
        return cls.from_dict(data)


def _plain(owner: ModelConfig | TaskConfig) -> dict[str, Any]:
    """Its fields by name, but for later ones that have their default."""
    fields = dataclasses.fields(owner)
    kept = [f.name for f in fields if f.name not in _LATER or getattr(owner, f.name) != f.default]
    return {name: getattr(owner, name) for name in kept}


def _task(data: object) -> TaskConfig:
    fields = require_fields(TaskConfig, data)
    if isinstance(fields.get("labels"), list):
        fields["labels"] = tuple(fields["labels"])
    return TaskConfig(**fields)


def _dense_tasks(head_hidden: int, cells: int, *kinds: str) -> tuple[TaskConfig, ...]:
    """One task a kind, called like it."""
    return tuple(
        TaskConfig(kind, kind, _FIXED_CHANNELS.get(kind, 8), head_hidden=head_hidden, cells=cells) for kind in kinds
    )


#: The models that everything else names: Edge-MoE's workload, the trained default, a ViT without experts.
PRESETS: dict[str, ModelConfig] = {
    config.name: config
    for config in (
        ModelConfig(
            name="m3vit-tiny",
            image_height=128,
            image_width=256,
            patch=16,
            dim=192,
            depth=12,
            heads=3,
            mlp_hidden=768,
            num_experts=16,
            top_k=2,
            expert_hidden=384,
            tasks=_dense_tasks(0, 4, "segmentation", "depth"),
        ),
        ModelConfig(
            name="m3vit-micro",
            image_height=64,
            image_width=128,
            patch=8,
            dim=96,
            depth=6,
            heads=3,
            mlp_hidden=384,
            num_experts=8,
            top_k=2,
            expert_hidden=192,
            tasks=_dense_tasks(192, 8, "segmentation", "depth", "normals", "edges"),
        ),
        ModelConfig(
            name="deit-tiny",
            image_height=224,
            image_width=224,
            patch=16,
            dim=192,
            depth=12,
            heads=3,
            mlp_hidden=768,
            num_experts=0,
            top_k=0,
            expert_hidden=0,
            tasks=(TaskConfig("classification", "classification", channels=1000),),
        ),
    )
}
