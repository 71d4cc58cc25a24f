"""The float model in NumPy: the shapes of a state dict, and its forward with observers. Needs no torch.

The quantizer calibrates with it, and reports compare the integer graph with it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from edgemoe_models.config import ModelConfig
from edgemoe_models.model_image import patchify

Floats = npt.NDArray[np.float32]
State = Mapping[str, Floats]
Observed = dict[str, Any]

PIXEL_SCALE = 1.0 / 256.0

# erf on a grid, interpolated by cubic Hermite polynomials (its derivative is known exactly): error below 1e-10.
_ERF_STEPS, _ERF_END = 128, 6
_ERF_GRID = np.arange(_ERF_END * _ERF_STEPS + 2) / _ERF_STEPS
_ERF = np.array([math.erf(x) for x in _ERF_GRID])
_ERF_SLOPE = 2.0 / math.sqrt(math.pi) * np.exp(-(_ERF_GRID**2)) / _ERF_STEPS


def erf(x: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """The error function, absolute error below 1e-9."""
    position = np.minimum(np.abs(x.astype(np.float64)), _ERF_END) * _ERF_STEPS
    i = position.astype(np.int64)
    t = position - i
    y0, y1, d0, d1 = _ERF[i], _ERF[i + 1], _ERF_SLOPE[i], _ERF_SLOPE[i + 1]
    y = y0 + t * (d0 + t * (3 * (y1 - y0) - 2 * d0 - d1 + t * (2 * (y0 - y1) + d0 + d1)))
    return np.copysign(y, x)


def gelu(x: Floats) -> Floats:
    """Exact GELU."""
    return (0.5 * x * (1.0 + erf(x * math.sqrt(0.5)))).astype(np.float32)


def layer_norm(x: Floats, weight: Floats, bias: Floats, eps: float) -> Floats:
    """LayerNorm over the last axis."""
    centred = x - x.mean(-1, keepdims=True)
    variance = np.square(centred).mean(-1, keepdims=True)
    return centred / np.sqrt(variance + np.float32(eps)) * weight + bias


def softmax(x: Floats) -> Floats:
    """Softmax over the last axis."""
    exponentials = np.exp(x - x.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


def state_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of a float state dict."""
    d, tasks = config.dim, config.tasks
    shapes: dict[str, tuple[int, ...]] = {"cls_token": (d,), "pos_embed": (config.num_tokens, d)}

    def linear(name: str, outputs: int, inputs: int) -> None:
        shapes.update({f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)})

    def norm(name: str) -> None:
        shapes.update({f"{name}.weight": (d,), f"{name}.bias": (d,)})

    linear("patch_embed", d, config.patch_inputs)
    for i in range(config.depth):
        block = f"blocks.{i}"
        norm(f"{block}.norm1")
        linear(f"{block}.attn.qkv", 3 * d, d)
        linear(f"{block}.attn.proj", d, d)
        norm(f"{block}.norm2")
        if config.is_moe(i):
            e, h = config.num_experts, config.expert_hidden
            shapes.update({f"{block}.moe.gate.{task.name}": (e, d) for task in tasks})
            shapes.update({f"{block}.moe.w1": (e, h, d), f"{block}.moe.b1": (e, h)})
            shapes.update({f"{block}.moe.w2": (e, d, h), f"{block}.moe.b2": (e, d)})
        else:
            linear(f"{block}.mlp.fc1", config.mlp_hidden, d)
            linear(f"{block}.mlp.fc2", d, config.mlp_hidden)
    norm("norm")
    for task in tasks:
        name = f"heads.{task.name}"
        if task.head_hidden:
            linear(f"{name}.fc1", task.head_hidden, d)
            linear(f"{name}.fc2", task.head_outputs, task.head_hidden)
        else:
            linear(name, task.head_outputs, d)
    return shapes


def check_shapes(config: ModelConfig, found: Mapping[str, tuple[int, ...]]) -> None:
    """Hold a config against the tensors of its file, before anything is allocated for it.

    Raises:
        ValueError: names the first tensor that is missing, unexpected or of a wrong shape.
    """
    shapes = state_shapes(config)
    for name in found:
        if name not in shapes:
            raise ValueError(f"state dict has an unexpected tensor {name}; is it a checkpoint of {config.name}?")
    for name, shape in shapes.items():
        if name not in found:
            raise ValueError(f"state dict lacks {name} {list(shape)}; is it a checkpoint of {config.name}?")
        if found[name] != shape:
            raise ValueError(f"{name} must have the shape {list(shape)}, not {list(found[name])}")


