"""Seeded float weights that behave like trained ones, for models without a checkpoint. NumPy only.

What makes trained ViTs hard to quantize and to schedule is there: LayerNorm gains with outlier channels, biases, a few
large residual channels, attention between flat and one-hot. What training's balance loss sees to is there too: every
expert gets its share of a picture's tokens, so that an inference fetches about as many experts as a trained model's.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from edgemoe_models.config import ModelConfig
from edgemoe_models.datasets.scenes import generate_scene
from edgemoe_models.exact.functions import LOG2_E, exp, standard_normal, uniforms
from edgemoe_models.exact.linear_algebra import eigen, matrix_product, solve
from edgemoe_models.exact.sums import Doubles, mean, product, total, variance
from edgemoe_models.float_reference import (
    Floats,
    Observed,
    attention,
    embed,
    layer_norm,
    mlp,
    state_shapes,
)

#: Standard deviation over the keys of a head's attention scores (natural logarithms), drawn from this range.
SCORE_DEVIATIONS = (1.0, 2.5)
#: Pictures that attention's sharpness follows, and those that gates follow: what pictures share shows in many only.
PICTURES, GATE_PICTURES = 2, 128
#: What a gate shall not see: the weight of what sets a whole picture apart (it moves all of its tokens), and a share of
#: the mean variance that keeps directions out that hardly vary.
PICTURE_WEIGHT, GATE_RIDGE = 16.0, 0.03
OUTLIER_SHARE = 0.02


def truncated(rng: np.random.Generator, shape: tuple[int, ...], deviation: float) -> Floats:
    """Normal values cut at three deviations."""
    return (np.clip(standard_normal(rng, shape), -3, 3) * deviation).astype(np.float32)


def log_normal(rng: np.random.Generator, shape: tuple[int, ...], deviation: float) -> Floats:
    return exp(truncated(rng, shape, deviation).astype(np.float64)).astype(np.float32)


def _outliers(rng: np.random.Generator, dim: int) -> npt.NDArray[np.int64]:
    return rng.choice(dim, max(1, round(OUTLIER_SHARE * dim)), replace=False)


def random_state(config: ModelConfig, seed: int = 0) -> dict[str, Floats]:
    """A float state dict for ``config``; equal arguments give equal tensors."""
    rng = np.random.Generator(np.random.PCG64(seed))
    state = drawn(config, rng)
    _settle(state, config, rng)
    return state


def drawn(config: ModelConfig, rng: np.random.Generator) -> dict[str, Floats]:
    """Tensors that no picture was shown to: attention's sharpness is chance, and gates are zeros."""
    state: dict[str, Floats] = {}
    outliers = _outliers(rng, config.dim)  # the same channels stand out in every block, as in trained models
    for name, shape in state_shapes(config).items():
        part, leaf = name.split(".")[-2:] if "." in name else ("", name)
        if part in ("norm1", "norm2", "norm") or name.startswith("norm."):
            state[name] = _norm(rng, shape, leaf, outliers)
        elif leaf in ("weight", "w1", "w2"):
            state[name] = _weight(rng, config, name, shape)
        elif part == "gate":
            state[name] = np.zeros(shape, np.float32)  # set by _settle
        else:
            state[name] = truncated(rng, shape, 0.3 if name == "pos_embed" else 0.08)
    state["patch_embed.bias"][outliers] += 2.0
    weight = state["patch_embed.weight"]  # trained filters hardly see a patch's mean
    weight -= np.float32(0.9) * mean(weight)[:, None]
    return state


def _norm(rng: np.random.Generator, shape: tuple[int, ...], leaf: str, outliers: npt.NDArray[np.int64]) -> Floats:
    if leaf == "bias":
        return truncated(rng, shape, 0.15)
    gain = log_normal(rng, shape, 0.35)
    gain[outliers] *= uniforms(rng, 2.5, 6.0, len(outliers)).astype(np.float32)
    return gain


def _weight(rng: np.random.Generator, config: ModelConfig, name: str, shape: tuple[int, ...]) -> Floats:
    deviation = 1.0 / math.sqrt(shape[-1])
    if name == "patch_embed.weight":
        deviation *= 6.0  # pixels vary little
    elif name.endswith(("attn.proj.weight", "mlp.fc2.weight", "moe.w2")):
        deviation *= 2.0 / math.sqrt(config.depth)  # each block adds a part of the residual stream
    rows = log_normal(rng, (*shape[:-1], 1), 0.25)  # output channels differ in size
    return truncated(rng, shape, deviation) * rows


