"""Experts that a checkpoint lacks, drawn so that they are as loud as the network's own layers. NumPy only.

A LayerNorm's outputs have the mean square ``gain^2 + bias^2`` a channel. Trained gains reach 15, so weights of variance
1 / inputs would drown the residual stream.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from edgemoe_models.config import ModelConfig
from edgemoe_models.exact.functions import gelu, standard_normal
from edgemoe_models.exact.sums import Doubles, mean, product, total
from edgemoe_models.float_reference import Floats, state_shapes

__all__ = ["fill_experts", "mlp_size"]

_ROWS = 256


def fill_experts(state: dict[str, Floats], config: ModelConfig, missing: Sequence[str], seed: int) -> None:
    """Draw the tensors ``missing`` (``.w1``, ``.b1``, ``.w2`` and ``.b2`` of blocks, in this order) into ``state``.

    ``w1``: GELU's inputs have the mean square 1; ``w2``: an expert's outputs, before its gate's score, have the root
    mean square that the dense blocks' MLPs add, by their median; biases are zero.
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    rows = standard_normal(rng, (_ROWS, config.dim))
    sizes = sorted(mlp_size(state, i, rows) for i in range(config.depth) if not config.is_moe(i))
    shapes = state_shapes(config)
    for name in missing:
        block, _, part = name.rpartition(".moe.")
        if part in ("b1", "b2"):
            state[name] = np.zeros(shapes[name], np.float32)
            continue
        gain, bias = (state[f"{block}.norm2.{kind}"].astype(np.float64) for kind in ("weight", "bias"))
        inputs = float(total(np.square(gain) + np.square(bias))) if part == "w1" else shapes[name][-1]
        state[name] = (standard_normal(rng, shapes[name]) / math.sqrt(max(inputs, 1e-12))).astype(np.float32)
        if part == "w2":
            layers = [state[f"{block}.moe.{kind}"] for kind in ("w1", "b1", "w2")]
            y = rows * gain + bias
            found = [_rms(product(gelu(product(y, w1) + b1), w2)) for w1, b1, w2 in zip(*layers, strict=True)]
            state[name] *= np.float32(sizes[len(sizes) // 2] / max(float(mean(np.asarray(found))), 1e-12))


def mlp_size(state: dict[str, Floats], block: int, rows: Doubles) -> float:
    """The root mean square of what a dense block's MLP adds for normalised tokens [N, D] (before gain and bias)."""
    name = f"blocks.{block}"
    y = rows * state[f"{name}.norm2.weight"] + state[f"{name}.norm2.bias"]
    hidden = gelu(product(y, state[f"{name}.mlp.fc1.weight"]) + state[f"{name}.mlp.fc1.bias"])
    return _rms(product(hidden, state[f"{name}.mlp.fc2.weight"]) + state[f"{name}.mlp.fc2.bias"])


def _rms(x: Doubles) -> float:
    return math.sqrt(float(mean(mean(np.square(x)))))
