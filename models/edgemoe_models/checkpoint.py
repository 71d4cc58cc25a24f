"""Float checkpoints: reading one, and checking that a state dict is a model's. NumPy only."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgemoe_models.config import ModelConfig
from edgemoe_models.float_reference import Floats, check_shapes, state_shapes
from edgemoe_models.storage.file_kind import CHECKPOINT_KEY, LATENT_KEY, describe
from edgemoe_models.storage.shards import read_shards
from edgemoe_models.storage.tensor_file import TensorFileError, read_metadata

LARGEST_WEIGHT = 1e4


class CheckpointError(ValueError):
    """A checkpoint or state dict that is not the model's; the message names the file or the tensor."""


def check_state(state: Mapping[str, npt.NDArray[Any]], config: ModelConfig) -> dict[str, Floats]:
    """The state dict in float32, complete and finite.

    Raises:
        CheckpointError: names the first tensor that is missing, unexpected, of a wrong shape or type, or not finite.
    """
    try:
        check_shapes(config, {name: np.shape(array) for name, array in state.items()})
    except ValueError as error:
        raise CheckpointError(str(error)) from None
    result = {}
    for name in state_shapes(config):
        array = np.asarray(state[name])
        if not np.issubdtype(array.dtype, np.floating):
            raise CheckpointError(f"{name} must be floating point, not {array.dtype.name}")
        array = array.astype(np.float32)
        if not np.isfinite(array).all():
            bad = np.count_nonzero(~np.isfinite(array))
            raise CheckpointError(f"{name} holds {bad} NaN or infinite values; the checkpoint is broken: train again")
        if (peak := float(np.abs(array).max(initial=0))) > LARGEST_WEIGHT:
            raise CheckpointError(f"{name} holds values up to {peak:.3g}, weights must be at most {LARGEST_WEIGHT:.0e}")
        result[name] = array
    return result


def read_shape(metadata: Mapping[str, str]) -> ModelConfig:
    """The model of a checkpoint, from its metadata.

    Raises:
        CheckpointError: it has none, or a wrong one
    """
    if CHECKPOINT_KEY not in metadata:
        raise CheckpointError("the metadata key 'config' (the model's config as JSON) is missing")
    try:
        return ModelConfig.from_json(metadata[CHECKPOINT_KEY])
    except ValueError as error:
        raise CheckpointError(f"its config is wrong: {error}") from None


def load_checkpoint(path: Path | str) -> tuple[dict[str, Floats], ModelConfig]:
    """A float checkpoint: safetensors with the model's config as JSON under the metadata key ``config``.

    The first of several parts (``edgemoe_models.storage.shards``) stands for all.

    Raises:
        CheckpointError: the file cannot be read, has no config, or its tensors do not fit it.
    """
    try:
        metadata = read_metadata(path)
        if CHECKPOINT_KEY not in metadata or LATENT_KEY in metadata:
            raise CheckpointError(f"{path} {describe(path)}")
        tensors, _ = read_shards(path)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: there is no such file") from None
    except (TensorFileError, OSError) as error:
        found = describe(path, CHECKPOINT_KEY) or f"is not a readable safetensors checkpoint ({error})"
        raise CheckpointError(f"{path} {found}") from None
    try:
        config = read_shape(metadata)
        return check_state(tensors, config), config
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
