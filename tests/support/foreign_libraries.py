"""Networks that other libraries make themselves, with random weights: what importers are compared with."""

from __future__ import annotations

import importlib
import os
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing is fetched

__all__ = ["draw_weights", "foreign", "pixels", "state_of"]

_kept: list[Any] = []  # a library of operators lives as long as its object


def foreign(name: str) -> Any:
    """The module, or the test is skipped.

    torchvision's wheel on PyPI is built for CUDA; with PyTorch for CPUs its operators are missing, and registering
    shapes for two of them fails. No Vision Transformer uses them, so they are declared here without an implementation.
    """
    torch = pytest.importorskip(
        "torch", reason="torch is not installed: importers are not compared with other libraries"
    )
    if not _kept:
        library = torch.library.Library("torchvision", "FRAGMENT")
        for operator in ("nms", "qnms"):
            try:
                library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            except RuntimeError:  # it is there
                pass
        _kept.append(library)
    try:
        return importlib.import_module(name)
    except ImportError:
        pytest.skip(f"{name.partition('.')[0]} is not installed: its networks are not imported (extra 'foreign')")


def draw_weights(model: Any, seed: int = 0) -> Any:
    """The module in evaluation mode, with weights that let every part of it be seen in its outputs."""
    import torch

    generator = torch.Generator().manual_seed(seed)

    def normal(shape: Any, deviation: float) -> Any:
        return torch.randn(shape, generator=generator) * deviation

    with torch.no_grad():
        for name, p in model.named_parameters():
            leaf = name.rpartition(".")[2]
            if p.dim() == 1 and "norm" in name and leaf == "weight":
                p.copy_(1 + normal(p.shape, 0.2))
            elif p.dim() == 1 and ("gamma" in leaf or "lambda" in leaf):
                p.copy_(0.5 + normal(p.shape, 0.3))
            elif p.dim() == 1:
                p.copy_(normal(p.shape, 0.2))
            elif "token" in name or "pos" in leaf:
                p.copy_(normal(p.shape, 0.5))
            else:
                p.copy_(normal(p.shape, (p.numel() / p.shape[0]) ** -0.5))
    return model.eval()


def pixels(height: int, width: int, seed: int = 3) -> Any:
    """A picture uint8 [H, W, 3]."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def state_of(model: Any) -> dict[str, Any]:
    """Its state dict as arrays that a safetensors file takes."""
    return {name: np.ascontiguousarray(value.numpy()) for name, value in model.state_dict().items()}
