"""Models that tests quantize or train in a moment: one dense block and one with experts; the tasks are each test's."""

from __future__ import annotations

from typing import Any

from edgemoe_models.config import ModelConfig, TaskConfig

__all__ = ["to_quantize", "to_train"]


def to_quantize(*tasks: TaskConfig, **changes: Any) -> ModelConfig:
    """13 tokens of 40: widths that no lane count divides."""
    return _small(tasks, image_height=24, image_width=32, dim=40, mlp_hidden=72, expert_hidden=44, **changes)


def to_train(*tasks: TaskConfig, **changes: Any) -> ModelConfig:
    """9 tokens of 16."""
    return _small(tasks, image_height=16, image_width=32, dim=16, mlp_hidden=24, expert_hidden=12, **changes)


def _small(tasks: tuple[TaskConfig, ...], **fields: Any) -> ModelConfig:
    common = {"name": "small", "patch": 8, "depth": 2, "heads": 2, "num_experts": 4, "top_k": 2}
    return ModelConfig(**{**common, **fields, "tasks": tasks})
