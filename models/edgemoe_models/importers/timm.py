"""timm's and DeiT's Vision Transformers: ``blocks.{i}.attn.qkv``, one class token, one classification head."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from edgemoe_models.config import ModelConfig, TaskConfig
from edgemoe_models.exact.linear_algebra import matrix_product
from edgemoe_models.exact.sums import total
from edgemoe_models.float_reference import Floats
from edgemoe_models.importers.common import (
    Imported,
    ImportOptions,
    ImportRefused,
    Source,
    attention_heads,
    block_numbers,
    image_size,
    normalization,
    take_attention,
    take_embedding,
    take_linear,
    take_norm,
)
from edgemoe_models.importers.files import Tensors

_CUBIC = -0.5  # Keys' coefficient, which torch uses together with antialiasing, as timm's resampling does


def import_timm(tensors: Tensors, options: ImportOptions) -> Imported:
    """A ViT or (undistilled) DeiT with its classification head; position embeddings are resampled if the image's size
    differs.

    Raises:
        ImportRefused: it is distilled, or any tensor is missing, unknown or of another shape.
    """
    source = Source({name.removeprefix("module."): tensor for name, tensor in tensors.items()})
    if "dist_token" in source.left:
        raise ImportRefused(
            "a distilled DeiT has a second class token (dist_token), which our model has not: "
            "use the same network without distillation, e.g. deit_tiny_patch16_224"
        )
    if "head.weight" not in source.left:
        raise ImportRefused(
            "the checkpoint has no classification head (head.weight): timm makes it with num_classes above 0"
        )
    state = take_embedding(source, options)
    dim, depth = len(state["cls_token"]), block_numbers(source.left)
    patch = math.isqrt(state["patch_embed.weight"].shape[1] // 3)
    hidden = source.shape("blocks.0.mlp.fc1.weight", 2)[0]
    classes = source.shape("head.weight", 2)[0]
    for i in range(depth):
        state |= take_attention(source, f"blocks.{i}", dim)
        state |= take_linear(source, f"blocks.{i}.mlp.fc1", hidden, dim, f"blocks.{i}.mlp.fc1")
        state |= take_linear(source, f"blocks.{i}.mlp.fc2", dim, hidden, f"blocks.{i}.mlp.fc2")
    state |= take_norm(source, "norm", dim)
    state |= take_linear(source, "head", classes, dim, "heads.classification")
    source.finish()
    height, width = image_size(options, len(state["pos_embed"]) - 1, patch)
    config = ModelConfig(
        name=options.name,
        image_height=height,
        image_width=width,
        patch=patch,
        dim=dim,
        depth=depth,
        heads=attention_heads(options, dim),
        mlp_hidden=hidden,
        num_experts=0,
        top_k=0,
        expert_hidden=0,
        tasks=(TaskConfig("classification", "classification", channels=classes),),
    )
    state["pos_embed"], notes = _positions(state["pos_embed"], config.grid)
    return Imported(state, config, (normalization(options)[2], *notes))


def _positions(embeddings: Floats, grid: tuple[int, int]) -> tuple[Floats, tuple[str, ...]]:
    """Position embeddings [1 + patches, D] for another grid of patches, and what was done to them."""
    patches = embeddings[1:]
    if len(patches) == grid[0] * grid[1]:
        return embeddings, ()
    side = math.isqrt(len(patches))
    if side * side != len(patches):
        raise ImportRefused(
            f"{len(patches)} position embeddings are no square, so they cannot be resampled to {grid[0]} x {grid[1]}"
        )
    square = patches.reshape(side, side, -1)
    resized = resample(resample(square, grid[0]).swapaxes(0, 1), grid[1]).swapaxes(0, 1)
    resized = resized.reshape(-1, embeddings.shape[1]).astype(np.float32)
    note = f"position embeddings resampled from {side} x {side} to {grid[0]} x {grid[1]} patches (bicubic)"
    return np.concatenate([embeddings[:1], resized]), (note,)


def resample(values: npt.NDArray[Any], size: int) -> npt.NDArray[np.float64]:
    """Antialiased bicubic resampling of the first axis to ``size`` (torch's ``bicubic, antialias=True``)."""
    scale = len(values) / size
    centres = (np.arange(size) + 0.5) * scale
    distance = np.abs(np.arange(len(values)) + 0.5 - centres[:, None]) / max(scale, 1.0)
    near = ((_CUBIC + 2) * distance - (_CUBIC + 3)) * distance * distance + 1
    far = _CUBIC * (((distance - 5) * distance + 8) * distance - 4)
    weights = np.where(distance < 1, near, np.where(distance < 2, far, 0.0))
    weights /= total(weights)[:, None]
    flat = values.reshape(len(values), -1)
    return matrix_product(weights, flat).reshape(size, *values.shape[1:])
