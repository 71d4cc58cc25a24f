"""Miniature checkpoints of other projects, and a plain evaluation of their tensors by their own names. Needs torch."""

from __future__ import annotations

import numpy as np
import torch

from edgemoe_models import float_reference
from edgemoe_models.importers import ImportOptions
from edgemoe_models.importers.options import IMAGENET_MEAN, IMAGENET_STD

F = torch.nn.functional

DIM, HEADS, PATCH, HIDDEN, EXPERTS, EXPERT_HIDDEN, CLASSES = 24, 2, 4, 40, 5, 28, 6
GRID = (2, 4)  # Edge-MoE's images are twice as wide as high
M3VIT = ImportOptions(
    heads=HEADS, top_k=2, tasks="semseg=segmentation:5,depth", seed_heads=3, image_height=8, image_width=16
)
EDGE_MOE = ImportOptions(heads=HEADS)


def backbone(grid, depth, experts_in_odd):
    """Tensors of a ViT under timm's names, float32; FastMoE's experts and a gate for each of two tasks if wanted."""
    rng = np.random.default_rng(7)

    def draw(*shape, deviation=None):
        deviation = shape[-1] ** -0.5 if deviation is None else deviation
        return (rng.standard_normal(shape) * deviation).astype(np.float32)

    tensors = {
        "cls_token": draw(1, 1, DIM, deviation=0.3),
        "pos_embed": draw(1, 1 + grid[0] * grid[1], DIM, deviation=0.3),
        "patch_embed.proj.weight": draw(DIM, 3, PATCH, PATCH, deviation=0.3),
        "patch_embed.proj.bias": draw(DIM),
    }
    for i in range(depth):
        linears = {"attn.qkv": (3 * DIM, DIM), "attn.proj": (DIM, DIM)}
        if experts_in_odd and i % 2:
            shapes = {"htoh4": (EXPERTS, EXPERT_HIDDEN, DIM), "h4toh": (EXPERTS, DIM, EXPERT_HIDDEN)}
            linears |= {f"mlp.experts.{name}": shape for name, shape in shapes.items()}
            for t in range(2):
                tensors[f"blocks.{i}.mlp.gate.{t}.w_gate"] = draw(DIM, EXPERTS, deviation=0.5)
        else:
            linears |= {"mlp.fc1": (HIDDEN, DIM), "mlp.fc2": (DIM, HIDDEN)}
        for name, shape in linears.items():
            tensors |= {f"blocks.{i}.{name}.weight": draw(*shape), f"blocks.{i}.{name}.bias": draw(*shape[:-1])}
        for name in ("norm1", "norm2"):
            tensors |= {f"blocks.{i}.{name}.weight": 1 + draw(DIM), f"blocks.{i}.{name}.bias": draw(DIM)}
    return tensors


def timm_tensors():
    rng = np.random.default_rng(8)
    head = {
        "head.weight": rng.standard_normal((CLASSES, DIM)),
        "head.bias": rng.standard_normal(CLASSES),
        "norm.weight": 1 + 0.1 * rng.standard_normal(DIM),
        "norm.bias": rng.standard_normal(DIM),
    }
    return backbone((3, 3), 2, False) | {name: value.astype(np.float32) for name, value in head.items()}


def plain_tokens(tensors, pixels, gate=None):
    """Tokens [T, D] after the last block, of normalised pixels [3, H, W], straight from the foreign tensors."""
    t = {name: torch.from_numpy(value).double() for name, value in tensors.items()}
    x = F.conv2d(
        torch.from_numpy(pixels).double()[None], t["patch_embed.proj.weight"], t["patch_embed.proj.bias"], stride=PATCH
    )
    x = torch.cat([t["cls_token"], x.flatten(2).transpose(1, 2)], 1)[0] + t["pos_embed"][0]

    def linear(x, name, index=...):
        return F.linear(x, t[f"{name}.weight"][index], t[f"{name}.bias"][index])

    i = 0
    while (block := f"blocks.{i}") + ".norm1.weight" in t:
        y = F.layer_norm(x, (DIM,), t[f"{block}.norm1.weight"], t[f"{block}.norm1.bias"], 1e-6)
        q, k, v = linear(y, f"{block}.attn.qkv").view(-1, 3, HEADS, DIM // HEADS).permute(1, 2, 0, 3)
        p = (q @ k.transpose(1, 2) * (DIM // HEADS) ** -0.5).softmax(-1)
        x = x + linear((p @ v).transpose(0, 1).reshape(-1, DIM), f"{block}.attn.proj")
        y = F.layer_norm(x, (DIM,), t[f"{block}.norm2.weight"], t[f"{block}.norm2.bias"], 1e-6)
        if f"{block}.mlp.fc1.weight" in t:
            x = x + linear(F.gelu(linear(y, f"{block}.mlp.fc1")), f"{block}.mlp.fc2")
        else:
            scores, chosen = (y @ t[f"{block}.mlp.gate.{gate}.w_gate"]).softmax(-1).topk(2)
            every = torch.stack(
                [
                    linear(F.gelu(linear(y, f"{block}.mlp.experts.htoh4", e)), f"{block}.mlp.experts.h4toh", e)
                    for e in range(EXPERTS)
                ],
                1,
            )
            x = x + (every.gather(1, chosen[..., None].expand(-1, -1, DIM)) * scores[..., None]).sum(1)
        i += 1
    return x


def picture(height, width, seed=5):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def normalised(image, mean=IMAGENET_MEAN, std=IMAGENET_STD):
    return ((image / 255 - mean) / std).transpose(2, 0, 1)


def imported_tokens(imported, image, task):
    seen = {}
    float_reference.forward(imported.state, imported.config, image[None], task, seen)
    return seen[f"blocks.{imported.config.depth - 1}.residual2"]


def save_torch(path, tensors, nest=None):
    state = {name: torch.from_numpy(value) for name, value in tensors.items()}
    torch.save({nest: state} if nest else state, path)
    return path


def m3vit_tensors():
    """As MultiTaskModel under data parallelism saves it: prefixes, and decoders besides."""
    decoders = {f"decoders.{task}.conv_0.weight": np.zeros((2, DIM, 3, 3), np.float32) for task in ("semseg", "depth")}
    inner = {f"backbone.{name}": value for name, value in backbone(GRID, 4, True).items()}
    return {f"module.{name}": value for name, value in (inner | decoders).items()}
