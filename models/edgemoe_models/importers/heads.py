"""A plain ViT's final LayerNorm and head, or the want of one, as one of our tasks."""

from __future__ import annotations

import numpy as np

from edgemoe_models.config import TaskConfig
from edgemoe_models.float_reference import Floats
from edgemoe_models.importers.assumptions import Assumptions
from edgemoe_models.importers.common import Source, take_linear, take_norm
from edgemoe_models.importers.options import ImportRefused


def take_head(
    source: Source, assumptions: Assumptions, tokens: tuple[bool, bool], dim: int, notes: list[str]
) -> tuple[TaskConfig, dict[str, Floats]]:
    """The task, and the tensors of the final LayerNorm and of its head.

    Two heads on two tokens (distilled DeiT), or one on the class token beside the patch tokens' mean (DINOv2), become
    one layer with both sets of outputs, of which the host takes what it needs: ``TaskConfig.pool``. A network without
    a head gets one of the identity, so that its task gives what the final LayerNorm does.

    Args:
        source: the checkpoint
        assumptions: what was said of the head
        tokens: whether there is a class token, and a distillation token
        dim: width D
        notes: what the user shall know is added

    Raises:
        ImportRefused: there are parts of a head, or two LayerNorms, or --pool contradicts the tensors
    """
    after_pool = "fc_norm.weight" in source.left
    if after_pool and "norm.weight" in source.left:
        raise ImportRefused("the network has two LayerNorms behind its blocks (norm and fc_norm), ours has one")
    norm = take_norm(source, "fc_norm" if after_pool else "norm", dim)
    state = {f"norm.{name.rpartition('.')[2]}": value for name, value in norm.items()}
    take = _classification if "head.weight" in source.left else _features
    task, weight, bias = take(source, assumptions, tokens, after_pool, dim, notes)
    return task, state | {f"heads.{task.name}.weight": weight, f"heads.{task.name}.bias": bias}


def _classification(
    source: Source, assumptions: Assumptions, tokens: tuple[bool, bool], after_pool: bool, dim: int, notes: list[str]
) -> tuple[TaskConfig, Floats, Floats]:
    channels, inputs = source.shape("head.weight", 2)
    bias = source.take("head.bias", channels)
    if inputs == 2 * dim and tokens[0]:
        pool = "cls-avg"
        assumptions.pool("cls", is_certain=True)
        both = source.take("head.weight", channels, inputs)
        weight = np.concatenate([both[:, :dim], both[:, dim:]])
        bias = np.concatenate([bias, np.zeros(channels, np.float32)])
        notes.append("the head reads the class token and the mean of the patch tokens")
    elif "head_dist.weight" in source.left:
        pool = "cls-dist"
        assumptions.pool("cls", is_certain=True)
        second = take_linear(source, "head_dist", channels, dim, "head")
        weight = np.concatenate([source.take("head.weight", channels, dim), second["head.weight"]])
        bias = np.concatenate([bias, second["head.bias"]])
        notes.append("the mean of both heads' outputs, as a distilled DeiT is evaluated")
    else:
        pool = _pool(assumptions, tokens[0], after_pool)
        weight = source.take("head.weight", channels, dim)
    labels = assumptions.facts.labels if len(assumptions.facts.labels) == channels else ()
    return TaskConfig("classification", "classification", channels, pool=pool, labels=labels), weight, bias


def _features(
    source: Source, assumptions: Assumptions, tokens: tuple[bool, bool], after_pool: bool, dim: int, notes: list[str]
) -> tuple[TaskConfig, Floats, Floats]:
    _refuse_parts(source, dim)
    identity, zero = np.eye(dim, dtype=np.float32), np.zeros(dim, np.float32)
    pool = _pool(assumptions, tokens[0], after_pool)
    if tokens[1] and assumptions.facts.pool is None and pool == "cls":
        pool = "cls-dist"
        identity, zero = np.concatenate([identity, identity]), np.concatenate([zero, zero])
    reads = {"cls": "the class token", "cls-dist": "the mean of class and distillation token"}
    what = reads.get(pool, "the mean of the patch tokens")
    notes.append(f"no head (head.weight): the task 'features' gives {what}, {dim} values")
    return TaskConfig("features", "features", dim, pool=pool), identity, zero


def _pool(assumptions: Assumptions, has_cls: bool, after_pool: bool) -> str:
    pool = assumptions.pool("cls" if has_cls and not after_pool else "avg", is_certain=not has_cls)
    return "avg-norm" if after_pool and pool == "avg" else pool


def _refuse_parts(source: Source, dim: int) -> None:
    """Say so where there is something of a head, or what may be one under another name."""
    others = [name for name, array in source.left.items() if array.ndim == 2 and array.shape[1] == dim]
    others = [name for name in others if not name.startswith(("blocks.", "mask_token", "pooler."))]
    if others or "head.bias" in source.left:
        hint = f"; {', '.join(others)} may be one: rename it" if others else ""
        raise ImportRefused(
            "the checkpoint has no classification head (head.weight): timm makes it with num_classes above 0" + hint
        )
