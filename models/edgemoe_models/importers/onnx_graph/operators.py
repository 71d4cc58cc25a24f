"""What the operators of an ONNX graph make of a Vision Transformer's tensors; each refuses what has no counterpart."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from edgemoe_models.config import ACTIVATIONS
from edgemoe_models.exact.functions import QUICK_GELU_SLOPE
from edgemoe_models.importers.onnx_graph.attention import context, residual, scores
from edgemoe_models.importers.onnx_graph.embedding import as_tokens, is_embedding, position, scale_picture
from edgemoe_models.importers.onnx_graph.values import (
    Activated,
    Array,
    Context,
    Joined,
    Linear,
    Mean,
    Norm,
    Partial,
    Picture,
    Scores,
    Tokens,
    Unmapped,
    Value,
    View,
    channels,
    same,
    scalar,
    whole,
)

Attributes = dict[str, Any]

NOT_OURS = "an activation other than the exact GELU, SiLU, ReLU and QuickGELU"
RMS_NORM = "squares of the tokens, as RMSNorm has them, where ours have LayerNorms, which take the mean out"
_CLOSE = 1e-4  # relative, of constants that exporters have rounded
#: Activations by what x is multiplied with at last, and the factor of x inside of that.
_LAST = {"1+erf": {"gelu": math.sqrt(0.5)}, "sigmoid": {"silu": 1.0, "quick-gelu": QUICK_GELU_SLOPE}}


def matmul(a: Value, b: Value) -> View:
    """A linear layer, queries times keys, or probabilities times values."""
    if isinstance(a, View) and isinstance(b, View):
        return context(a, b) if isinstance(a.source, Scores) else scores(a, b)
    if not isinstance(a, View) or isinstance(b, View):
        raise Unmapped("a constant times a tensor from the left")
    if b.ndim != 2:
        raise Unmapped(f"a matrix of {b.ndim} dimensions")
    return linear(a, b.T, np.zeros(b.shape[1], np.float32))


def gemm(x: Value, weight: Value, bias: Value | None, attributes: Attributes) -> View:
    """A linear layer with its bias."""
    if not isinstance(x, View) or isinstance(weight, View) or isinstance(bias, View):
        raise Unmapped("a Gemm of two tensors that both depend on the picture")
    if attributes.get("transA") or attributes.get("alpha", 1.0) != 1.0 or attributes.get("beta", 1.0) != 1.0:
        raise Unmapped("a Gemm with transA, alpha or beta")
    weight = weight if attributes.get("transB") else weight.T
    given = np.zeros(len(weight), np.float32) if bias is None else channels(bias, len(weight))
    if given is None:
        raise Unmapped("a bias that is no vector")
    return linear(x, weight, given)


def linear(x: View, weight: Array, bias: Array) -> View:
    """``x @ weight.T + bias`` of whole rows."""
    if abs(x.scale - 1) > _CLOSE:
        raise Unmapped(f"its input is multiplied by {x.scale:g}, which is nowhere in a Vision Transformer")
    if is_embedding(x.source):
        raise Unmapped("a linear layer without a LayerNorm before it (post-norm, or a stem)")
    if not isinstance(x.source, Norm | Mean | Joined | Context | Activated):
        raise Unmapped("a linear layer whose input is neither a LayerNorm's, an activation's nor attention's output")
    if x.shape[-1] != weight.shape[1]:
        raise Unmapped(f"a matrix for {weight.shape[1]} inputs of a tensor of {x.shape[-1]}")
    rows = math.prod(x.shape[:-1])
    source = Linear(rows, len(weight), x, np.asarray(weight, np.float32), np.asarray(bias, np.float32))
    return whole(source, *x.shape[:-1], len(weight))


def multiply(a: Value, b: Value) -> View:
    """A factor, LayerScale, LayerNorm's gain, the last step of an activation, or a square."""
    if isinstance(a, View) and isinstance(b, View):
        return _product(a, b)
    x, factor = (a, b) if isinstance(a, View) else (b, a)
    assert isinstance(x, View) and not isinstance(factor, View)
    if isinstance(x.source, Picture):
        return scale_picture(x, factor, np.zeros(1))
    if isinstance(x.source, Partial) and x.source.step == "normed":
        if (gamma := channels(factor, x.shape[-1])) is None:
            raise Unmapped("a LayerNorm whose gain is no vector")
        return dataclasses.replace(x, source=dataclasses.replace(x.source, step="scaled", gamma=gamma))
    if (value := scalar(factor)) is not None and np.ndim(factor) <= x.index.ndim:
        return dataclasses.replace(x, scale=x.scale * value)
    gamma = channels(factor, x.source.width)
    if isinstance(x.source, Linear) and gamma is not None and x.is_all():
        source = x.source
        scaled = dataclasses.replace(source, weight=source.weight * gamma[:, None], bias=source.bias * gamma)
        return dataclasses.replace(x, source=scaled)
    if isinstance(x.source, Linear):
        raise Unmapped("queries or keys are multiplied by constants that depend on their place (RoPE)")
    raise Unmapped("a product with constants that are neither a factor nor LayerScale")


