"""M3ViT in PyTorch: a Vision Transformer whose odd blocks have experts, with one gate per task and block.

Shapes: B images, T tokens (the prefix, usually cls alone, then patches row by row), D width, E experts, H an expert's
hidden width.
The images' pixels are k / 256 for 8-bit k, with no mean and no deviation taken out.

State dict (what exporters read; every tensor float32):

    patch_embed.weight [D, 3*p*p] .bias [D]       input order (channel, y, x)
    cls_token [D] (added to token 0, if the prefix has any), pos_embed [T, D] (all there is of the prefix's others)
    blocks.{i}.norm1.weight .bias [D]
    blocks.{i}.attn.qkv.weight [3D, D] .bias [3D] rows: all heads' q, then k, then v; a head is head_dim rows
    blocks.{i}.attn.proj.weight [D, D] .bias [D]
    blocks.{i}.norm2.weight .bias [D]
    blocks.{i}.mlp.fc1.weight [M, D] .bias [M], .fc2.weight [D, M] .bias [D]          dense blocks
    blocks.{i}.moe.gate.{task} [E, D]                                                 MoE blocks
    blocks.{i}.moe.w1 [E, H, D] .b1 [E, H] .w2 [E, D, H] .b2 [E, D]
    norm.weight .bias [D]
    heads.{task}.weight [out, D] .bias [out]                                          head_hidden = 0
    heads.{task}.fc1.weight [h, D] .bias [h], .fc2.weight [out, h] .bias [out]        head_hidden = h
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgemoe_models.config import ModelConfig, TaskConfig
from edgemoe_models.exact.functions import QUICK_GELU_SLOPE


def quick_gelu(x: Tensor) -> Tensor:
    """x * sigmoid(1.702 x)."""
    return x * torch.sigmoid(QUICK_GELU_SLOPE * x)


#: By the names of ``edgemoe_models.config.ACTIVATIONS``; GELU is the exact one (erf).
ACTIVATION_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "silu": F.silu,
    "relu": F.relu,
    "quick-gelu": quick_gelu,
}


class MLP(nn.Module):
    """linear, activation function (``ModelConfig.activation``), linear."""

    def __init__(self, inputs: int, hidden: int, outputs: int, activation: str = "gelu") -> None:
        super().__init__()
        self.activate = ACTIVATION_FUNCTIONS[activation]
        self.fc1 = nn.Linear(inputs, hidden)
        self.fc2 = nn.Linear(hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.activate(self.fc1(x)))


class Attention(nn.Module):
    """Multi-head self-attention, scores scaled by head_dim ** -0.5."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.qkv = nn.Linear(config.dim, 3 * config.dim)
        self.proj = nn.Linear(config.dim, config.dim)

    def forward(self, x: Tensor) -> Tensor:
        b, t, d = x.shape
        qkv = self.qkv(x).view(b, t, 3, self.heads, d // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each [B, heads, T, head_dim]
        x = F.scaled_dot_product_attention(q, k, v)
        return self.proj(x.transpose(1, 2).reshape(b, t, d))


def select_experts(logits: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
    """Scores and numbers [N, top_k] of each token's experts, best first, from logits [N, E].

    Scores are the softmax over all E logits, not renormalised over the chosen; of equal logits the lower expert
    number wins.
    """
    order = logits.argsort(dim=1, descending=True, stable=True)[:, :top_k]
    return logits.softmax(1).gather(1, order), order


def variation(x: Tensor) -> Tensor:
    """Squared coefficient of variation, a scalar."""
    return x.var(unbiased=False) / (x.mean() ** 2 + 1e-10)


def balance_loss(logits: Tensor, noisy: Tensor, top_k: int, noise: float) -> Tensor:
    """Mean of the squared variation coefficients of importance and load (Shazeer et al. 2017), a scalar.

    Importance is an expert's summed softmax score; load its summed probability to be among the ``top_k`` if its
    own noise were drawn again; without noise it has no gradient and is left out. logits, noisy: [N, E].
    """
    importance = noisy.softmax(1).sum(0)
    if noise == 0:
        return 0.5 * variation(importance)
    threshold = noisy.topk(top_k, dim=1).values[:, -1:]
    load = (0.5 * torch.erfc((threshold - logits) / (noise * math.sqrt(2)))).sum(0)
    return 0.5 * (variation(importance) + variation(load))


class MoE(nn.Module):
    """Experts of which each token visits ``top_k``, chosen by the task's own gate.

    While training, the gate's logits get normal noise of deviation ``noise``, and ``loss`` holds the balance loss of
    the last call. In mixed precision the gate stays in float32 (Fedus et al. 2021, section 2.4).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        e, h, d = config.num_experts, config.expert_hidden, config.dim
        self.top_k = config.top_k
        self.activate = ACTIVATION_FUNCTIONS[config.activation]
        self.noise = 1.0 / e
        self.gate = nn.ParameterDict({task.name: nn.Parameter(torch.empty(e, d)) for task in config.tasks})
        self.w1 = nn.Parameter(torch.empty(e, h, d))
        self.b1 = nn.Parameter(torch.zeros(e, h))
        self.w2 = nn.Parameter(torch.empty(e, d, h))
        self.b2 = nn.Parameter(torch.zeros(e, d))
        self.loss: Tensor | None = None

    def forward(self, x: Tensor, task: str) -> Tensor:
        tokens = x.reshape(-1, x.shape[-1])  # [N, D]
        with torch.autocast(x.device.type, enabled=False):  # rounded logits would choose other experts
            logits = tokens.to(self.gate[task].dtype) @ self.gate[task].t()  # [N, E]
        noisy = logits
        if self.training:
            noisy = logits + self.noise * torch.randn_like(logits)
            self.loss = balance_loss(logits, noisy, self.top_k, self.noise)
        scores, chosen = select_experts(noisy, self.top_k)  # [N, top_k]
        at_once = self.training and x.is_cuda  # a queue's length would have to come back from the GPU first
        return (self.all_experts if at_once else self.experts)(tokens, scores, chosen).view_as(x)

    def experts(self, tokens: Tensor, scores: Tensor, chosen: Tensor) -> Tensor:
        """Sum of score * expert(token): each expert computes only its own queue. [N, D] -> [N, D]."""
        flat = chosen.reshape(-1)
        order = flat.argsort(stable=True)  # the experts' queues, one after the other
        queues = (order // self.top_k).split(flat.bincount(minlength=len(self.w1)).tolist())
        gathered = [
            F.linear(self.activate(F.linear(tokens[queue], self.w1[e], self.b1[e])), self.w2[e], self.b2[e])
            for e, queue in enumerate(queues)
        ]
        weighted = torch.cat(gathered) * scores.reshape(-1)[order, None]
        return torch.zeros_like(tokens).index_add(0, order // self.top_k, weighted.to(tokens.dtype))

    def all_experts(self, tokens: Tensor, scores: Tensor, chosen: Tensor) -> Tensor:
        """The sum of ``experts`` as two products of all experts, those not chosen with the score 0. [N, D] -> [N, D].

        E / top_k times the work in 2 kernels in place of 4 E, and nothing waits for the GPU.
        """
        e, h, d = self.w1.shape
        shares = torch.zeros(len(tokens), e, dtype=scores.dtype, device=scores.device).scatter(1, chosen, scores)
        hidden = self.activate(F.linear(tokens, self.w1.view(e * h, d), self.b1.view(-1))).view(-1, e, h)
        weighted = (hidden * shares[:, :, None].to(hidden.dtype)).view(-1, e * h)
        summed = F.linear(weighted, self.w2.transpose(0, 1).reshape(d, e * h)) + shares.to(hidden.dtype) @ self.b2
        return summed.to(tokens.dtype)


def drop_path(branch: Tensor, share: float) -> Tensor:
    """A block's branch [B, T, D] without that of ``share`` of the images, the others' scaled up (Huang et al. 2016)."""
    kept = torch.rand(len(branch), 1, 1, device=branch.device) >= share
    return branch * kept / (1 - share)


class Block(nn.Module):
    """A pre-norm block: attention, then a dense MLP or experts.

    While training, ``drop`` is the share of images that skip a branch.
    """

    def __init__(self, config: ModelConfig, index: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.dim, eps=config.eps)
        self.attn = Attention(config)
        self.norm2 = nn.LayerNorm(config.dim, eps=config.eps)
        self.is_moe = config.is_moe(index)
        self.drop = 0.0
        if self.is_moe:
            self.moe = MoE(config)
        else:
            self.mlp = MLP(config.dim, config.mlp_hidden, config.dim, config.activation)

    def forward(self, x: Tensor, task: str) -> Tensor:
        x = x + self._kept(self.attn(self.norm1(x)))
        y = self.norm2(x)
        return x + self._kept(self.moe(y, task) if self.is_moe else self.mlp(y))

    def _kept(self, branch: Tensor) -> Tensor:
        return drop_path(branch, self.drop) if self.training and self.drop else branch


class M3ViT(nn.Module):
    """The whole model. ``forward(images, task)`` computes one task, as the accelerator does."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.patch_embed = nn.Linear(config.patch_inputs, config.dim)
        if config.prefix_tokens:
            self.cls_token = nn.Parameter(torch.zeros(config.dim))
        self.pos_embed = nn.Parameter(torch.zeros(config.num_tokens, config.dim))
        self.blocks = nn.ModuleList(Block(config, i) for i in range(config.depth))
        self.norm = nn.LayerNorm(config.dim, eps=config.eps)
        self.heads = nn.ModuleDict({task.name: make_head(config, task) for task in config.tasks})
        initialize(self)

    def tokens(self, images: Tensor) -> Tensor:
        """Images [B, 3, height, width] in 0..1 -> tokens [B, T, D] before the first block."""
        c = self.config
        if tuple(images.shape[1:]) != (3, c.image_height, c.image_width):
            wanted = f"[B, 3, {c.image_height}, {c.image_width}]"
            raise ValueError(f"images must be {wanted}, not {list(images.shape)!r}")
        x = images.unflatten(3, (-1, c.patch)).unflatten(2, (-1, c.patch))  # [B, 3, gh, p, gw, p]
        x = x.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)  # [B, patches, 3*p*p]
        x = self.patch_embed(x)  # [B, patches, D]
        if c.prefix_tokens:
            others = x.new_zeros(len(x), c.prefix_tokens - 1, c.dim)
            x = torch.cat([self.cls_token.expand(len(x), 1, -1), others, x], 1)  # [B, T, D]
        return x + self.pos_embed

    def raw(self, images: Tensor, task: str) -> Tensor:
        """Images -> the head's output as an image [B, channels, gh*cells, gw*cells], or [B, channels]."""
        head, (first, count) = self.config.task(task), self.config.head_rows(task)
        x = self.tokens(images)
        for block in self.blocks:
            x = block(x, task)
        if head.is_finished_by_host:
            return self.heads[task](self.norm(x[:, first : first + count].mean(1)))
        x = self.norm(x)
        if not head.is_dense and head.pool == "cls":
            return self.heads[task](x[:, 0])
        x = self.heads[task](x[:, first : first + count])  # [B, rows, outputs]
        if not head.is_dense:
            return pooled(self.config, head, x)
        x = x.view(len(x), *self.config.grid, head.cells, head.cells, head.channels)
        return x.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)

    def forward(self, images: Tensor, task: str) -> Tensor:
        """Like ``raw``, dense outputs upsampled (bilinear) to the image's size."""
        x = self.raw(images, task)
        size = (self.config.image_height, self.config.image_width)
        if x.dim() == 4 and tuple(x.shape[2:]) != size:
            x = F.interpolate(x, size=size, mode="bilinear", align_corners=False)
        return x

    def balance_loss(self) -> Tensor:
        """Mean balance loss of the MoE blocks in the last training forward; 0 without experts."""
        losses = [block.moe.loss for block in self.blocks if block.is_moe and block.moe.loss is not None]
        return torch.stack(losses).mean() if losses else self.pos_embed.new_zeros(())


