"""The model's shape: one frozen, validated dataclass, its JSON form and the presets.

Needs neither NumPy nor torch, so the compiler and the on-board runtime can read a model's shape anywhere.
"""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

from edgemoe_models.storage.checks import shown
from edgemoe_models.storage.json_text import JsonError, parse_json

#: Metres a unit of a depth head's raw output: ``depth_in_metres = output * DEPTH_SCALE``.
DEPTH_SCALE = 10.0

#: What a task head may predict.
TASK_KINDS = ("segmentation", "depth", "normals", "edges", "classification")

_FIXED_CHANNELS = {"depth": 1, "normals": 3, "edges": 1}
IMAGE_CHANNELS = 3


#: The most of everything: well above any published vision transformer of the sizes that fit an FPGA, and low enough
#: that a damaged or hostile file cannot make a loop endless. Whatever a config says is held against the tensors of
#: its file before memory is allocated for it.
LIMITS = {
    "image_height": 8192,
    "image_width": 8192,
    "patch": 256,
    "dim": 8192,
    "depth": 256,
    "heads": 256,
    "mlp_hidden": 65536,
    "num_experts": 256,
    "top_k": 16,
    "expert_hidden": 65536,
    "moe_every": 256,
    "tasks": 32,
    "channels": 65536,
    "head_hidden": 65536,
    "cells": 256,
    "num_tokens": 65536,
    "head_outputs": 1 << 20,
}
_LONGEST_NAME = 64