def _product(a: View, b: View) -> View:
    if isinstance(a.source, Partial) and isinstance(b.source, Partial):
        steps = {a.source.step, b.source.step}
        if steps == {"centred"} and same(a, b):
            return _step("square", a.source.of, *a.shape)
        if steps == {"centred", "1/deviation"} and same(a.source.of, b.source.of):
            inverse = a.source if a.source.step != "centred" else b.source
            return _step("normed", a.source.of, *_wider(a, b), eps=inverse.eps)
    if is_embedding(a.source) and same(a, b):
        raise Unmapped(RMS_NORM)
    if isinstance(a.source, Linear) and same(a, b):
        raise Unmapped(f"{NOT_OURS}: powers of a layer, as in the approximation by tanh")
    for x, partial in ((a, b), (b, a)):
        if isinstance(x.source, Linear) and isinstance(partial.source, Partial) and partial.source.step in _LAST:
            of, step = partial.source.of, partial.source.step
            if of.source is not x.source or not np.array_equal(of.index, x.index):
                raise Unmapped("two layers in one activation: a gated MLP")
            return _activated(_kind(step, of.scale), x, x.scale * partial.scale * (2 if step == "1+erf" else 1))
    raise Unmapped("a product of two tensors that is no part of LayerNorm or activation: a gated MLP, or RoPE")


def _kind(step: str, inside: float) -> str:
    """The activation whose last step is ``x * step(inside * x)``, but for a factor."""
    for kind, factor in _LAST[step].items():
        if abs(inside / factor - 1) <= _CLOSE:
            return kind
    raise Unmapped(f"{NOT_OURS}: {step.removeprefix('1+')} of {inside:g} x")


def _activated(kind: str, x: View, scale: float) -> View:
    """Of a whole linear layer."""
    if not isinstance(x.source, Linear):
        raise Unmapped(f"{ACTIVATIONS[kind]} of something else than a linear layer")
    if not x.is_all():
        raise Unmapped("an activation of some channels of a layer: a gated MLP, or MLP and attention in parallel")
    return View(Activated(x.source.rows, x.source.width, x.source, kind), x.index, scale)


def _wider(a: View, b: View) -> tuple[int, ...]:
    return a.shape if a.index.size > b.index.size else b.shape


def divide(a: Value, b: Value) -> View:
    """By a constant, or the last step of a LayerNorm's normalization."""
    if isinstance(a, View) and not isinstance(b, View):
        if (np.asarray(b) == 0).any():
            raise Unmapped("a division by zero")
        return multiply(a, 1 / np.asarray(b, np.float64))
    if isinstance(a, View) and isinstance(b, View) and isinstance(a.source, Partial) and isinstance(b.source, Partial):
        if (a.source.step, b.source.step) == ("centred", "deviation") and same(a.source.of, b.source.of):
            return _step("normed", a.source.of, *a.shape, eps=b.source.eps)
    raise Unmapped("a quotient that is no part of a LayerNorm")


def add(a: Value, b: Value, sign: float = 1.0) -> View:
    """``a + sign * b``: a bias, positions, a residual connection, or a step of LayerNorm or GELU."""
    if isinstance(a, View) and isinstance(b, View):
        return _sum(a, b, sign)
    if not isinstance(a, View):
        if sign < 0:
            raise Unmapped("a constant from which a tensor is subtracted")
        a, b = b, a
    assert isinstance(a, View) and not isinstance(b, View)
    constant = sign * np.asarray(b, np.float64)
    if isinstance(a.source, Picture):
        return scale_picture(a, np.ones(1), constant)
    if is_embedding(a.source):
        return position(a, constant)
    value = scalar(constant)
    if isinstance(a.source, Partial):
        return _with_constant(a, a.source, constant, value)
    if value == 0:
        return a
    if isinstance(a.source, Scores):
        raise Unmapped("constants are added to the attention scores: relative position biases, or a mask")
    bias = channels(constant, a.source.width)
    if isinstance(a.source, Linear) and bias is not None and a.is_all():
        source = dataclasses.replace(a.source, bias=(a.source.bias + bias / a.scale).astype(np.float32))
        return dataclasses.replace(a, source=source)
    raise Unmapped("constants are added where a Vision Transformer has neither a bias nor positions")


