"""Weights to start from, of the same or another shape."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from edgemoe_models.config import ModelConfig
from edgemoe_models.importers.positions import resample
from edgemoe_models.m3vit import M3ViT
from edgemoe_models.storage.torch_tensors import read_torch


def take_weights(model: M3ViT, path: Path) -> None:
    """Start from a weights file: tensors of the same name and shape are taken, the rest stays as drawn.

    Position embeddings of another grid of patches are resampled.

    Raises:
        FileNotFoundError: there is no such file
        ValueError: it cannot be read, or nothing of it fits
    """
    tensors, metadata = read_torch(path)
    found = {key: value.float() for key, value in tensors.items()}
    own = model.state_dict()
    if "config" in metadata and "pos_embed" in found:
        source = ModelConfig.from_json(metadata["config"])
        found["pos_embed"] = _positions(found["pos_embed"], source.grid, model.config.grid)
    fitting = {key: value for key, value in found.items() if key in own and own[key].shape == value.shape}
    if not fitting:
        raise ValueError(f"{path} must have tensors that fit {model.config.name}, but none does")
    model.load_state_dict(own | fitting)


def _positions(embeddings: Tensor, source: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """[1 + patches, D] of one grid (rows, columns) for another, bicubic; the class token's stays."""
    if source == grid or len(embeddings) != 1 + source[0] * source[1]:
        return embeddings
    values = embeddings[1:].numpy().reshape(*source, -1)
    resized = resample(resample(values, grid[0]).swapaxes(0, 1), grid[1]).swapaxes(0, 1)
    patches = torch.from_numpy(resized.reshape(-1, embeddings.shape[1]).astype(np.float32))
    return torch.cat([embeddings[:1], patches])