def pooled(config: ModelConfig, task: TaskConfig, rows: Tensor) -> Tensor:
    """Rows [B, rows, outputs] of a head of the whole picture -> [B, channels], as ``TaskConfig.pool`` says."""
    n = task.channels
    if task.pool == "cls-dist":
        return (rows[:, 0, :n] + rows[:, 1, n:]) / 2
    if task.pool == "cls-avg":
        return rows[:, 0, :n] + rows[:, config.prefix_tokens :, n:].mean(1)
    return rows.mean(1) if task.pool == "avg" else rows[:, 0]


def make_head(config: ModelConfig, task: TaskConfig) -> nn.Module:
    """A task's head, on tokens after the final LayerNorm."""
    if task.head_hidden:
        return MLP(config.dim, task.head_hidden, task.head_outputs, config.activation)
    return nn.Linear(config.dim, task.head_outputs)


def position_grid(config: ModelConfig) -> Tensor:
    """Sines and cosines of each patch's row and column [patches, D], where position embeddings start."""
    quarter = config.dim // 4
    rates = 100.0 ** (-torch.arange(quarter) / max(quarter, 1))
    rows, columns = torch.meshgrid(*(torch.arange(n) for n in config.grid), indexing="ij")
    angles = [axis.reshape(-1, 1) * rates for axis in (rows, columns)]
    grid = torch.cat([f(a) for a in angles for f in (torch.sin, torch.cos)], 1)
    return F.pad(grid, (0, config.dim - 4 * quarter))


@torch.no_grad()
def initialize(model: M3ViT) -> None:
    """Draw the weights from torch's generator: linear layers Xavier-normal, gates of deviation 0.02."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_normal_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, MoE):
            for gate in module.gate.values():
                nn.init.normal_(gate, std=0.02)
            for weights in (module.w1, module.w2):
                deviation = math.sqrt(2.0 / (weights.shape[1] + weights.shape[2]))
                nn.init.normal_(weights, std=deviation)
    depth = model.config.depth
    for block in model.blocks:  # keeps the residual stream's variance from growing with depth
        for weights in (block.attn.proj.weight, block.moe.w2 if block.is_moe else block.mlp.fc2.weight):
            weights.mul_(1.0 / math.sqrt(2 * depth))
    if model.config.prefix_tokens:
        nn.init.normal_(model.cls_token, std=0.02)
    model.pos_embed[model.config.prefix_tokens :] = 0.5 * position_grid(model.config)
    for task in model.config.tasks:
        if task.kind == "depth":  # starts in the middle of the range
            head = model.heads[task.name]
            last = head.fc2 if isinstance(head, MLP) else head
            last.bias.fill_(0.5)