def _with_constant(x: View, source: Partial, constant: Array, value: float | None) -> View:
    if source.step == "variance" and value is not None:
        return dataclasses.replace(x, source=dataclasses.replace(source, step="variance+eps", eps=value))
    if source.step == "erf" and value is not None and x.scale == 1.0 and abs(value - 1) < _CLOSE:
        return dataclasses.replace(x, source=dataclasses.replace(source, step="1+erf"))
    if source.step == "scaled" and source.gamma is not None:
        if (beta := channels(constant, x.shape[-1])) is None:
            raise Unmapped("a LayerNorm whose bias is no vector")
        return _normed(source.of, source.gamma, beta, source.eps, x.shape)
    raise Unmapped("a step of LayerNorm or GELU with another constant than theirs")


def _sum(a: View, b: View, sign: float) -> View:
    if sign < 0:
        if isinstance(b.source, Partial) and b.source.step == "mean" and same(a, b.source.of):
            return _step("centred", a, *a.shape)
        raise Unmapped("a difference that is no part of a LayerNorm")
    for tokens, update in ((a, b), (b, a)):
        if is_embedding(tokens.source) and isinstance(update.source, Linear):
            return residual(as_tokens(tokens), update)
        if is_embedding(tokens.source) and isinstance(update.source, Norm):
            raise Unmapped("a LayerNorm behind attention or MLP (post-norm), where ours stand before them")
    if isinstance(a.source, Linear) and isinstance(b.source, Linear) and a.shape == b.shape and a.scale == b.scale:
        joined = Joined(1, a.shape[-1], dataclasses.replace(a, scale=1.0), dataclasses.replace(b, scale=1.0))
        return dataclasses.replace(whole(joined, *a.shape), scale=a.scale)
    if isinstance(a.source, Norm) or isinstance(b.source, Norm):
        raise Unmapped("a residual connection around a LayerNorm: one before the first block (CLIP), or post-norm")
    raise Unmapped("a sum that is neither a residual connection nor that of two heads")


def _step(step: str, of: View, *shape: int, eps: float = 0.0) -> View:
    source = Partial(math.prod(shape[:-1]), shape[-1], step, of, eps)
    return whole(source, *shape)


def power(x: Value, exponent: Value) -> View:
    """The square in a LayerNorm."""
    if isinstance(x, View) and not isinstance(exponent, View) and scalar(exponent) == 2:
        if isinstance(x.source, Partial) and x.source.step == "centred":
            return _step("square", x.source.of, *x.shape)
        if is_embedding(x.source):
            raise Unmapped(RMS_NORM)
    raise Unmapped("a power that is no part of a LayerNorm")


def after(x: Value, operator: str) -> View:
    """``Sqrt`` and ``Reciprocal`` in a LayerNorm, ``Erf`` in a GELU, ``Sigmoid`` in a SiLU or QuickGELU."""
    if isinstance(x, View) and isinstance(x.source, Partial):
        steps = {("Sqrt", "variance+eps"): "deviation", ("Reciprocal", "deviation"): "1/deviation"}
        if (step := steps.get((operator, x.source.step))) is not None:
            return _step(step, x.source.of, *x.shape, eps=x.source.eps)
    if operator in ("Erf", "Sigmoid") and isinstance(x, View) and isinstance(x.source, Linear):
        return _step(operator.lower(), x, *x.shape)
    raise Unmapped(f"{operator} outside of LayerNorm and activation")


def activation(x: Value, operator: str, attributes: Attributes) -> View:
    """One operator of its own: ``Gelu``, ``Relu``, ``Swish`` and ONNX Runtime's ``QuickGelu``, of a linear layer."""
    approximate = attributes.get("approximate", "none")
    if operator == "Gelu" and approximate not in ("none", ""):
        raise Unmapped(f"{NOT_OURS}: the approximation by {approximate}")
    if not isinstance(x, View) or x.scale != 1.0:
        raise Unmapped(f"{operator} of something else than a linear layer")
    if operator in ("Gelu", "Relu"):
        return _activated(operator.lower(), x, 1.0)
    slope = float(attributes.get("alpha", 1.0 if operator == "Swish" else QUICK_GELU_SLOPE))
    return _activated(_kind("sigmoid", slope), x, 1.0)


