"""Files of quantization-aware training: safetensors with all of a model's parameters, and JSON metadata; no pickles."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from edgemoe_models.config import LIMITS, ModelConfig
from edgemoe_models.float_reference import state_shapes
from edgemoe_models.qat.model import QatConfig, QuantM3ViT
from edgemoe_models.storage import checks
from edgemoe_models.storage.json_text import parse_json
from edgemoe_models.storage.torch_tensors import load_state, read_torch
from edgemoe_models.storage.torch_tensors import write_torch as write

__all__ = ["load", "model_metadata", "read", "rebuild", "write"]

_QUANTIZED = tuple(field.name for field in dataclasses.fields(QatConfig) if field.name != "model")


def model_metadata(config: QatConfig) -> dict[str, str]:
    """What ``rebuild`` needs to know besides the parameters."""
    quantized = {name: getattr(config, name) for name in _QUANTIZED}
    return {"config": config.model.to_json(), "qat": json.dumps(quantized)}


def rebuild(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> QuantM3ViT:
    """The Brevitas model of a file's contents.

    Raises:
        ValueError: the metadata or the tensors are not those of such a model.
    """
    try:
        quantized = checks.record(parse_json(metadata["qat"]), "qat", _QUANTIZED)
        shifts = checks.items(quantized["score_shifts"], "score_shifts", 1, LIMITS["depth"])
        quantized["score_shifts"] = tuple(checks.integer(shift, "score_shifts", 0, 3) for shift in shifts)
        checks.integer(quantized["expert_bits"], "expert_bits", 4, 8)
        checks.boolean(quantized["power_of_two"], "power_of_two")
        config = ModelConfig.from_json(metadata["config"])
        _check_size(config, tensors)
        model = QuantM3ViT(QatConfig(config, **quantized))
        load_state(model, tensors)
    except (KeyError, TypeError, RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"not a model of edgemoe_models.qat: {reason}") from None
    return model


def _check_size(config: ModelConfig, tensors: Mapping[str, Tensor]) -> None:
    """Refuse a config that tells of more weights than the file has, before they are allocated."""
    needed = sum(math.prod(shape) for shape in state_shapes(config).values())
    found = sum(tensor.numel() for tensor in tensors.values())
    if found < needed:
        raise ValueError(f"its config tells of {needed:,} weights, and it has {found:,} values")


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a file; ValueError when it cannot be read."""
    try:
        return read_torch(path)
    except OSError as error:
        raise ValueError(f"{path}: not a readable safetensors file ({error.strerror or error})") from None


def load(path: Path | str) -> QuantM3ViT:
    """The trained model of a weights file, ready to evaluate.

    Raises:
        ValueError: the file cannot be read, or holds no such model.
    """
    try:
        result: QuantM3ViT = rebuild(*read(Path(path))).eval()
        return result
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
