"""Seeded float weights with the statistics that make published Edge-MoE weights hard to quantize. NumPy only.

``random_weights`` has channels of about one size. In these, as in the published weights of Sarkar et al. (ICCAD 2023),

- the maxima of a GELU's channels differ by more than 15 x, and their median is a twelfth of the tensor's range;
- LayerNorm gains reach 15 in the outlier channels;
- attention is flat in the last third of the blocks: all tokens of a picture have nearly the same context, so that a
  channel's range is known from as many samples as there are pictures.

Calibration on a few pictures must hold on others in spite of it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np

from edgemoe_models.config import PRESETS, ModelConfig
from edgemoe_models.exact.functions import gelu, uniforms
from edgemoe_models.exact.sums import Doubles, mean, product, variance
from edgemoe_models.float_reference import Floats, Observed, attention, embed, layer_norm, mlp
from edgemoe_models.random_weights import (
    drawn,
    gate_weights,
    log_normal,
    random_images,
    sharpen_attention,
)

__all__ = ["HARSH", "SMALL_HARSH", "harsh_state"]

#: The published network's shape, and a small one of the same make for tests.
HARSH = dataclasses.replace(PRESETS["m3vit-tiny"], name="harsh")
SMALL_HARSH = dataclasses.replace(
    HARSH,
    name="small-harsh",
    image_height=64,
    image_width=128,
    dim=96,
    heads=3,
    depth=6,
    mlp_hidden=288,
    num_experts=8,
    expert_hidden=144,
)
#: Pictures whose activations weights are fitted to, and the first one's seed.
PICTURES, FIRST_PICTURE = 24, 50_000
#: Deviation of the logarithms of a GELU's channels: of 768, ten are above half of the range and 500 below an eighth.
CHANNEL_SPREAD = 0.8
#: Median deviation of a GELU's inputs, and their mean, in deviations.
MEDIAN_INPUT, MEAN_INPUT = 0.35, -0.4
#: norm2's gain in the outlier channels, in the first and in the last block, and the least of them, as a share of it.
FIRST_GAIN, LAST_GAIN, LEAST_GAIN = 4.0, 15.0, 0.6
#: What attention adds to the residual stream, in deviations of it: where it is sharp, and where it is flat.
ATTENTION_SHARE, FLAT_SHARE = 0.35, 0.75
#: The same of the first block's MLP, the other MLPs, and an expert before its gate's score.
FIRST_MLP_SHARE, MLP_SHARE, EXPERT_SHARE = 0.55, 0.275, 0.45
#: Deviation over the keys of attention scores: where it is sharp, and where it is flat, from a share of the depth on.
SHARP, FLAT, FLAT_FROM = (1.0, 2.5), (0.05, 0.2), 0.65

_Stream = dict[str, Doubles]


def harsh_state(config: ModelConfig = HARSH, seed: int = 0) -> dict[str, Floats]:
    """A float state dict for ``config``; equal arguments give equal tensors."""
    rng = np.random.Generator(np.random.PCG64(seed))
    state = drawn(config, rng)
    tokens = embed(state, config, random_images(config, PICTURES, FIRST_PICTURE))
    streams = {task.name: tokens for task in config.tasks}
    is_shared = True  # tasks share their tokens up to the first gate

    def each(streams: _Stream, function: Callable[[Doubles, str], Doubles]) -> _Stream:
        if is_shared:
            return dict.fromkeys(streams, function(*next((x, task) for task, x in streams.items())))
        return {task: function(x, task) for task, x in streams.items()}

    for i in range(config.depth):
        name = f"blocks.{i}"
        _set_gains(rng, config, state, i)
        _set_attention(rng, config, state, i, streams[config.tasks[0].name])
        streams = each(streams, lambda x, task, i=i: attention(state, config, x, i, {}))  # type: ignore[misc]
        gain, bias = (state[f"{name}.norm2.{part}"] for part in ("weight", "bias"))
        normed = each(streams, lambda x, task, w=gain, b=bias: layer_norm(x, w, b, config.eps))  # type: ignore[misc]
        size = _deviation(streams[config.tasks[0].name].reshape(-1, config.dim))
        rows = normed[config.tasks[0].name].reshape(-1, config.dim)[::3]
        if config.is_moe(i):
            is_shared = False
            for task, x in normed.items():
                state[f"{name}.moe.gate.{task}"] = gate_weights(rng, config, x)
            layers = [state[f"{name}.moe.{part}"] for part in ("w1", "b1", "w2", "b2")]
            for w1, b1, w2, b2 in zip(*layers, strict=True):
                _set_mlp(rng, w1, b1, w2, b2, rows, EXPERT_SHARE * size)
        else:
            parts = ("fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias")
            w1, b1, w2, b2 = (state[f"{name}.mlp.{part}"] for part in parts)
            _set_mlp(rng, w1, b1, w2, b2, rows, (MLP_SHARE if i else FIRST_MLP_SHARE) * size)
        streams = each(streams, lambda x, task, i=i: mlp(state, config, x, i, task, {}))  # type: ignore[misc]
    return state


def _deviation(rows: Doubles) -> float:
    """Of rows [N, K] about each channel's mean."""
    return math.sqrt(float(mean(variance(rows, 0))))


