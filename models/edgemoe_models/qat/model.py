"""M3ViT for quantization-aware training: every value is what the accelerator computes.

Unlike the float model's, scores are base-2 logarithms from the start (``log2(e) / sqrt(head_dim)`` is in q's weights,
``log2(e)`` in the gates'), so that with power-of-two scales every requantization is one. Shapes as in
``edgemoe_models.m3vit``; N tokens of all images joined where experts are chosen.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
from brevitas.quant_tensor import IntQuantTensor
from torch import Tensor, nn

from edgemoe_models.arithmetic import ops
from edgemoe_models.config import ModelConfig, TaskConfig
from edgemoe_models.m3vit import balance_loss, pooled
from edgemoe_models.qat import functions
from edgemoe_models.qat.layers import Activated, LayerNorm, Linear, fixed_ratio
from edgemoe_models.qat.quantizers import Quantizer, integers

__all__ = ["QatConfig", "QuantM3ViT"]

Trace = dict[str, Any]
SCORE_UNIT, GATE_UNIT = 64, 1024


@dataclasses.dataclass(frozen=True)
class QatConfig:
    """What is quantized how.

    Attributes:
        model: the model's shape
        expert_bits: of the experts' weights, 8 or 4
        power_of_two: all scales powers of two, so that every multiplier is 2^15
        score_shifts: of each block's softmax (docs/numerics.md, section 6), found in post-training quantization
    """

    model: ModelConfig
    expert_bits: int
    power_of_two: bool
    score_shifts: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.expert_bits not in (4, 8):
            raise ValueError(f"expert_bits must be 4 or 8, not {self.expert_bits!r}")
        if len(self.score_shifts) != self.model.depth:
            raise ValueError(f"score_shifts must have {self.model.depth} entries, not {len(self.score_shifts)}")

    def linear(self, inputs: int, outputs: int, bits: int, weight_bits: int = 8) -> Linear:
        """A linear layer in this mode."""
        return Linear(inputs, outputs, bits, weight_bits, self.power_of_two, self.model.activation)


def _seen(trace: Trace | None, **values: IntQuantTensor) -> None:
    """Put the integers of traced tensors (int64) into ``trace``."""
    if trace is not None:
        trace |= {name: integers(value).detach().cpu().numpy().astype(np.int64) for name, value in values.items()}


class Attention(nn.Module):
    """Multi-head attention with the single-pass softmax (section 6)."""

    def __init__(self, config: QatConfig, score_shift: int) -> None:
        super().__init__()
        dim = config.model.dim
        self.heads, self.score_shift = config.model.heads, score_shift
        self.q, self.k, self.v = (config.linear(dim, dim, 8) for _ in range(3))
        self.scores, self.context = Quantizer(12), Quantizer(8)
        self.proj = config.linear(dim, dim, 16)

    def score_ratio(self) -> tuple[Any, Any]:
        """Multiplier and shift of the scores."""
        return fixed_ratio(self.q.output.scale, self.k.output.scale, divisor=self.scores.scale)

    def context_ratio(self) -> tuple[Any, Any]:
        """Multiplier and shift of the context, without the row factor."""
        return fixed_ratio(self.v.output.scale, divisor=self.context.scale)

    def forward(self, x: IntQuantTensor, trace: Trace | None = None) -> IntQuantTensor:
        """[B, T, D] int8 -> the residual's increment."""
        q, k, v = self.q(x), self.k(x), self.v(x)
        _seen(trace, q=q, k=k, v=v)
        q, k, v = (integers(part).unflatten(2, (self.heads, -1)).transpose(1, 2) for part in (q, k, v))
        real = self.q.output.scale * self.k.output.scale / self.scores.scale
        ratio = functions.multiplier_ratio(*self.score_ratio())
        scores = functions.requantize(q @ k.transpose(2, 3), real, ratio, self.scores.limit)
        p, total = functions.softmax(scores, self.score_shift)  # [B, heads, T, T], [B, heads, T, 1]
        factors = ops.reciprocal(total.cpu().numpy().astype(np.int64))
        row, row_shift = (torch.from_numpy(part).to(total.device) for part in factors)
        ratio = functions.row_ratio(*self.context_ratio(), row.double(), row_shift)
        real = self.v.output.scale / self.context.scale
        context = functions.requantize(
            functions.weighted_sum(p, v), real, ratio, self.context.limit, total.reciprocal()
        )
        context = self.context.tensor(context.transpose(1, 2).flatten(2))
        if trace is not None:
            trace |= {"scores": scores.detach().long().cpu().numpy(), "probabilities": p.detach().long().cpu().numpy()}
            _seen(trace, context=context)
        return self.proj(context)