def reduce_mean(x: Value, axes: tuple[int, ...], keep: bool) -> View:
    """Of channels, as a LayerNorm begins, or of tokens, which is pooling."""
    if not isinstance(x, View):
        raise Unmapped("a mean of constants")
    if isinstance(x.source, Partial) and x.source.step == "square" and axes == (x.index.ndim - 1,) and keep:
        return _step("variance", x.source.of, *x.shape[:-1], 1)
    if axes == (x.index.ndim - 1,) and keep and x.scale == 1.0:
        x = as_tokens(x) if is_embedding(x.source) else x
        return _step("mean", x, *x.shape[:-1], 1)
    rows = x.whole_rows()
    if axes == (x.index.ndim - 2,) and rows is not None and isinstance(x.source, Norm | Tokens) and x.scale == 1.0:
        shape = [1] * (x.index.ndim if keep else x.index.ndim - 1)
        return whole(Mean(1, x.source.width, x), *shape[:-1], x.source.width)
    raise Unmapped("a mean that is neither a LayerNorm's nor that of tokens")


def layer_norm(x: Value, gamma: Value, beta: Value | None, axis: int, eps: float) -> View:
    """One operator of its own, since opset 17."""
    if not isinstance(x, View) or isinstance(gamma, View) or isinstance(beta, View):
        raise Unmapped("a LayerNorm whose gain depends on the picture")
    if axis not in (-1, x.index.ndim - 1):
        raise Unmapped(f"a LayerNorm along the axis {axis}, ours is of channels")
    if beta is None:
        raise Unmapped("a LayerNorm without bias, where ours have one")
    x = as_tokens(x) if is_embedding(x.source) else x
    width = x.shape[-1]
    gain, bias = channels(gamma, width), channels(beta, width)
    if gain is None or bias is None:
        raise Unmapped("a LayerNorm whose gain is no vector")
    return _normed(x, gain, bias, eps, x.shape)


def _normed(of: View, gamma: Array, beta: Array, eps: float, shape: tuple[int, ...]) -> View:
    if isinstance(of.source, Linear):
        raise Unmapped("a norm of queries, keys or another layer's outputs, where ours are of the residual stream")
    if isinstance(of.source, Norm):
        raise Unmapped("a LayerNorm of a LayerNorm's output: one before the first block, as CLIP has it")
    if isinstance(of.source, Context):
        raise Unmapped("a norm of the attention's output before its projection")
    if not isinstance(of.source, Tokens | Mean) or of.whole_rows() is None or of.scale != 1.0:
        raise Unmapped("a LayerNorm of something else than tokens")
    source = Norm(math.prod(shape[:-1]), shape[-1], of, np.float32(1) * gamma, np.float32(1) * beta, eps)
    return whole(source, *shape)


def where(condition: Value, a: Value, b: Value) -> View:
    """Zero where probabilities are no numbers, which exporters of attention write and which never is so."""
    if isinstance(condition, View) and isinstance(condition.source, Partial) and isinstance(b, View):
        if condition.source.step == "isnan" and same(condition.source.of, b) and not isinstance(a, View):
            return b
    raise Unmapped("a choice between tensors")


def is_nan(x: Value) -> View:
    """Of probabilities; see :func:`where`."""
    if not isinstance(x, View) or not isinstance(x.source, Scores):
        raise Unmapped("a question whether values are numbers")
    return _step("isnan", x, *x.shape)


def softmax(x: Value, axis: int) -> View:
    """Of scores along the keys; of a head's outputs it is left out, as it changes no order."""
    if not isinstance(x, View) or axis not in (-1, x.index.ndim - 1):
        raise Unmapped("a softmax along another axis than the last")
    if isinstance(x.source, Linear | Joined) and x.index.size == x.shape[-1]:
        return x
    if not isinstance(x.source, Scores) or x.source.is_softmax or not x.is_all():
        raise Unmapped("a softmax of something else than attention scores")
    source = dataclasses.replace(x.source, scale=x.source.scale * x.scale, is_softmax=True)
    return View(source, x.index)
