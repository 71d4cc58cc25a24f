"""From the picture to the first tokens in an ONNX graph: normalization, patches, first tokens and positions."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from edgemoe_models.exact.sums import total
from edgemoe_models.importers.onnx_graph.values import (
    Array,
    Patches,
    Picture,
    Source,
    Tokens,
    Unmapped,
    Value,
    View,
    whole,
)

_CHANNELS = 3


def scale_picture(x: View, factor: Array, offset: Array) -> View:
    """``x * factor + offset``, each of which is one number or one a channel."""
    source = x.source
    assert isinstance(source, Picture)
    factor, offset = (_by_channel(value, x) for value in (factor, offset))
    scaled = dataclasses.replace(source, factor=source.factor * factor, offset=source.offset * factor + offset)
    return dataclasses.replace(x, source=scaled)


def _by_channel(values: Array, x: View) -> Array:
    values = np.asarray(values, np.float64)
    if values.size == 1:
        return np.full(_CHANNELS, values.reshape(())[()])
    if x.index.ndim != 4 or values.size != _CHANNELS or values.shape[-3:] != (_CHANNELS, 1, 1):
        raise Unmapped("constants of the picture that are not one for each of its three channels")
    return values.reshape(_CHANNELS)


def convolve(x: Value, weight: Value, bias: Value | None, attributes: dict[str, Any]) -> View:
    """The patch embedding: a convolution whose kernels lie side by side."""
    if not isinstance(x, View) or isinstance(weight, View) or isinstance(bias, View):
        raise Unmapped("a convolution whose weights depend on the picture")
    if not isinstance(x.source, Picture):
        raise Unmapped("a second convolution: a stem of several, or a pyramid of stages")
    if weight.ndim != 4 or weight.shape[1] != _CHANNELS or not _is_upright(x.index):
        raise Unmapped(f"a convolution of the shape {list(weight.shape)} on an RGB picture")
    patch, strides = weight.shape[2], list(attributes.get("strides", [1, 1]))
    if weight.shape[3] != patch or strides != [patch, patch] or any(attributes.get("pads", [])):
        raise Unmapped(
            f"a convolution of {weight.shape[2]} x {weight.shape[3]} pixels by steps of {strides}: not patches"
        )
    if attributes.get("group", 1) != 1 or any(step != 1 for step in attributes.get("dilations", [])):
        raise Unmapped("a convolution in groups, or with gaps")
    source = x.source
    rows, columns = source.height // patch, source.width // source.height // patch
    kernels = weight.astype(np.float64)
    constant = np.zeros(len(weight)) if bias is None else bias.astype(np.float64)
    constant = constant + total(total(kernels.reshape(len(weight), _CHANNELS, -1)) * source.offset)
    kernels = kernels * source.factor[:, None, None]
    patches = Patches(
        len(weight), rows * columns, kernels.astype(np.float32), constant.astype(np.float32), (rows, columns)
    )
    return whole(patches, 1, len(weight), rows, columns)


def _is_upright(index: Array) -> bool:
    """Whether it is the whole picture [1, 3, H, W], unmoved."""
    return index.ndim == 4 and index.shape[1] == _CHANNELS and np.array_equal(index.reshape(-1), np.arange(index.size))


def is_embedding(source: Source) -> bool:
    """Whether it is the patches or the residual stream, to which all is added."""
    return isinstance(source, Patches | Tokens)


def as_tokens(x: View) -> View:
    """Patches as tokens, all rows of them in their order; tokens as they are."""
    source = x.source
    if isinstance(source, Tokens):
        rows = x.whole_rows()
        if rows is None or source.layers or x.is_all():
            return x
        chosen = dataclasses.replace(
            source, rows=len(rows), table=source.table[rows], patch_of_row=source.patch_of_row[rows]
        )
        return whole(chosen, *x.shape)
    assert isinstance(source, Patches)
    if x.index.ndim < 2 or x.shape[-1] != source.rows:
        raise Unmapped("patches whose channels are not the last axis, where tokens have them")
    index = x.index.reshape(-1, source.rows)
    numbers = index[:, 0]
    if (numbers >= source.width).any() or not np.array_equal(
        index, numbers[:, None] + np.arange(source.rows) * source.width
    ):
        raise Unmapped("patches in windows, or another order of their channels")
    table = np.zeros((len(numbers), source.rows))
    return whole(Tokens(len(numbers), source.rows, source, table, numbers), *x.shape)


def position(x: View, constant: Array) -> View:
    """Constants added to tokens before the first block."""
    x = as_tokens(x)
    source = x.source
    assert isinstance(source, Tokens)
    if source.layers:
        raise Unmapped("constants added to tokens between blocks")
    shape = (source.rows, source.width)
    constant = np.asarray(constant, np.float64)
    if not x.is_all() or math.prod(constant.shape[:-2]) != 1:
        raise Unmapped("constants added to some tokens only")
    added = np.broadcast_to(constant.reshape(constant.shape[-2:]) if constant.ndim > 2 else constant, shape)
    return dataclasses.replace(x, source=dataclasses.replace(source, table=source.table + added))


def join_tokens(parts: Sequence[Value], axis: int) -> View:
    """First tokens before, or behind, those of patches."""
    tokens, tables, numbers = None, [], []
    for part in parts:
        if isinstance(part, View):
            if not is_embedding(part.source) or part.scale != 1.0:
                raise Unmapped("tokens are joined with something that is no constant")
            view = as_tokens(part)
            source = view.source
            assert isinstance(source, Tokens)
            if source.layers or not view.is_all():
                raise Unmapped("tokens are joined between blocks")
            tokens, ndim = source, view.index.ndim
            tables.append(source.table)
            numbers.append(source.patch_of_row)
        else:
            constant = np.asarray(part, np.float64).reshape(-1, part.shape[-1])
            tables.append(constant)
            numbers.append(np.full(len(constant), -1))
    assert tokens is not None
    if axis not in (ndim - 2, -2) or any(table.shape[1] != tokens.width for table in tables):
        raise Unmapped("tokens are joined along another axis than theirs")
    table = np.concatenate(tables)
    joined = dataclasses.replace(tokens, rows=len(table), table=table, patch_of_row=np.concatenate(numbers))
    return whole(joined, *[1] * (ndim - 2), *table.shape)
