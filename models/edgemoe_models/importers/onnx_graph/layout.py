"""Operators that only move elements, or compute with constants alone: NumPy on numbers of elements does both."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from edgemoe_models.importers.onnx_graph.values import MOST_ELEMENTS, Array, Unmapped

Attributes = dict[str, Any]


def _axes(x: Array, inputs: list[Any], attributes: Attributes) -> tuple[int, ...]:
    axes = inputs[0] if inputs else attributes.get("axes")
    if axes is None:
        return tuple(axis for axis, size in enumerate(x.shape) if size == 1)
    return tuple(int(axis) for axis in np.asarray(axes).reshape(-1))


def _reshape(x: Array, inputs: list[Any], attributes: Attributes) -> Array:
    shape = [int(size) for size in np.asarray(inputs[0]).reshape(-1)]
    if not attributes.get("allowzero"):
        shape = [x.shape[axis] if size == 0 else size for axis, size in enumerate(shape)]
    return x.reshape(shape)


def _transpose(x: Array, inputs: list[Any], attributes: Attributes) -> Array:
    return x.transpose(attributes.get("perm") or tuple(reversed(range(x.ndim))))


def _flatten(x: Array, inputs: list[Any], attributes: Attributes) -> Array:
    axis = attributes.get("axis", 1)
    return x.reshape(int(np.prod(x.shape[:axis], dtype=np.int64)), -1)


def _squeeze(x: Array, inputs: list[Any], attributes: Attributes) -> Array:
    return np.squeeze(x, _axes(x, inputs, attributes))


def _unsqueeze(x: Array, inputs: list[Any], attributes: Attributes) -> Array:
    return np.expand_dims(x, _axes(x, inputs, attributes))


def _slice(x: Array, inputs: list[Any], attributes: Attributes) -> Array:
    given: list[Any] = [np.asarray(value).reshape(-1) if value is not None else None for value in inputs]
    given += [None] * (4 - len(given))
    starts = given[0] if given[0] is not None else attributes["starts"]
    ends = given[1] if given[1] is not None else attributes["ends"]
    axes = given[2] if given[2] is not None else attributes.get("axes", range(len(starts)))
    steps = given[3] if given[3] is not None else [1] * len(starts)
    cuts = [slice(None)] * x.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        size = x.shape[int(axis)]
        stop = None if step < 0 and end < -size else int(min(end, size))
        cuts[int(axis)] = slice(int(start), stop, int(step))
    return x[tuple(cuts)]


def _gather(x: Array, inputs: list[Any], attributes: Attributes) -> Array:
    taken: Array = np.take(x, np.asarray(inputs[0]).astype(np.int64), attributes.get("axis", 0))
    return taken


def _expand(x: Array, inputs: list[Any], attributes: Attributes) -> Array:
    shape = tuple(int(size) for size in np.asarray(inputs[0]).reshape(-1))
    expanded: Array = np.broadcast_to(x, np.broadcast_shapes(x.shape, shape))
    return expanded


def _identity(x: Array, inputs: list[Any], attributes: Attributes) -> Array:
    return x


_MOVES: dict[str, Callable[[Array, list[Any], Attributes], Array]] = {
    "Reshape": _reshape,
    "Transpose": _transpose,
    "Flatten": _flatten,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Slice": _slice,
    "Gather": _gather,
    "Expand": _expand,
    "Identity": _identity,
    "Dropout": _identity,
}


def is_move(operator: str) -> bool:
    """Whether an operator with one output only moves elements of its first input."""
    return operator in _MOVES


def move(operator: str, x: Array, inputs: list[Any], attributes: Attributes) -> Array:
    """The first input ``x``, moved as the constants ``inputs`` after it say.

    Raises:
        Unmapped: the shapes do not allow it
    """
    try:
        result = _MOVES[operator](x, inputs, attributes)
    except (ValueError, IndexError, TypeError, KeyError) as error:
        raise Unmapped(f"its shapes do not fit ({str(error).partition(chr(10))[0]})") from None
    if result.size > MOST_ELEMENTS:
        raise Unmapped(f"it would have {result.size:,} elements")
    return result


def split(x: Array, sizes: Any, count: int, axis: int) -> list[Array]:
    """``x`` in ``count`` parts of these sizes, or of equal ones."""
    if sizes is None:
        step = -(-x.shape[axis] // count)
        cuts = [step * number for number in range(1, count)]
    else:
        cuts = [int(cut) for cut in np.cumsum(np.asarray(sizes).reshape(-1))][:-1]
    return list(np.split(x, cuts, axis))
