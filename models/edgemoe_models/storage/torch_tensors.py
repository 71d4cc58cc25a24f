"""Safetensors files as torch's tensors; the only module of this room that needs torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from edgemoe_models.storage.atomic import write_bytes
from edgemoe_models.storage.shards import read_shards
from edgemoe_models.storage.tensor_file import TensorFileError

__all__ = ["load_state", "read_torch", "write_torch"]


def read_torch(path: Path | str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a file, or of all parts of which it is the first (``edgemoe_models.storage.shards``).

    Raises:
        FileNotFoundError: there is no such file
        ValueError: it cannot be read; the message names it
    """
    try:
        tensors, metadata = read_shards(path)
        return {name: torch.from_numpy(array) for name, array in tensors.items()}, metadata
    except (TensorFileError, TypeError) as error:
        raise ValueError(f"{path}: not a readable safetensors file ({error})") from None


def write_torch(path: Path | str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a file whole or not at all; raises SaveError."""
    from safetensors.torch import save

    own = {name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}
    write_bytes(path, save(own, dict(metadata)))


def load_state(module: torch.nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Give a module its parameters.

    Raises:
        ValueError: they are not the module's; one line says which
    """
    own = module.state_dict()
    if missing := sorted(own.keys() - tensors.keys()):
        raise ValueError(f"it lacks {len(missing)} tensors: {', '.join(missing[:3])}, ...")
    if unknown := sorted(tensors.keys() - own.keys()):
        raise ValueError(f"it has {len(unknown)} tensors of another model: {', '.join(unknown[:3])}, ...")
    for name, value in own.items():
        if tensors[name].shape != value.shape:
            raise ValueError(f"{name} must have the shape {list(value.shape)}, not {list(tensors[name].shape)}")
    module.load_state_dict(dict(tensors))
