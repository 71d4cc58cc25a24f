"""The integer reference: a whole inference as docs/numerics.md defines it, with every tensor traced. NumPy only."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from edgemoe_models.arithmetic import ops
from edgemoe_models.arithmetic.tables import Ints
from edgemoe_models.config import ModelConfig
from edgemoe_models.graph.integer_graph import (
    Activation,
    IntegerBlock,
    IntegerGraph,
    IntegerLayerNorm,
    IntegerLinear,
)
from edgemoe_models.model_image import check_image, patchify

Trace = dict[str, Any]


def attend(scores: Ints, v: Ints, block: IntegerBlock) -> tuple[Ints, Trace]:
    """Softmax of scores [heads, T, T] times v [heads, T, head_dim]: int8 context, and what a trace adds to it."""
    probabilities, maximum = ops.softmax_probabilities(scores, block.score_shift)
    row, row_shift = ops.reciprocal(probabilities.sum(-1, keepdims=True))
    acc = ops.matmul(probabilities, v.transpose(0, 2, 1))
    context = ops.requantize(
        acc, 0, block.context.multiplier, block.context.shift, 8, row, row_shift, ops.CONTEXT_LIMIT
    )
    return context, {"score_max": maximum, "probabilities": probabilities}


def activate(q: Ints, activation: Activation, layer: IntegerLinear) -> Ints:
    """The activation function behind ``layer``, of its 12-bit rows [T, N] -> int8."""
    assert layer.activation_shift is not None
    return ops.activate(q, activation.table, layer.activation_shift)


def norm(x: Ints, layer: IntegerLayerNorm) -> Ints:
    """LayerNorm of residual rows [T, D] -> int8."""
    return ops.layer_norm(x, layer.gamma, layer.beta, layer.shift, layer.eps)


@dataclasses.dataclass(frozen=True)
class Functions:
    """The nonlinear functions of an inference; others than these only to compare the accelerator's with."""

    attend: Callable[[Ints, Ints, IntegerBlock], tuple[Ints, Trace]] = attend
    activate: Callable[[Ints, Activation, IntegerLinear], Ints] = activate
    norm: Callable[[Ints, IntegerLayerNorm], Ints] = norm


OURS = Functions()


def run(
    graph: IntegerGraph,
    image: npt.NDArray[np.uint8],
    task: str,
    trace: Trace | None = None,
    functions: Functions = OURS,
) -> Ints:
    """One inference: image uint8 [H, W, 3] -> the head's raw outputs [rows, outputs] (int16 range).

    Args:
        task: whose gates and head to use
        trace: filled with every intermediate tensor (int64), by name: ``embed``, ``blocks.{i}.norm1``, ``.q``, ``.k``,
            ``.v``, ``.scores``, ``.score_max``, ``.probabilities``, ``.context``, ``.residual1``, ``.norm2``,
            ``.hidden`` or ``.gate_logits``, ``.queues``, ``.gate_scores``, ``.experts.{e}.hidden``, ``.residual2``;
            ``norm``, ``heads.{task}.hidden``, ``heads.{task}``
        functions: the accelerator's, unless others are to be compared with them

    Raises:
        ValueError: the image does not fit the model, or there is no such task.
    """
    graph.config.task(task)
    result: Ints = run_batch(graph, check_image(graph.config, image)[None], task, trace, functions)[0]
    return result


def run_batch(
    graph: IntegerGraph,
    images: npt.NDArray[np.uint8],
    task: str,
    trace: Trace | None = None,
    functions: Functions = OURS,
) -> Ints:
    """``run`` of several images [B, H, W, 3] at once -> [B, rows, outputs]; traces have their rows joined."""
    config = graph.config
    trace = {} if trace is None else trace
    patches = np.stack([patchify(image, config.patch) for image in images])
    residual = np.repeat(graph.pos_embed[None].astype(np.int64), len(images), 0)
    of_patches = residual[:, config.prefix_tokens :]
    of_patches[:] = ops.clamp(of_patches + linear(patches, graph.patch_embed, 16), 16)
    residual = trace["embed"] = residual.reshape(-1, config.dim)
    for i, block in enumerate(graph.blocks):
        residual = _attention(block, residual, config, f"blocks.{i}", trace, functions)
        residual = _mlp(block, residual, task, config.top_k, f"blocks.{i}", trace, functions)
    tokens = residual.reshape(len(images), -1, config.dim)
    first, count = config.head_rows(task)
    return run_head(graph, tokens[:, first : first + count], task, trace, functions)


