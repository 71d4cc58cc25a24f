"""The optimizer's groups of parameters, and the moving average of the weights."""

from __future__ import annotations

import copy
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from edgemoe_models.m3vit import M3ViT
from edgemoe_models.train.config import TrainConfig

_Model = TypeVar("_Model", bound=nn.Module)


def make_optimizer(model: M3ViT, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW: matrices decay, vectors and position embeddings do not; each group's ``lr_scale`` is its layer's.

    With ``layer_decay`` d the head and the last norm learn at the whole rate, the last block at d of it, the one
    before it at d * d, and so on down to the patch embedding (Clark et al. 2020).
    """
    decayed = [name for name, p in model.named_parameters() if p.dim() >= 2 and p is not model.pos_embed]
    groups: dict[tuple[float, bool], list[Tensor]] = {(1.0, True): [], (1.0, False): []}
    matrices = set(decayed)
    for name, parameter in model.named_parameters():
        scale = config.layer_decay ** _layers_above(name, model.config.depth)
        groups.setdefault((scale, name in matrices), []).append(parameter)
    listed: list[dict[str, Any]] = [
        {"params": parameters, "weight_decay": config.weight_decay if is_matrix else 0.0, "lr_scale": scale}
        for (scale, is_matrix), parameters in groups.items()
        if parameters
    ]
    on_gpu = model.pos_embed.is_cuda  # there one kernel in place of a dozen
    return torch.optim.AdamW(listed, lr=config.learning_rate, betas=(0.9, 0.98), fused=True if on_gpu else None)


def _layers_above(name: str, depth: int) -> int:
    """How many layers lie above a parameter's, of: the embedding, each block, the heads."""
    parts = name.split(".")
    if parts[0] in ("norm", "heads"):
        return 0
    return depth - int(parts[1]) if parts[0] == "blocks" else depth + 1


def set_drop_path(model: M3ViT, share: float) -> None:
    """From 0 in the first block to ``share`` in the last (Huang et al. 2016)."""
    for index, block in enumerate(model.blocks):
        block.drop = share * index / max(len(model.blocks) - 1, 1)


class Average(Generic[_Model]):
    """Exponential moving average of a model's weights.

    Args:
        model: whose weights
        decay: of the average a step; at first less, so that the start is forgotten soon

    Attributes:
        model: a copy with the average
    """

    def __init__(self, model: _Model, decay: float) -> None:
        self.decay = decay
        self.model = copy.deepcopy(model).requires_grad_(False).eval()

    @torch.no_grad()
    def update(self, model: _Model, step: int) -> None:
        """Take the weights after step number ``step``, counted from 0, into account."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.model.parameters()), list(model.parameters()), 1 - decay)
