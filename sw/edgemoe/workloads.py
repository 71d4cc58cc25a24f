"""Named models as integer graphs: trained weights where they are committed, seeded random ones elsewhere."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

import edgemoe_models
from edgemoe_models import graph as graph_module
from edgemoe_models import quantize, quantize_search, random_weights, scenes
from edgemoe_models.config import PRESETS, ModelConfig
from edgemoe_models.graph import GraphError, IntegerGraph

__all__ = ["CALIBRATION_IMAGES", "load_graph", "preset_graph", "weights_path"]

CALIBRATION_IMAGES = 8
_CALIBRATION_SEED = scenes.SPLITS["train"].start


def weights_path(name: str) -> Path:
    """Where a preset's trained weights are, if there are any."""
    return Path(edgemoe_models.__file__).parent / "weights" / f"{name}.safetensors"


def calibration_images(model: ModelConfig) -> npt.NDArray[np.uint8]:
    """Training scenes of the model's size, uint8 [B, H, W, 3]."""
    return np.stack([scenes.generate_scene(_CALIBRATION_SEED + i, model.image_height, model.image_width).image
                     for i in range(CALIBRATION_IMAGES)])


def _cache_key(name: str, weights: Path, seed: int) -> str:
    """Changes with the weights and with everything that quantizes them."""
    digest = hashlib.sha256(f"{name} {seed} {CALIBRATION_IMAGES}".encode())
    for module in (quantize, quantize_search, random_weights, scenes, graph_module):
        digest.update(Path(str(module.__file__)).read_bytes())
    if weights.is_file():
        digest.update(weights.read_bytes())
    return digest.hexdigest()[:12]


def preset_graph(name: str, cache: Path = Path("build/graphs"), seed: int = 0) -> IntegerGraph:
    """A preset quantized with calibration scenes; kept in ``cache``.

    Raises
    ------
    ValueError: there is no such preset
    """
    if name not in PRESETS:
        raise ValueError(f"model must be one of {', '.join(PRESETS)}, or a checkpoint or graph file, not {name!r}")
    weights = weights_path(name)
    path = cache / f"{name}-{_cache_key(name, weights, seed)}.graph.safetensors"
    if path.is_file():
        try:
            return IntegerGraph.load(path)
        except GraphError:
            path.unlink()  # an interrupted run's; make it again
    model = PRESETS[name]
    if weights.is_file():
        graph = quantize.quantize_checkpoint(weights, calibration_images(model))
    else:
        graph = quantize.quantize(random_weights.random_state(model, seed), model, calibration_images(model))
    cache.mkdir(parents=True, exist_ok=True)
    graph.save(path)
    return graph


def load_graph(model: str, cache: Path = Path("build/graphs"), seed: int = 0) -> IntegerGraph:
    """A preset's name, an integer graph's file or a float checkpoint.

    Raises
    ------
    ValueError: it is none of these, or its contents are refused
    """
    path = Path(model)
    if model in PRESETS or not path.exists():
        return preset_graph(model, cache, seed)
    try:
        return IntegerGraph.load(path)
    except GraphError as error:
        if "no integer graph" not in str(error):
            raise
    _, config = quantize.load_checkpoint(path)
    return quantize.quantize_checkpoint(path, calibration_images(config))