class MLP(nn.Module):
    """A linear layer with its activation function, and a linear layer."""

    def __init__(self, config: QatConfig, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.fc1 = Activated(config.linear(inputs, hidden, ops.ACTIVATION_BITS))
        self.fc2 = config.linear(hidden, outputs, 16)

    def forward(self, x: IntQuantTensor, trace: Trace | None = None) -> IntQuantTensor:
        hidden = self.fc1(x)
        _seen(trace, hidden=hidden)
        return self.fc2(hidden)


class MoE(nn.Module):
    """Gates and experts (sections 7 and 8). ``loss`` holds the balance loss of the last training call."""

    def __init__(self, config: QatConfig) -> None:
        super().__init__()
        c = config.model
        self.top_k = c.top_k
        self.gate = nn.ModuleDict({task.name: config.linear(c.dim, c.num_experts, 16) for task in c.tasks})
        bits, experts = config.expert_bits, range(c.num_experts)
        self.fc1 = nn.ModuleList(config.linear(c.dim, c.expert_hidden, ops.ACTIVATION_BITS, bits) for _ in experts)
        self.fc2 = nn.ModuleList(config.linear(c.expert_hidden, c.dim, 16, bits) for _ in experts)
        self.hidden = Quantizer(8)
        self.loss: Tensor | None = None

    def forward(self, x: IntQuantTensor, task: str, trace: Trace | None = None) -> Tensor:
        """Tokens [B, T, D] -> real increments [top_k, B, T, D], those of a token's experts in ascending order."""
        tokens = x.value.flatten(0, 1)
        logits = self.gate[task](x.set(value=tokens))
        units = integers(logits).detach()
        scores = functions.gate_scores(logits.value, units)  # [N, E], in units of 2^-15
        best = ops.gate_select(units.cpu().numpy().astype(np.int64), self.top_k)
        chosen = torch.from_numpy(np.sort(best, 1)).to(units.device)
        if self.training:
            natural = logits.value * functions.LN_2
            self.loss = balance_loss(natural, natural, self.top_k, 1.0 / len(self.fc1))
        _seen(trace, gate_logits=logits)
        rows = scores.gather(1, chosen) / ops.MAX_SCORE  # [N, top_k]
        return self._experts(x, tokens, rows, chosen, trace).unflatten(1, x.value.shape[:2])

    def _experts(self, x: IntQuantTensor, tokens: Tensor, rows: Tensor, chosen: Tensor, trace: Trace | None) -> Tensor:
        """Each expert computes its own queue. [N, D] -> [top_k, N, D]."""
        flat = chosen.reshape(-1)
        order = flat.argsort(stable=True)  # the experts' queues, one after the other
        sizes = flat.bincount(minlength=len(self.fc1)).tolist()
        queues = (order // self.top_k).split(sizes)
        factors = rows.reshape(-1, 1)[order].split(sizes)
        done = []
        for e, (queue, factor) in enumerate(zip(queues, factors, strict=True)):
            hidden = self.hidden.tensor(self.fc1[e].activate(x.set(value=tokens[queue])))
            _seen(trace, **{f"experts.{e}.hidden": hidden})
            done.append(self.fc2[e](hidden, factor).value)
        place = order % self.top_k * len(tokens) + order // self.top_k
        out = torch.cat(done)
        return torch.zeros_like(out).index_copy(0, place, out).view(self.top_k, len(tokens), -1)


class Block(nn.Module):
    """A pre-norm block: attention, then a dense MLP or experts."""

    def __init__(self, config: QatConfig, index: int, residual: Quantizer) -> None:
        super().__init__()
        c = config.model
        self.residual = residual
        self.norm1 = LayerNorm(c.dim, c.eps)
        self.attn = Attention(config, config.score_shifts[index])
        self.norm2 = LayerNorm(c.dim, c.eps)
        self.is_moe = c.is_moe(index)
        self.mlp = MoE(config) if self.is_moe else MLP(config, c.dim, c.mlp_hidden, c.dim)

    def forward(self, x: IntQuantTensor, task: str, trace: Trace | None = None) -> IntQuantTensor:
        norm1 = self.norm1(x)
        _seen(trace, norm1=norm1)
        x = self.residual(x.value + self.attn(norm1, trace).value)  # saturates; exact: sums are below 2^16 units
        norm2 = self.norm2(x)
        _seen(trace, residual1=x, norm2=norm2)
        increments = self.mlp(norm2, task, trace) if self.is_moe else self.mlp(norm2, trace).value[None]
        for increment in increments:
            x = self.residual(x.value + increment)
        _seen(trace, residual2=x)
        return x


class QuantM3ViT(nn.Module):
    """The whole model. ``forward(images, task)`` as ``edgemoe_models.m3vit.M3ViT``'s."""

    def __init__(self, config: QatConfig) -> None:
        super().__init__()
        self.config = config
        c = config.model
        self.pixels = Quantizer(8, signed=False)
        self.pixels.scale.data.fill_(1 / 256)
        self.residual = Quantizer(16)
        self.patch_embed = config.linear(c.patch_inputs, c.dim, 16)
        self.pos_embed = nn.Parameter(torch.zeros(c.num_tokens, c.dim))  # row 0 has the class token added
        self.blocks = nn.ModuleList(Block(config, i, self.residual) for i in range(c.depth))
        self.norm = LayerNorm(c.dim, c.eps)
        self.heads = nn.ModuleDict({task.name: _head(config, task) for task in c.tasks})

    def tokens(self, images: Tensor) -> IntQuantTensor:
        """Images [B, 3, height, width] in 0..1 -> tokens [B, T, D] before the first block."""
        patch = self.config.model.patch
        x = images.unflatten(3, (-1, patch)).unflatten(2, (-1, patch))  # [B, 3, gh, p, gw, p]
        x = self.patch_embed(self.pixels(x.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)))
        prefix = self.config.model.prefix_tokens
        x = torch.cat([x.value.new_zeros(len(images), prefix, x.value.shape[2]), x.value], 1)
        return self.residual(self.residual(self.pos_embed).value + x)

    def rows(self, images: Tensor, task: str, trace: Trace | None = None) -> IntQuantTensor:
        """The head's outputs [B, rows, outputs], as the integer reference orders them.

        trace: filled with integers (int64) by the names of ``edgemoe_models.integer.reference.run``, with a leading
            batch axis; gates and experts have the tokens of all images joined
        """
        x = self.tokens(images)
        _seen(trace, embed=x)
        for i, block in enumerate(self.blocks):
            inner: Trace | None = None if trace is None else {}
            x = block(x, task, inner)
            if trace is not None and inner is not None:
                trace |= {f"blocks.{i}.{name}": value for name, value in inner.items()}
        first, count = self.config.model.head_rows(task)
        x = self.norm(x.set(value=x.value[:, first : first + count]))
        _seen(trace, norm=x)
        inner = None if trace is None else {}
        head = self.heads[task]
        x = head(x, inner) if isinstance(head, MLP) else head(x)
        if trace is not None and inner is not None:
            trace |= {f"heads.{task}.{name}": value for name, value in inner.items()}
        _seen(trace, **{f"heads.{task}": x})
        return x

    def raw(self, images: Tensor, task: str) -> Tensor:
        """The head's output as an image [B, channels, gh*cells, gw*cells], or [B, channels]."""
        config, head = self.config.model, self.config.model.task(task)
        x = self.rows(images, task).value
        if not head.is_dense:
            return pooled(config, head, x)
        x = x.view(len(x), *config.grid, head.cells, head.cells, head.channels)
        return x.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)

    def forward(self, images: Tensor, task: str) -> Tensor:
        """Like ``raw``, dense outputs upsampled (bilinear) to the image's size."""
        x = self.raw(images, task)
        size = (self.config.model.image_height, self.config.model.image_width)
        if x.dim() == 4 and tuple(x.shape[2:]) != size:
            x = nn.functional.interpolate(x, size=size, mode="bilinear", align_corners=False)
        return x

    def balance_loss(self) -> Tensor:
        """Mean balance loss of the MoE blocks in the last training forward; 0 without experts."""
        losses = [block.mlp.loss for block in self.blocks if block.is_moe and block.mlp.loss is not None]
        return torch.stack(losses).mean() if losses else self.pos_embed.new_zeros(())


def _head(config: QatConfig, task: TaskConfig) -> nn.Module:
    dim = config.model.dim
    if task.head_hidden:
        return MLP(config, dim, task.head_hidden, task.head_outputs)
    return config.linear(dim, task.head_outputs, 16)
