"""Prints digests of everything that must have the same bits on every machine, as JSON.

``python tests/support/digests.py [quick|full|all]``: the packages must be importable.
``tests/models/test_same_bits.py`` runs it with other BLAS kernels, threads and SIMD widths, and compares with
``tests/models/same_bits.json``, which is the output of ``all``.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
from typing import Any

import numpy as np

from edgemoe_models import random_weights
from edgemoe_models.checkpoint import load_checkpoint
from edgemoe_models.config import PRESETS
from edgemoe_models.datasets.scenes import generate_scene
from edgemoe_models.graph.file import graph_bytes
from edgemoe_models.graph.integer_graph import IntegerGraph
from edgemoe_models.ptq.quantize import QuantizeOptions, calibration_images, quantize
from edgemoe_models.trained_weights import weights_path

WEIGHTS = weights_path("m3vit-micro")
#: Experts, two tasks and heads without a hidden layer, as m3vit-tiny, but small.
MOE = dataclasses.replace(PRESETS["m3vit-tiny"], name="moe", image_height=32, image_width=64, dim=96, depth=2)
DENSE = dataclasses.replace(
    PRESETS["deit-tiny"], name="dense", image_height=64, image_width=64, dim=64, heads=1, depth=2
)
OTHER_OPTIONS = QuantizeOptions(expert_bits=4, power_of_two=True, ranges="percentile", per_channel=False)


def _digest(*arrays: Any) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def graph_digest(graph: IntegerGraph) -> str:
    """sha256 of the graph's file, which is equal for equal graphs."""
    return hashlib.sha256(graph_bytes(graph)).hexdigest()


def digests() -> dict[str, str]:
    """In seconds: scenes, seeded weights, and graphs of a trained model and of random ones."""
    scenes = [generate_scene(seed, 64, 128) for seed in range(6)]
    fields = ("image", "segmentation", "depth", "normals", "edges")
    weights = random_weights.random_state(MOE)
    images = calibration_images(MOE, 4)
    state, config = load_checkpoint(WEIGHTS)
    vit = random_weights.random_state(DENSE)
    return {
        "scenes": _digest(*(getattr(scene, field) for scene in scenes for field in fields)),
        "random weights": _digest(*(weights[name] for name in sorted(weights))),
        "m3vit-micro, 2 scenes": graph_digest(quantize(state, config, calibration_images(config, 2))),
        "random MoE": graph_digest(quantize(weights, MOE, images)),
        "random MoE, other options": graph_digest(quantize(weights, MOE, images, OTHER_OPTIONS)),
        "random ViT": graph_digest(quantize(vit, DENSE, calibration_images(DENSE, 4))),
    }


def full_digests() -> dict[str, str]:
    """In minutes: what the commands give for the presets."""
    state, config = load_checkpoint(WEIGHTS)
    random = {name: random_weights.random_state(PRESETS[name]) for name in ("deit-tiny", "m3vit-tiny")}
    return {
        "m3vit-micro": graph_digest(quantize(state, config, calibration_images(config))),
        **{f"{name}, weights": _digest(*(weights[key] for key in sorted(weights))) for name, weights in random.items()},
        "deit-tiny": graph_digest(
            quantize(random["deit-tiny"], PRESETS["deit-tiny"], calibration_images(PRESETS["deit-tiny"], 8))
        ),
    }


def what_the_machine_decides() -> str:
    """The digest of a plain product, exponentials and sums."""
    values = np.random.default_rng(0).standard_normal((2, 300, 300)).astype(np.float32)
    return _digest(values[0] @ values[1], np.exp(values), values.sum(-1))


def main() -> None:
    which = sys.argv[1] if len(sys.argv) > 1 else "all"
    result = (digests() if which != "full" else {}) | (full_digests() if which != "quick" else {})
    if which == "quick":
        result["plain"] = what_the_machine_decides()
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
