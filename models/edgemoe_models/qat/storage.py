"""Files of quantization-aware training: safetensors with all of a model's parameters, and JSON metadata; no pickles."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

import safetensors
from safetensors import safe_open
from torch import Tensor

from edgemoe_models.config import ModelConfig
from edgemoe_models.qat.model import QatConfig, QuantM3ViT
from edgemoe_models.train.trainer import write_tensors as write

__all__ = ["load", "model_metadata", "read", "rebuild", "write"]


def model_metadata(config: QatConfig) -> dict[str, str]:
    """What :func:`rebuild` needs to know besides the parameters."""
    quantized = {f.name: getattr(config, f.name) for f in dataclasses.fields(config) if f.name != "model"}
    return {"config": config.model.to_json(), "qat": json.dumps(quantized)}


def rebuild(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> QuantM3ViT:
    """The Brevitas model of a file's contents.

    Raises:
        ValueError: the metadata or the tensors are not those of such a model.
    """
    try:
        quantized = json.loads(metadata["qat"])
        quantized["score_shifts"] = tuple(quantized["score_shifts"])
        model = QuantM3ViT(QatConfig(ModelConfig.from_json(metadata["config"]), **quantized))
        model.load_state_dict(dict(tensors))
    except (KeyError, TypeError, RuntimeError) as error:
        raise ValueError(f"not a model of edgemoe_models.qat: {error}") from None
    return model


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a file; ValueError when it cannot be read."""
    try:
        with safe_open(path, "pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}
    except (safetensors.SafetensorError, OSError) as error:
        raise ValueError(f"{path}: not a readable safetensors file ({error})") from None


def load(path: Path | str) -> QuantM3ViT:
    """The trained model of a weights file, ready to evaluate.

    Raises:
        ValueError: the file cannot be read, or holds no such model.
    """
    try:
        return rebuild(*read(Path(path))).eval()
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