def run_head(
    graph: IntegerGraph, rows: Ints, task: str, trace: Trace | None = None, functions: Functions = OURS
) -> Ints:
    """Final LayerNorm and head of residual rows [B, rows, D] -> [B, rows, outputs].

    Of the pool ``avg-norm`` it is the rows' mean that they see, rounded half up: [B, 1, outputs]. The host computes
    this part, from the rows that the accelerator has written.
    """
    trace = {} if trace is None else trace
    if graph.config.task(task).is_finished_by_host:
        count = rows.shape[1]
        rows = (2 * rows.astype(np.int64).sum(1, keepdims=True) + count) // (2 * count)
    x = trace["norm"] = functions.norm(rows.reshape(-1, graph.config.dim), graph.norm)
    head = graph.heads[task]
    if head.fc1 is not None and head.activation is not None:
        x = trace[f"heads.{task}.hidden"] = hidden(x, head.fc1, head.activation, functions)
    output = trace[f"heads.{task}"] = linear(x, head.out, 16)
    return output.reshape(len(rows), -1, head.out.outputs)


def linear(x: npt.NDArray[Any], layer: IntegerLinear, bits: int, row: Ints | None = None) -> Ints:
    """A linear layer on rows [T, K] -> [T, N] of ``bits`` bits, with a row factor [T, 1] if given."""
    acc = ops.matmul(x, layer.weight)
    return ops.requantize(acc, layer.bias, layer.multiplier, layer.shift, bits, row)


def hidden(x: Ints, layer: IntegerLinear, activation: Activation, functions: Functions = OURS) -> Ints:
    """A linear layer and its activation function on rows [T, K] -> int8 [T, N]."""
    return functions.activate(linear(x, layer, ops.ACTIVATION_BITS), activation, layer)


def _split_heads(x: Ints, config: ModelConfig) -> Ints:
    """Joined rows [B * T, D] -> [B * heads, T, head_dim]."""
    heads = x.reshape(-1, config.num_tokens, config.heads, config.head_dim).transpose(0, 2, 1, 3)
    return heads.reshape(-1, config.num_tokens, config.head_dim)


def _attention(
    block: IntegerBlock, residual: Ints, config: ModelConfig, name: str, trace: Trace, functions: Functions
) -> Ints:
    x = trace[f"{name}.norm1"] = functions.norm(residual, block.norm1)
    qkv = linear(x, block.qkv, 8)
    q, k, v = np.split(qkv, 3, axis=1)
    trace |= {f"{name}.q": q, f"{name}.k": k, f"{name}.v": v}
    q, k, v = (_split_heads(part, config) for part in (q, k, v))
    scores = ops.requantize(ops.matmul(q, k), 0, block.score.multiplier, block.score.shift, 12)
    context, seen = functions.attend(scores, v, block)
    context = context.reshape(-1, config.heads, config.num_tokens, config.head_dim).transpose(0, 2, 1, 3)
    context = context.reshape(residual.shape)
    residual = ops.clamp(residual + linear(context, block.proj, 16), 16)
    seen = {"scores": scores, **seen, "context": context, "residual1": residual}
    trace |= {f"{name}.{part}": value for part, value in seen.items()}
    return residual


def _mlp(
    block: IntegerBlock, residual: Ints, task: str, top_k: int, name: str, trace: Trace, functions: Functions
) -> Ints:
    x = trace[f"{name}.norm2"] = functions.norm(residual, block.norm2)
    if block.fc1 is not None and block.fc2 is not None:
        h = trace[f"{name}.hidden"] = hidden(x, block.fc1, block.activation, functions)
        residual = ops.clamp(residual + linear(h, block.fc2, 16), 16)
    else:
        residual = _experts(block, x, residual, task, top_k, name, trace, functions)
    trace[f"{name}.residual2"] = residual
    return residual


def _experts(
    block: IntegerBlock, x: Ints, residual: Ints, task: str, top_k: int, name: str, trace: Trace, functions: Functions
) -> Ints:
    logits = linear(x, block.gates[task], 16)
    queues, scores = ops.expert_queues(logits, top_k)
    trace |= {f"{name}.gate_logits": logits, f"{name}.queues": queues, f"{name}.gate_scores": scores}
    residual = residual.copy()
    for e, (queue, score) in enumerate(zip(queues, scores, strict=True)):
        h = hidden(x[queue], block.expert_fc1[e], block.activation, functions)
        trace[f"{name}.experts.{e}.hidden"] = h
        increment = linear(h, block.expert_fc2[e], 16, score[:, None])
        residual[queue] = ops.clamp(residual[queue] + increment, 16)
    return residual
