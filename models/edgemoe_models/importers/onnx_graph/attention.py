"""Attention and residual connections in an ONNX graph: which rows of weights are whose queries, keys and values."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from edgemoe_models.importers.onnx_graph.values import (
    Activated,
    Array,
    Context,
    Linear,
    Norm,
    Scores,
    Tokens,
    Unmapped,
    View,
    whole,
)

_CLOSE = 1e-6  # relative, of the factor of scores


@dataclasses.dataclass(frozen=True, eq=False)
class Attention:
    """One attention with its LayerNorm: rows of q, then k, then v, and the projection."""

    norm: Norm
    heads: int
    weight: Array
    bias: Array
    proj_weight: Array
    proj_bias: Array


@dataclasses.dataclass(frozen=True, eq=False)
class Mlp:
    """One MLP with its LayerNorm."""

    norm: Norm
    fc1: Linear
    fc2: Linear
    activation: str


def _three(index: Array) -> Array:
    """Without axes of length 1 before the last three."""
    while index.ndim > 3 and index.shape[0] == 1:
        index = index[0]
    if index.ndim == 2:
        index = index[None]
    if index.ndim != 3:
        raise Unmapped(f"a product of tensors of the shape {list(index.shape)}, where attention has heads")
    return index


def _channels(index: Array, source: Linear) -> Array:
    """The channels [heads, head_dim] that a tensor [heads, T, head_dim] takes of a layer, whose rows are tokens."""
    chosen: Array = index[:, 0] % source.width
    rows = np.arange(index.shape[1])
    if len(rows) != source.rows:
        raise Unmapped(f"attention of {len(rows)} of {source.rows} tokens, where ours is of all")
    if not np.array_equal(index, rows[None, :, None] * source.width + chosen[:, None]):
        raise Unmapped("queries, keys or values that are no channels of heads (windows, or another order of tokens)")
    return chosen


def scores(a: View, b: View) -> View:
    """Queries [heads, T, head_dim] times keys [heads, head_dim, T]."""
    if not isinstance(a.source, Linear) or not isinstance(b.source, Linear):
        raise Unmapped("a product of two tensors that are not queries and keys")
    query = _channels(_three(a.index), a.source)
    key = _channels(_three(b.index).transpose(0, 2, 1), b.source)
    if query.shape != key.shape:
        raise Unmapped("queries and keys of different heads")
    heads, tokens = len(query), a.source.rows
    source = Scores(heads * tokens, tokens, (a.source, query), (b.source, key), a.scale * b.scale)
    return whole(source, *a.shape[:-2], tokens, tokens)


def context(a: View, b: View) -> View:
    """Probabilities [heads, T, T] times values [heads, T, head_dim]."""
    if not isinstance(a.source, Scores) or not a.source.is_softmax or not a.is_all() or a.scale != 1.0:
        raise Unmapped("a product with scores that are no probabilities")
    if not isinstance(b.source, Linear) or b.scale != 1.0:
        raise Unmapped("probabilities times something else than values")
    value = _channels(_three(b.index), b.source)
    heads, tokens, head_dim = len(value), b.source.rows, value.shape[1]
    if heads * tokens != a.source.rows:
        raise Unmapped("values of other heads than the queries")
    source = Context(heads * tokens, head_dim, a.source, (b.source, value))
    return whole(source, *a.shape[:-1], head_dim)


def residual(tokens: View, update: View) -> View:
    """The residual stream after attention or an MLP."""
    stream, layer = tokens.source, update.source
    assert isinstance(stream, Tokens) and isinstance(layer, Linear)
    if not (tokens.is_all() and update.is_all() and tokens.scale == 1.0):
        raise Unmapped("a residual connection of some tokens only")
    if update.scale != 1.0:
        factor = np.float32(update.scale)
        layer = dataclasses.replace(layer, weight=layer.weight * factor, bias=layer.bias * factor)
    if isinstance(layer.of.source, Context):
        added: Attention | Mlp = _attention(stream, layer, layer.of.source)
    elif isinstance(layer.of.source, Activated):
        added = _mlp(stream, layer, layer.of.source)
    else:
        raise Unmapped("a residual connection around neither attention nor an MLP with an activation")
    if isinstance(added, Attention) != (len(stream.layers) % 2 == 0):
        raise Unmapped("blocks that are not attention, then MLP")
    return View(dataclasses.replace(stream, layers=(*stream.layers, added)), tokens.index)


def _norm_of(stream: Tokens, view: View) -> Norm:
    """The LayerNorm whose whole output a layer reads, of this residual stream."""
    norm = view.source
    if not isinstance(norm, Norm) or not view.is_all():
        raise Unmapped("a layer that reads something else than the whole output of a LayerNorm")
    if norm.of.source is not stream:
        raise Unmapped("attention and MLP in parallel, where ours follow one another (both read the same LayerNorm's)")
    if not norm.of.is_all():
        raise Unmapped("attention of some tokens only")
    return norm


def _mlp(stream: Tokens, fc2: Linear, hidden: Activated) -> Mlp:
    if not fc2.of.is_all():
        raise Unmapped("an MLP of some channels only")
    return Mlp(_norm_of(stream, hidden.of.of), hidden.of, fc2, hidden.kind)


def _attention(stream: Tokens, proj: Linear, source: Context) -> Attention:
    (query, of_query), (key, of_key) = source.scores.query, source.scores.key
    value, of_value = source.value
    norms = [_norm_of(stream, layer.of) for layer in (query, key, value)]
    if any(norm is not norms[0] for norm in norms):
        raise Unmapped("queries, keys and values of different LayerNorms")
    heads, head_dim = of_query.shape
    width = heads * head_dim
    if width != stream.width or of_value.shape != of_query.shape:
        raise Unmapped(f"heads of {width} channels together, where the width is {stream.width}")
    factor = source.scores.scale * math.sqrt(head_dim)
    factor = 1.0 if abs(factor - 1) < _CLOSE else factor
    weights = [
        layer.weight[chosen.reshape(-1)] for layer, chosen in ((query, of_query), (key, of_key), (value, of_value))
    ]
    biases = [layer.bias[chosen.reshape(-1)] for layer, chosen in ((query, of_query), (key, of_key), (value, of_value))]
    weights[0], biases[0] = weights[0] * np.float32(factor), biases[0] * np.float32(factor)
    order = _order(proj.of.index.reshape(-1, width), source)
    columns = np.empty_like(proj.weight)
    columns[:, order] = proj.weight
    return Attention(norms[0], heads, np.concatenate(weights), np.concatenate(biases), columns, proj.bias)


def _order(index: Array, source: Context) -> Array:
    """Of each input of the projection [T, D] its place among (head, channel)."""
    tokens, head_dim = source.scores.width, source.width
    first = index[0]
    head, channel = first // (tokens * head_dim), first % head_dim
    order: Array = head * head_dim + channel
    expected = head * tokens * head_dim + channel
    rows = np.arange(tokens)[:, None] * head_dim
    if not np.array_equal(index, expected + rows) or not np.array_equal(np.sort(order), np.arange(len(order))):
        raise Unmapped("a projection whose inputs are not each token's own context")
    return order
