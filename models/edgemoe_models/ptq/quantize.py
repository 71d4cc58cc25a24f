"""Post-training quantization: float state dict + calibration images -> integer graph. NumPy only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgemoe_models.checkpoint import check_state, load_checkpoint
from edgemoe_models.config import ModelConfig
from edgemoe_models.datasets import DataSet, scenes
from edgemoe_models.datasets.arrays import Track
from edgemoe_models.graph.integer_graph import IntegerGraph
from edgemoe_models.ptq.calibrate import Images, calibration_folder, spread
from edgemoe_models.ptq.options import DEFAULT, QuantizeError, QuantizeOptions
from edgemoe_models.ptq.quantizer import Quantizer
from edgemoe_models.ptq.report import clipping_note

__all__ = [
    "QuantizeError",
    "QuantizeOptions",
    "calibration_folder",
    "calibration_images",
    "data_set_pictures",
    "held_out_images",
    "quantize",
    "quantize_checkpoint",
]

_EVERY = 1 << 20  # pictures: more than any split has


def calibration_images(config: ModelConfig, count: int = 12) -> Images:
    """The first scenes of the training split at the model's size, uint8 [count, H, W, 3]."""
    seeds = scenes.SPLITS["train"][:count]
    return np.stack([scenes.generate_scene(seed, config.image_height, config.image_width).image for seed in seeds])


def data_set_pictures(
    data_set: DataSet, root: str, cache: Path, config: ModelConfig, count: int = 16, track: Track | None = None
) -> Images:
    """Pictures of a data set's training split to quantize with, uint8 [B, H, W, 3].

    Generated scenes are ``calibration_images``; of photographs ``count`` are taken, evenly spaced.

    Raises:
        ValueError, FileNotFoundError: see ``DataSet.load``
    """
    if data_set.name == "scenes":
        return calibration_images(config)
    size = (config.image_height, config.image_width)
    return np.stack(spread(list(data_set.load(root, cache, "train", _EVERY, size, [], track)["image"]), count))


def held_out_images(config: ModelConfig, count: int = 8) -> Images:
    """The first scenes of the validation split, on which no range is ever chosen, uint8 [count, H, W, 3]."""
    seeds = scenes.SPLITS["val"][:count]
    return np.stack([scenes.generate_scene(seed, config.image_height, config.image_width).image for seed in seeds])


def quantize_checkpoint(
    path: Path | str, images: Images | None = None, options: QuantizeOptions = DEFAULT
) -> IntegerGraph:
    """Quantize a float checkpoint file, with ``calibration_images`` unless others are given."""
    state, config = load_checkpoint(path)
    return quantize(state, config, calibration_images(config) if images is None else images, options)


def quantize(
    state: Mapping[str, npt.NDArray[Any]],
    config: ModelConfig,
    images: Images,
    options: QuantizeOptions = DEFAULT,
    notes: Callable[[str], None] | None = None,
) -> IntegerGraph:
    """Post-training quantization.

    Args:
        state: float state dict (float16, float32 or float64)
        images: calibration images, uint8 [B, H, W, 3] at the model's size; 8 to 16 typical ones are enough
        options: bits of the experts' weights, and how ranges are chosen
        notes: told which tensors are clipped on pictures that had no part in their range, if it is more than 1 %

    Raises:
        CheckpointError: weights do not fit the model, or are not finite
        QuantizeError: images do not fit the model, or a layer's ranges are absurd
    """
    wanted = (config.image_height, config.image_width, 3)
    if images.ndim != 4 or images.shape[1:] != wanted or images.dtype != np.uint8 or not len(images):
        raise QuantizeError(
            f"calibration images must be uint8 [B, {', '.join(map(str, wanted))}], "
            f"not {images.dtype.name} {list(images.shape)}"
        )
    quantizer = Quantizer(check_state(state, config), config, images, options)
    graph = quantizer.graph()
    note = clipping_note(quantizer.clipping, "in one half of the pictures by ranges of the other half")
    if notes is not None and note is not None:
        notes(note)
    return graph
