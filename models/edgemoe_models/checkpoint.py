"""Float checkpoints: reading one, and checking that a state dict is a model's. NumPy only."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgemoe_models.config import ModelConfig
from edgemoe_models.float_reference import Floats, check_shapes, state_shapes
from edgemoe_models.storage.tensor_file import TensorFileError, read_tensors

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


def load_checkpoint(path: Path | str) -> tuple[dict[str, Floats], ModelConfig]:
    """A float checkpoint: safetensors with the model's config as JSON under the metadata key ``config``.

    Raises:
        CheckpointError: the file cannot be read, has no config, or its tensors do not fit it.
    """
    try:
        state, metadata = read_tensors(path)
    except (TensorFileError, OSError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors checkpoint ({error})") from None
    if "config" not in metadata:
        raise CheckpointError(f"{path}: the metadata key 'config' (the model's config as JSON) is missing")
    try:
        config = ModelConfig.from_json(metadata["config"])
        return check_state(state, config), config
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    except ValueError as error:
        raise CheckpointError(f"{path}: its config is wrong: {error}") from None
