"""Post-training quantization: float state dict + calibration images -> integer graph. NumPy only."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgemoe_models.config import ModelConfig
from edgemoe_models.datasets import scenes
from edgemoe_models.float_reference import Floats, check_shapes, state_shapes
from edgemoe_models.graph.integer_graph import IntegerGraph
from edgemoe_models.ptq.calibrate import calibration_folder
from edgemoe_models.ptq.quantizer import Quantizer
from edgemoe_models.ptq.search import DEFAULT, QuantizeError, QuantizeOptions
from edgemoe_models.storage.tensor_file import TensorFileError, read_tensors

__all__ = [
    "QuantizeError",
    "QuantizeOptions",
    "calibration_folder",
    "calibration_images",
    "check_state",
    "load_checkpoint",
    "quantize",
    "quantize_checkpoint",
]

LARGEST_WEIGHT = 1e4


def check_state(state: Mapping[str, npt.NDArray[Any]], config: ModelConfig) -> dict[str, Floats]:
    """The state dict in float32, complete and finite.

    Raises:
        QuantizeError: names the first tensor that is missing, unexpected, of a wrong shape or type, or not finite.
    """
    try:
        check_shapes(config, {name: np.shape(array) for name, array in state.items()})
    except ValueError as error:
        raise QuantizeError(str(error)) from None
    result = {}
    for name in state_shapes(config):
        array = np.asarray(state[name])
        if not np.issubdtype(array.dtype, np.floating):
            raise QuantizeError(f"{name} must be floating point, not {array.dtype.name}")
        array = array.astype(np.float32)
        if not np.isfinite(array).all():
            bad = int((~np.isfinite(array)).sum())
            raise QuantizeError(f"{name} holds {bad} NaN or infinite values; the checkpoint is broken, train it again")
        if (peak := float(np.abs(array).max(initial=0))) > LARGEST_WEIGHT:
            raise QuantizeError(f"{name} holds values up to {peak:.3g}, weights must be at most {LARGEST_WEIGHT:.0e}")
        result[name] = array
    return result


def load_checkpoint(path: Path | str) -> tuple[dict[str, Floats], ModelConfig]:
    """A float checkpoint: safetensors with the model's config as JSON under the metadata key ``config``.

    Raises:
        QuantizeError: the file cannot be read, has no config, or its tensors do not fit it.
    """
    try:
        state, metadata = read_tensors(path)
    except (TensorFileError, OSError) as error:
        raise QuantizeError(f"{path}: not a readable safetensors checkpoint ({error})") from None
    if "config" not in metadata:
        raise QuantizeError(f"{path}: the metadata key 'config' (the model's config as JSON) is missing")
    try:
        config = ModelConfig.from_json(metadata["config"])
        return check_state(state, config), config
    except QuantizeError as error:
        raise QuantizeError(f"{path}: {error}") from None
    except ValueError as error:
        raise QuantizeError(f"{path}: its config is wrong: {error}") from None


def calibration_images(config: ModelConfig, count: int = 12) -> npt.NDArray[np.uint8]:
    """The first scenes of the training split at the model's size, uint8 [count, H, W, 3]."""
    seeds = scenes.SPLITS["train"][:count]
    return np.stack([scenes.generate_scene(seed, config.image_height, config.image_width).image for seed in seeds])


def quantize_checkpoint(
    path: Path | str, images: npt.NDArray[np.uint8] | None = None, options: QuantizeOptions = DEFAULT
) -> IntegerGraph:
    """Quantize a float checkpoint file, with :func:`calibration_images` unless others are given."""
    state, config = load_checkpoint(path)
    return quantize(state, config, calibration_images(config) if images is None else images, options)


def quantize(
    state: Mapping[str, npt.NDArray[Any]],
    config: ModelConfig,
    images: npt.NDArray[np.uint8],
    options: QuantizeOptions = DEFAULT,
) -> IntegerGraph:
    """Post-training quantization.

    Args:
        state: float state dict (float16, float32 or float64)
        images: calibration images, uint8 [B, H, W, 3] at the model's size; 8 to 16 typical ones are enough
        options: bits of the experts' weights, and how ranges are chosen

    Raises:
        QuantizeError: weights or images do not fit the model, or are not finite.
    """
    wanted = (config.image_height, config.image_width, 3)
    if images.ndim != 4 or images.shape[1:] != wanted or images.dtype != np.uint8 or not len(images):
        raise QuantizeError(
            f"calibration images must be uint8 [B, {', '.join(map(str, wanted))}], "
            f"not {images.dtype.name} {list(images.shape)}"
        )
    return Quantizer(check_state(state, config), config, images, options).graph()