def forward(
    state: State, config: ModelConfig, images: npt.NDArray[np.uint8], task: str, observed: Observed | None = None
) -> Floats:
    """Head outputs [B, rows, outputs] of uint8 images [B, H, W, 3]; rows as in the integer reference.

    Args:
        observed: filled with activations under the integer reference's trace names, tokens of all images joined:
            [B*T, C]; ``.scores`` is [B, heads, T, T] in base-2 logarithms, ``.gate_logits`` in natural ones,
            ``.queues`` and ``.gate_scores`` number the joined tokens
    """
    seen: Observed = {} if observed is None else observed
    x = embed(state, config, images)
    seen["embed"] = x.reshape(-1, config.dim)
    for i in range(config.depth):
        x = attention(state, config, x, i, seen)
        x = mlp(state, config, x, i, task, seen)
    rows = x[:, 1:] if config.task(task).is_dense else x[:, :1]
    y = _norm(state, config, np.ascontiguousarray(rows), "norm", seen)
    head = f"heads.{task}"
    if config.task(task).head_hidden:
        y = seen[f"{head}.hidden"] = gelu(_linear(state, y, f"{head}.fc1"))
        y = _linear(state, y, f"{head}.fc2")
    else:
        y = _linear(state, y, head)
    seen[head] = y
    return y.reshape(len(images), -1, y.shape[-1])


def embed(state: State, config: ModelConfig, images: npt.NDArray[np.uint8]) -> Floats:
    """Images [B, H, W, 3] -> tokens [B, T, D] before the first block."""
    patches = np.stack([patchify(image, config.patch) for image in images]).astype(np.float32) * PIXEL_SCALE
    x = np.empty((len(images), config.num_tokens, config.dim), np.float32)
    x[:, 0] = state["cls_token"]
    x[:, 1:] = patches @ state["patch_embed.weight"].T + state["patch_embed.bias"]
    return x + state["pos_embed"]


def _linear(state: State, x: Floats, name: str) -> Floats:
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def _norm(state: State, config: ModelConfig, x: Floats, name: str, seen: Observed) -> Floats:
    y = layer_norm(x, state[f"{name}.weight"], state[f"{name}.bias"], config.eps).reshape(-1, config.dim)
    seen[name] = y
    return y


def attention(state: State, config: ModelConfig, x: Floats, i: int, seen: Observed) -> Floats:
    """The first half of block ``i``: tokens [B, T, D] -> tokens."""
    name, (batch, tokens, d) = f"blocks.{i}", x.shape
    qkv = _linear(state, _norm(state, config, x, f"{name}.norm1", seen), f"{name}.attn.qkv")
    seen |= {f"{name}.{part}": value for part, value in zip("qkv", np.split(qkv, 3, axis=1), strict=True)}
    split = qkv.reshape(batch, tokens, 3, config.heads, config.head_dim).transpose(2, 0, 3, 1, 4)
    q, k, v = (np.ascontiguousarray(part) for part in split)  # [B, heads, T, head_dim]
    scores = q @ k.swapaxes(-1, -2) * np.float32(config.head_dim**-0.5)
    seen[f"{name}.scores"] = scores * np.float32(math.log2(math.e))
    context = (softmax(scores) @ v).transpose(0, 2, 1, 3).reshape(-1, d)
    seen[f"{name}.context"] = context
    x = x + _linear(state, context, f"{name}.attn.proj").reshape(x.shape)
    seen[f"{name}.residual1"] = x.reshape(-1, d)
    return x


def mlp(state: State, config: ModelConfig, x: Floats, i: int, task: str, seen: Observed) -> Floats:
    """The second half of block ``i``, dense or experts: tokens [B, T, D] -> tokens."""
    name = f"blocks.{i}"
    y = _norm(state, config, x, f"{name}.norm2", seen)
    update = _experts(state, config, y, task, name, seen) if config.is_moe(i) else _dense(state, y, name, seen)
    x = x + update.reshape(x.shape)
    seen[f"{name}.residual2"] = x.reshape(-1, config.dim)
    return x


def _dense(state: State, y: Floats, name: str, seen: Observed) -> Floats:
    hidden = seen[f"{name}.hidden"] = gelu(_linear(state, y, f"{name}.mlp.fc1"))
    return _linear(state, hidden, f"{name}.mlp.fc2")


def _experts(state: State, config: ModelConfig, y: Floats, task: str, name: str, seen: Observed) -> Floats:
    logits = y @ state[f"{name}.moe.gate.{task}"].T
    scores = softmax(logits)
    chosen = np.argsort(-logits, axis=1, kind="stable")[:, : config.top_k]
    queues = [np.flatnonzero((chosen == e).any(1)) for e in range(config.num_experts)]
    seen |= {
        f"{name}.gate_logits": logits,
        f"{name}.queues": queues,
        f"{name}.gate_scores": [scores[queue, e] for e, queue in enumerate(queues)],
    }
    out = np.zeros_like(y)
    for e, queue in enumerate(queues):
        w1, b1, w2, b2 = (state[f"{name}.moe.{part}"][e] for part in ("w1", "b1", "w2", "b2"))
        hidden = seen[f"{name}.experts.{e}.hidden"] = gelu(y[queue] @ w1.T + b1)
        out[queue] += (hidden @ w2.T + b2) * scores[queue, e : e + 1]
    return out