def _set_gains(rng: np.random.Generator, config: ModelConfig, state: dict[str, Floats], i: int) -> None:
    gain = FIRST_GAIN + (LAST_GAIN - FIRST_GAIN) * i / max(1, config.depth - 1)
    outliers = np.flatnonzero(state["patch_embed.bias"] > 1.0)
    state[f"blocks.{i}.norm2.weight"][outliers] = uniforms(rng, LEAST_GAIN * gain, gain, len(outliers))


def _set_attention(rng: np.random.Generator, config: ModelConfig, state: dict[str, Floats], i: int, x: Doubles) -> None:
    """Sharpness, and the size of what is added, by tokens x [B, T, D]; its mean over them becomes the bias alone."""
    name, is_flat = f"blocks.{i}", i >= FLAT_FROM * config.depth
    seen: Observed = {}
    attention(state, config, x[:2], i, seen)
    wanted = uniforms(rng, *(FLAT if is_flat else SHARP), config.heads)
    sharpen_attention(config, state[f"{name}.attn.qkv.weight"], seen[f"{name}.scores"], wanted)
    added = (attention(state, config, x, i, {}) - x).reshape(-1, config.dim)
    factor = (FLAT_SHARE if is_flat else ATTENTION_SHARE) * _deviation(x.reshape(-1, config.dim)) / _deviation(added)
    bias = state[f"{name}.attn.proj.bias"]
    bias -= (factor * (mean(added, 0) - bias)).astype(np.float32)
    state[f"{name}.attn.proj.weight"] *= np.float32(factor)


def _set_mlp(
    rng: np.random.Generator, w1: Floats, b1: Floats, w2: Floats, b2: Floats, rows: Doubles, wanted: float
) -> None:
    """Change weights in place: GELU inputs of rows [N, D] spread as said above, outputs deviate by ``wanted``."""
    size = log_normal(rng, (len(w1),), CHANNEL_SPREAD) * np.float32(MEDIAN_INPUT)
    inputs = product(rows, w1)
    factor = size / np.sqrt(variance(inputs, 0))
    w1 *= factor[:, None].astype(np.float32)
    b1[:] = MEAN_INPUT * size - factor * mean(inputs, 0)
    w2 /= np.sqrt(np.sqrt(size))  # quiet channels count for more, as in trained networks
    outputs = product(gelu(product(rows, w1) + b1), w2)
    w2 *= np.float32(wanted / _deviation(outputs))
    b2 -= (mean(outputs, 0) * (wanted / _deviation(outputs))).astype(np.float32)
