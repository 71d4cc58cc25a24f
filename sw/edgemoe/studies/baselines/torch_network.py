"""The float model in PyTorch as the baselines take it: uint8 pixels in, head outputs out. Needs torch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgemoe.studies.baselines.workload import Workload
from edgemoe_models.m3vit import M3ViT, MoE, select_experts

__all__ = ["BaselineNetwork", "DenseExperts", "LinearExperts", "build_network"]


class BaselineNetwork(nn.Module):
    """One task of M3ViT: images uint8 [B, H, W, 3] -> head outputs [B, rows, outputs]."""

    def __init__(self, model: M3ViT, task: str) -> None:
        super().__init__()
        self.model, self.task = model, task

    def forward(self, images: Tensor) -> Tensor:
        model = self.model
        x = model.tokens(images.permute(0, 3, 1, 2).to(model.pos_embed.dtype) / 256)
        for block in model.blocks:
            x = block(x, self.task)
        first, count = model.config.head_rows(self.task)
        x = x[:, first : first + count]
        if model.config.task(self.task).is_finished_by_host:
            x = x.mean(1, keepdim=True)
        x = model.norm(x)
        rows: Tensor = model.heads[self.task](x)
        return rows


class DenseExperts(nn.Module):
    """All experts on all tokens, as one wide MLP whose hidden values are multiplied by the chosen experts' scores.

    Its shapes do not depend on data, so it can be compiled whole and captured as a CUDA graph.
    """

    def __init__(self, moe: MoE) -> None:
        super().__init__()
        self.gate, self.top_k, self.activate = moe.gate, moe.top_k, moe.activate
        self.experts, self.hidden, dim = moe.w1.shape
        self.w1 = nn.Parameter(moe.w1.detach().reshape(-1, dim))
        self.b1 = nn.Parameter(moe.b1.detach().reshape(-1))
        self.w2 = nn.Parameter(moe.w2.detach().transpose(1, 2).reshape(-1, dim))  # [E*H, D]
        self.b2 = nn.Parameter(moe.b2.detach())

    def forward(self, x: Tensor, task: str) -> Tensor:
        tokens = x.reshape(-1, x.shape[-1])
        gate = self.gate[task]
        logits = tokens.to(gate.dtype) @ gate.t()
        best, chosen = select_experts(logits, self.top_k)
        scores = torch.zeros_like(logits).scatter(1, chosen, best).to(tokens.dtype)  # [N, E]
        hidden = self.activate(F.linear(tokens, self.w1, self.b1)).unflatten(1, (self.experts, self.hidden))
        hidden = (hidden * scores[:, :, None]).flatten(1)
        return torch.addmm(scores @ self.b2, hidden, self.w2).view_as(x)


class LinearExperts(nn.Module):
    """Sparse experts made of ``nn.Linear``, which is what PyTorch's dynamic quantization replaces."""

    def __init__(self, moe: MoE) -> None:
        super().__init__()
        self.gate, self.top_k, self.activate = moe.gate, moe.top_k, moe.activate
        self.first = nn.ModuleList(_linear(w, b) for w, b in zip(moe.w1, moe.b1, strict=True))
        self.second = nn.ModuleList(_linear(w, b) for w, b in zip(moe.w2, moe.b2, strict=True))

    def forward(self, x: Tensor, task: str) -> Tensor:
        tokens = x.reshape(-1, x.shape[-1])
        scores, chosen = select_experts(tokens @ self.gate[task].t(), self.top_k)
        flat = chosen.reshape(-1)
        order = flat.argsort(stable=True)
        queues = (order // self.top_k).split(flat.bincount(minlength=len(self.first)).tolist())
        outputs = [
            second(self.activate(first(tokens[queue])))
            for first, second, queue in zip(self.first, self.second, queues, strict=True)
        ]
        weighted = torch.cat(outputs) * scores.reshape(-1)[order, None]
        return torch.zeros_like(tokens).index_add(0, order // self.top_k, weighted).view_as(x)


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.weight, layer.bias = nn.Parameter(weight.detach().clone()), nn.Parameter(bias.detach().clone())
    return layer


def build_network(workload: Workload, experts: type[DenseExperts | LinearExperts] | None = None) -> BaselineNetwork:
    """The workload's network in evaluation mode; ``experts`` replaces the model's own, which are sparse."""
    model = M3ViT(workload.config)
    model.load_state_dict({name: torch.from_numpy(values) for name, values in workload.state.items()})
    if experts is not None:
        for block in model.blocks:
            if block.is_moe:
                block.moe = experts(block.moe)
    network = BaselineNetwork(model, workload.task).eval()
    result: BaselineNetwork = network.requires_grad_(False)
    return result
