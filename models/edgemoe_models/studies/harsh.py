"""What quantization keeps of weights with the published network's statistics: rows a variant. NumPy only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from edgemoe_models import float_reference
from edgemoe_models.config import ModelConfig
from edgemoe_models.float_reference import State
from edgemoe_models.graph.integer_graph import IntegerGraph
from edgemoe_models.harsh_weights import HARSH, SMALL_HARSH, harsh_state
from edgemoe_models.integer import reference
from edgemoe_models.ptq.options import QuantizeOptions
from edgemoe_models.ptq.quantize import quantize
from edgemoe_models.random_weights import random_images

__all__ = ["MODELS", "VARIANTS", "compare", "errors", "unseen_images"]

MODELS = {"small": SMALL_HARSH, "tiny": HARSH}
VARIANTS: Mapping[str, QuantizeOptions] = {
    "ours": QuantizeOptions(),
    "weights to the nearest": QuantizeOptions(compensate=False),
    "min-max ranges": QuantizeOptions(ranges="min-max"),
    "no equalization": QuantizeOptions(equalize=False),
    "min-max, no equalization": QuantizeOptions(ranges="min-max", equalize=False),
    "4-bit experts": QuantizeOptions(expert_bits=4),
    "half of the others 4-bit": QuantizeOptions(int4_share=0.5),
    "all blocks 4-bit": QuantizeOptions(expert_bits=4, int4_share=1.0),
}
#: First seeds of the scenes that calibrate, and of those that errors are measured on.
_CALIBRATION, _UNSEEN = 0, 20_000
_CALIBRATION_COUNT, _COUNT = 16, 6


def unseen_images(config: ModelConfig) -> npt.NDArray[np.uint8]:
    """Six scenes that calibration has not seen, uint8 [6, H, W, 3]: two of them darker, two of more contrast."""
    images = random_images(config, _COUNT, _UNSEEN).astype(np.float64)
    images[1::3] *= 0.6
    images[2::3] = np.clip((images[2::3] - 128) * 1.4 + 128, 0, 255)
    return np.rint(images).astype(np.uint8)


def errors(state: State, graph: IntegerGraph) -> dict[str, float]:
    """Of unseen scenes and all tasks: ``block0`` and ``final``, relative errors of the tokens after the first and the
    last block (mean over pictures), ``first_gate`` and ``gates``, shares of the choices of experts that are equal."""
    config, images = graph.config, unseen_images(graph.config)
    tokens: dict[str, list[float]] = {"block0": [], "final": []}
    same: dict[int, list[float]] = {}
    for task in config.tasks:
        wanted: dict[str, Any] = {}
        found: dict[str, Any] = {}
        float_reference.forward(state, config, images, task.name, wanted)
        reference.run_batch(graph, images, task.name, found)
        for key, block in (("block0", 0), ("final", config.depth - 1)):
            rows = wanted[f"blocks.{block}.residual2"].reshape(len(images), -1)
            error = found[f"blocks.{block}.residual2"].reshape(len(images), -1) * graph.residual_scale - rows
            tokens[key].append(float(np.sqrt(np.square(error).sum(1) / np.square(rows).sum(1)).mean()))
        choices = len(images) * config.num_tokens * config.top_k
        for block in filter(config.is_moe, range(config.depth)):
            pairs = zip(wanted[f"blocks.{block}.queues"], found[f"blocks.{block}.queues"], strict=True)
            same.setdefault(block, []).append(sum(len(np.intersect1d(*pair)) for pair in pairs) / choices)
    gates = [float(np.mean(shares)) for shares in same.values()]
    result = {key: float(np.mean(values)) for key, values in tokens.items()}
    return result | {"first_gate": gates[0], "gates": float(np.mean(gates))}


def compare(model: str, seeds: int, variants: Mapping[str, QuantizeOptions] = VARIANTS) -> Iterator[dict[str, Any]]:
    """Rows ``model``, ``seeds``, ``variant`` and the means of ``errors`` over weights of ``seeds`` seeds.

    Args:
        model: a key of ``MODELS``
    """
    config = MODELS[model]
    states = [harsh_state(config, seed) for seed in range(seeds)]
    images = random_images(config, _CALIBRATION_COUNT, _CALIBRATION)
    for name, options in variants.items():
        rows = [errors(state, quantize(state, config, images, options)) for state in states]
        means = {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}
        yield {"model": model, "seeds": seeds, "variant": name, **means}