def _require_int(owner: str, field: str, value: object, minimum: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise ValueError(f"{owner}.{field} must be an integer of at least {minimum}, not {shown(value)}")
    if value > LIMITS[field]:
        raise ValueError(f"{owner}.{field} must be at most {LIMITS[field]}, not {shown(value)}")


def _require_name(owner: str, value: object) -> None:
    is_name = isinstance(value, str) and value.replace("-", "_").isidentifier() and value.isascii()
    if not is_name or len(str(value)) > _LONGEST_NAME:
        raise ValueError(
            f"{owner}.name must be letters, digits, '_' and '-', at most {_LONGEST_NAME}, not {shown(value)}"
        )


def _require_fields(cls: type, data: object) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise ValueError(f"{cls.__name__} must be a JSON object, not {shown(data)}")
    known = {field.name for field in dataclasses.fields(cls)}
    if unknown := sorted(set(data) - known):
        raise ValueError(f"{cls.__name__}'s fields must be among {sorted(known)}, not {shown(unknown)}")
    required = {f.name for f in dataclasses.fields(cls) if f.default is dataclasses.MISSING}
    if missing := sorted(required - set(data)):
        raise ValueError(f"{cls.__name__} must have the fields {missing!r}, not only {shown(sorted(data))}")
    return dict(data)


@dataclasses.dataclass(frozen=True)
class TaskConfig:
    """One task: its gate in every MoE block and its head.

    The head sees the tokens after the final LayerNorm: every patch token for a dense task, the cls token for
    ``classification``. A dense head's outputs are ordered (cell_y, cell_x, channel).

    Attributes:
        name: the task's name, a key of gates and heads
        kind: one of ``TASK_KINDS``
        channels: classes of segmentation or classification; 1 for depth and edges, 3 for normals
        head_hidden: width of the hidden GELU layer of a two-layer head; 0 for one linear layer
        cells: output cells along one side of a patch; 1 for classification

    Raises:
        ValueError: a field is out of range.
    """

    name: str
    kind: str
    channels: int
    head_hidden: int = 0
    cells: int = 1

    def __post_init__(self) -> None:
        _require_name("TaskConfig", self.name)
        if self.kind not in TASK_KINDS:
            raise ValueError(f"TaskConfig.kind must be one of {TASK_KINDS}, not {shown(self.kind)}")
        _require_int("TaskConfig", "channels", self.channels, 1)
        fixed = _FIXED_CHANNELS.get(self.kind)
        if fixed is not None and self.channels != fixed:
            raise ValueError(f"TaskConfig.channels of {self.kind} must be {fixed}, not {self.channels!r}")
        _require_int("TaskConfig", "head_hidden", self.head_hidden, 0)
        _require_int("TaskConfig", "cells", self.cells, 1)
        if not self.is_dense and self.cells != 1:
            raise ValueError(f"TaskConfig.cells of classification must be 1, not {self.cells!r}")
        _require_int("TaskConfig", "head_outputs", self.head_outputs, 1)

    @property
    def is_dense(self) -> bool:
        """True when every patch token gives ``cells`` x ``cells`` outputs, False when only cls does."""
        return self.kind != "classification"

    @property
    def head_outputs(self) -> int:
        """Outputs of the head for one token: ``cells * cells * channels``."""
        return self.cells * self.cells * self.channels

    @property
    def output_scale(self) -> float:
        """Physical units a unit of raw output: metres for depth, 1 for logits and unit vectors."""
        return DEPTH_SCALE if self.kind == "depth" else 1.0


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

    def __post_init__(self) -> None:
        _require_name("ModelConfig", self.name)
        for field in ("image_height", "image_width", "patch", "dim", "depth", "heads", "mlp_hidden", "moe_every"):
            _require_int("ModelConfig", field, getattr(self, field), 1)
        for field in ("image_height", "image_width"):
            if getattr(self, field) % self.patch:
                value = getattr(self, field)
                raise ValueError(f"ModelConfig.{field} must be a multiple of patch ({self.patch}), not {value!r}")
        _require_int("ModelConfig", "num_tokens", self.num_tokens, 1)
        if self.dim % self.heads:
            raise ValueError(f"ModelConfig.heads must divide dim ({self.dim}), not {self.heads!r}")
        self._validate_experts()
        if not isinstance(self.eps, float) or not (math.isfinite(self.eps) and self.eps > 0):
            raise ValueError(f"ModelConfig.eps must be a positive float, not {shown(self.eps)}")
        self._validate_tasks()

    def _validate_experts(self) -> None:
        for field in ("num_experts", "top_k", "expert_hidden"):
            _require_int("ModelConfig", field, getattr(self, field), 0)
        if self.num_experts == 0:
            for field in ("top_k", "expert_hidden"):
                if getattr(self, field) != 0:
                    value = getattr(self, field)
                    raise ValueError(f"ModelConfig.{field} must be 0 without experts, not {value!r}")
            return
        if not 1 <= self.top_k <= self.num_experts:
            raise ValueError(f"ModelConfig.top_k must be in 1..num_experts ({self.num_experts}), not {self.top_k!r}")
        _require_int("ModelConfig", "expert_hidden", self.expert_hidden, 1)

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
        """Tokens of the sequence: cls (token 0), then the patches."""
        return self.num_patches + 1

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

    def output_shape(self, name: str) -> tuple[int, ...]:
        """Shape of a task's raw output: (channels, grid_h*cells, grid_w*cells), or (channels,)."""
        task = self.task(name)
        if not task.is_dense:
            return (task.channels,)
        return task.channels, self.grid[0] * task.cells, self.grid[1] * task.cells

    def to_dict(self) -> dict[str, Any]:
        """As JSON types; ``from_dict`` inverts it."""
        data = dataclasses.asdict(self)
        data["tasks"] = list(data["tasks"])
        return data

    def to_json(self) -> str:
        """As one line of JSON with sorted keys, so equal configs give equal text."""
        return json.dumps(self.to_dict(), sort_keys=True)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> ModelConfig:
        """The config that ``to_dict`` wrote; ValueError for unknown, missing or bad fields."""
        fields = _require_fields(cls, data)
        if not isinstance(fields["tasks"], (list, tuple)):
            raise ValueError(f"ModelConfig.tasks must be a list, not {shown(fields['tasks'])}")
        fields["tasks"] = tuple(TaskConfig(**_require_fields(TaskConfig, task)) for task in fields["tasks"])
        return cls(**fields)

    @classmethod
    def from_json(cls, text: str) -> ModelConfig:
        """The config that ``to_json`` wrote."""
        try:
            data = parse_json(text)
        except JsonError as error:
            raise ValueError(f"ModelConfig must be JSON text: {error}") from None
        return cls.from_dict(data)


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