def _settle(state: dict[str, Floats], config: ModelConfig, rng: np.random.Generator) -> None:
    """Set attention's sharpness and the gates from the activations of pictures, block by block.

    Attention follows the first task's tokens; each task's gates follow its own.
    """
    seen: Observed = {}
    tokens = embed(state, config, random_images(config, GATE_PICTURES if config.num_experts else PICTURES))
    streams = {config.tasks[0].name: tokens}  # tasks share their tokens up to the first gate
    for i in range(config.depth):
        attention(state, config, streams[config.tasks[0].name][:PICTURES], i, seen)
        wanted = uniforms(rng, *SCORE_DEVIATIONS, config.heads)
        sharpen_attention(config, state[f"blocks.{i}.attn.qkv.weight"], seen[f"blocks.{i}.scores"], wanted)
        streams = {task: attention(state, config, x, i, {}) for task, x in streams.items()}
        if config.is_moe(i):
            shared = streams[config.tasks[0].name]
            streams = {task.name: streams.get(task.name, shared) for task in config.tasks}
            norm = state[f"blocks.{i}.norm2.weight"], state[f"blocks.{i}.norm2.bias"]
            for task, x in streams.items():
                state[f"blocks.{i}.moe.gate.{task}"] = gate_weights(rng, config, layer_norm(x, *norm, config.eps))
        streams = {task: mlp(state, config, x, i, task, {}) for task, x in streams.items()}


def sharpen_attention(config: ModelConfig, qkv: Floats, scores: Doubles, wanted: Doubles) -> None:
    """Scale each head's q and k so that its scores [B, heads, T, T] (base 2) spread as ``wanted`` [heads], in natural
    logarithms. Changes ``qkv``."""
    deviation = mean(mean(np.sqrt(variance(scores)), 2), 0) / LOG2_E
    factor = np.sqrt(wanted / np.maximum(deviation, 1e-6)).astype(np.float32)
    rows = qkv[: 2 * config.dim].reshape(2, config.heads, config.head_dim, config.dim)
    rows *= factor[None, :, None, None]


def gate_weights(rng: np.random.Generator, config: ModelConfig, tokens: Doubles) -> Floats:
    """A gate [E, D] that spreads the tokens [B, T, D] of every picture over all experts.

    A balance loss (Shazeer et al. 2017) makes trained gates do so. Without it a random gate sends most of a picture to
    a few experts, because a picture's tokens have much in common. Here the gate's logits are random mixtures of those
    E directions in which tokens differ most by their place, which every picture has alike, for what else they vary by
    (linear discriminant analysis); they are uncorrelated, of deviation 1, and their mean over all tokens is 0.
    """
    by_place = mean(tokens, 0)
    centre = mean(by_place, 0)
    place, picture = by_place - centre, mean(tokens, 1) - centre
    signal, noise = _second_moment(place), _second_moment((tokens - by_place).reshape(-1, config.dim))
    covariance = signal + noise
    noise += PICTURE_WEIGHT * _second_moment(picture)
    noise += GATE_RIDGE * mean(noise.diagonal()) * np.eye(config.dim)
    whiten = _inverse_root(noise)
    values, vectors = eigen(np.eye(config.dim) + matrix_product(matrix_product(whiten, signal), whiten))
    values, vectors = values[-config.num_experts :], vectors[:, -config.num_experts :]
    # The nearest matrix with orthogonal rows: whatever signs the eigenvectors have got, the gate is the same.
    mixture = matrix_product(standard_normal(rng, (config.num_experts, config.dim)), vectors)
    mixture = matrix_product(_inverse_root(matrix_product(mixture, mixture.T)), mixture)
    weight = matrix_product(matrix_product(mixture, (vectors / np.sqrt(values)).T), whiten)
    weight /= np.sqrt(total(matrix_product(weight, covariance) * weight))[:, None]
    # The direction that moves the mean logit and the others least.
    constant = solve(covariance + 0.02 * np.eye(config.dim), centre[:, None])[:, 0]
    weight -= np.multiply.outer(total(weight * centre), constant / total(centre * constant))
    return weight.astype(np.float32)


def _second_moment(rows: Doubles) -> Doubles:
    """The mean of rows [N, D] times themselves, [D, D]."""
    return product(rows.T, rows.T) / len(rows)


def _inverse_root(matrix: Doubles) -> Doubles:
    """The symmetric inverse square root of a symmetric positive definite matrix."""
    values, vectors = eigen(matrix)
    return matrix_product(vectors / np.sqrt(values), vectors.T)


def random_images(config: ModelConfig, count: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Synthetic scenes (``edgemoe_models.datasets.scenes``) uint8 [count, H, W, 3] at the model's size."""
    size = config.image_height, config.image_width
    return np.stack([generate_scene(seed + i, *size).image for i in range(count)])
