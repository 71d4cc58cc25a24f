"""The float model in NumPy: the shapes of a state dict, and its forward with observers. Needs no torch.

The quantizer calibrates with it, and reports compare the integer graph with it. It gives the same bits on every machine
(``edgemoe_models.exact``): operands of products are rounded to 20 bits or more of their row's peak, and all else is
float64.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from edgemoe_models.config import ModelConfig
from edgemoe_models.exact.functions import ACTIVATION_FUNCTIONS, LOG2_E, softmax
from edgemoe_models.exact.sums import Doubles, mean, product
from edgemoe_models.model_image import patchify

Floats = npt.NDArray[np.float32]
State = Mapping[str, Floats]
Observed = dict[str, Any]

PIXEL_SCALE = 1.0 / 256.0


def layer_norm(x: Doubles, weight: Floats, bias: Floats, eps: float) -> Doubles:
    """LayerNorm over the last axis."""
    centred = x - mean(x)[..., None]
    result: Doubles = centred / np.sqrt(mean(np.square(centred))[..., None] + eps) * weight + bias
    return result


def state_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of a float state dict."""
    d, tasks = config.dim, config.tasks
    shapes: dict[str, tuple[int, ...]] = {"cls_token": (d,)} if config.prefix_tokens else {}
    shapes["pos_embed"] = (config.num_tokens, d)

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
) -> Doubles:
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
    first, count = config.head_rows(task)
    rows = x[:, first : first + count]
    if config.task(task).is_finished_by_host:
        rows = mean(rows, 1)[:, None]
    y = _norm(state, config, np.ascontiguousarray(rows), "norm", seen)
    head = f"heads.{task}"
    if config.task(task).head_hidden:
        y = seen[f"{head}.hidden"] = _activate(config, _linear(state, y, f"{head}.fc1"))
        y = _linear(state, y, f"{head}.fc2")
    else:
        y = _linear(state, y, head)
    seen[head] = y
    return y.reshape(len(images), -1, y.shape[-1])


def embed(state: State, config: ModelConfig, images: npt.NDArray[np.uint8]) -> Doubles:
    """Images [B, H, W, 3] -> tokens [B, T, D] before the first block."""
    patches = np.stack([patchify(image, config.patch) for image in images]) * PIXEL_SCALE
    x = np.empty((len(images), config.num_tokens, config.dim))
    x[:, : config.prefix_tokens] = 0.0
    if config.prefix_tokens:
        x[:, 0] = state["cls_token"]
    x[:, config.prefix_tokens :] = product(patches, state["patch_embed.weight"]) + state["patch_embed.bias"]
    return x + state["pos_embed"]


def _linear(state: State, x: Doubles, name: str) -> Doubles:
    return product(x, state[f"{name}.weight"]) + state[f"{name}.bias"]


def _activate(config: ModelConfig, x: Doubles) -> Doubles:
    return ACTIVATION_FUNCTIONS[config.activation](x)


def _norm(state: State, config: ModelConfig, x: Doubles, name: str, seen: Observed) -> Doubles:
    y = layer_norm(x, state[f"{name}.weight"], state[f"{name}.bias"], config.eps).reshape(-1, config.dim)
    seen[name] = y
    return y


def attention(state: State, config: ModelConfig, x: Doubles, i: int, seen: Observed) -> Doubles:
    """The first half of block ``i``: tokens [B, T, D] -> tokens."""
    name, (batch, tokens, d) = f"blocks.{i}", x.shape
    qkv = _linear(state, _norm(state, config, x, f"{name}.norm1", seen), f"{name}.attn.qkv")
    seen |= {f"{name}.{part}": value for part, value in zip("qkv", np.split(qkv, 3, axis=1), strict=True)}
    split = qkv.reshape(batch, tokens, 3, config.heads, config.head_dim).transpose(2, 0, 3, 1, 4)
    q, k, v = (np.ascontiguousarray(part) for part in split)  # [B, heads, T, head_dim]
    scores = product(q, k) / np.sqrt(config.head_dim)
    seen[f"{name}.scores"] = scores * LOG2_E
    context = product(softmax(scores), v.swapaxes(-1, -2)).transpose(0, 2, 1, 3).reshape(-1, d)
    seen[f"{name}.context"] = context
    x = x + _linear(state, context, f"{name}.attn.proj").reshape(x.shape)
    seen[f"{name}.residual1"] = x.reshape(-1, d)
    return x


def mlp(state: State, config: ModelConfig, x: Doubles, i: int, task: str, seen: Observed) -> Doubles:
    """The second half of block ``i``, dense or experts: tokens [B, T, D] -> tokens."""
    name = f"blocks.{i}"
    y = _norm(state, config, x, f"{name}.norm2", seen)
    update = _experts(state, config, y, task, name, seen) if config.is_moe(i) else _dense(state, config, y, name, seen)
    x = x + update.reshape(x.shape)
    seen[f"{name}.residual2"] = x.reshape(-1, config.dim)
    return x


def _dense(state: State, config: ModelConfig, y: Doubles, name: str, seen: Observed) -> Doubles:
    hidden = seen[f"{name}.hidden"] = _activate(config, _linear(state, y, f"{name}.mlp.fc1"))
    return _linear(state, hidden, f"{name}.mlp.fc2")


def _experts(state: State, config: ModelConfig, y: Doubles, task: str, name: str, seen: Observed) -> Doubles:
    logits = product(y, state[f"{name}.moe.gate.{task}"])
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
        hidden = seen[f"{name}.experts.{e}.hidden"] = _activate(config, product(y[queue], w1) + b1)
        out[queue] += (product(hidden, w2) + b2) * scores[queue, e : e + 1]
    return out
