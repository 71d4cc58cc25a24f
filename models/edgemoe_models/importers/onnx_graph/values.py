"""What tensors of an ONNX graph are in a Vision Transformer, and which elements of it each has where.

A tensor is a view: numbers of elements of a source, in the tensor's own shape. Reshape, Transpose, Slice, Split, Concat
and the like then are NumPy's, whatever an exporter makes of them, and where a tensor is used its numbers tell whether
heads, tokens and channels are where attention has them.
"""

from __future__ import annotations

import dataclasses
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]


MOST_ELEMENTS = 1 << 26  # of one tensor


class Unmapped(Exception):
    """What a node computes has no counterpart; the text says why."""


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """What is computed once; elements are numbered row by row, ``rows`` of ``width``. Compared by identity."""

    rows: int
    width: int


@dataclasses.dataclass(frozen=True, eq=False)
class Picture(Source):
    """The input, 3 rows of H * W, each with a factor and an offset that were applied to it."""

    height: int
    factor: Array
    offset: Array


@dataclasses.dataclass(frozen=True, eq=False)
class Patches(Source):
    """The patch embedding before it is tokens: D rows of one value a patch."""

    weight: Array
    bias: Array
    grid: tuple[int, int]


@dataclasses.dataclass(frozen=True, eq=False)
class Tokens(Source):
    """The residual stream.

    Attributes:
        patches: the embedding
        table: what is added to each row before the first block [T, D]
        patch_of_row: number of the patch of each row, -1 where there is none
        layers: what was added since: attention, MLP, attention, ...
    """

    patches: Patches
    table: Array
    patch_of_row: Array
    layers: tuple[Any, ...] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class Partial(Source):
    """A step of a LayerNorm or an activation that an exporter has taken apart.

    Attributes:
        step: ``mean``, ``centred``, ``square``, ``variance``, ``variance+eps``, ``deviation``, ``normed``, ``scaled``:
            a LayerNorm's; ``erf`` and ``1+erf``: a GELU's; ``sigmoid``: SiLU's and QuickGELU's; ``isnan``
        of: the view that it is of
        eps: of the LayerNorm, from ``variance+eps`` on
        gamma: from ``scaled`` on
    """

    step: str
    of: View
    eps: float = 0.0
    gamma: Array | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Norm(Source):
    """A LayerNorm of whole rows of ``of``."""

    of: View
    gamma: Array
    beta: Array
    eps: float


@dataclasses.dataclass(frozen=True, eq=False)
class Linear(Source):
    """``of @ weight.T + bias``, weight [width, inputs]."""

    of: View
    weight: Array
    bias: Array


@dataclasses.dataclass(frozen=True, eq=False)
class Activated(Source):
    """An activation function (``kind``, one of ``edgemoe_models.config.ACTIVATIONS``) of a linear layer."""

    of: Linear
    kind: str


@dataclasses.dataclass(frozen=True, eq=False)
class Scores(Source):
    """Queries times keys: heads * T rows of T.

    Attributes:
        query: with its channels of each head [heads, head_dim]
        key: likewise
        scale: by which they have been multiplied
        is_softmax: whether they are probabilities
    """

    query: tuple[Linear, Array]
    key: tuple[Linear, Array]
    scale: float
    is_softmax: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class Context(Source):
    """Probabilities times values: heads * T rows of head_dim."""

    scores: Scores
    value: tuple[Linear, Array]


@dataclasses.dataclass(frozen=True, eq=False)
class Mean(Source):
    """The mean of some rows: one row."""

    of: View


@dataclasses.dataclass(frozen=True, eq=False)
class Joined(Source):
    """Two rows behind each other as one (class token and mean), or the sum of two heads' outputs."""

    first: View
    second: View


@dataclasses.dataclass(frozen=True, eq=False)
class View:
    """Elements of a source, times ``scale``, in the shape of a tensor.

    Attributes:
        source: whose they are
        index: their numbers
        scale: by which all are multiplied
    """

    source: Source
    index: Array
    scale: float = 1.0

    @property
    def shape(self) -> tuple[int, ...]:
        return self.index.shape

    def at(self, index: Array) -> View:
        """The same source, other elements."""
        return dataclasses.replace(self, index=index)

    def whole_rows(self) -> Array | None:
        """Which rows of the source these are, if the last axis has all channels in order; else None."""
        width = self.source.width
        if self.index.ndim == 0 or self.index.shape[-1] != width:
            return None
        index = self.index.reshape(-1, width)
        rows: Array = index[:, 0] // width
        return rows if np.array_equal(index, rows[:, None] * width + np.arange(width)) else None

    def is_all(self) -> bool:
        """Whether these are all rows in order."""
        rows = self.whole_rows()
        return rows is not None and np.array_equal(rows, np.arange(self.source.rows))


Value: TypeAlias = View | Array


def whole(source: Source, *shape: int) -> View:
    """All of a source in this shape.

    Raises:
        Unmapped: it has more elements than a Vision Transformer's tensors have; a file's shapes are not believed
    """
    if source.rows * source.width > MOST_ELEMENTS:
        raise Unmapped(f"a tensor of {source.rows * source.width:,} elements")
    return View(source, np.arange(source.rows * source.width).reshape(shape))


def same(first: View, second: View) -> bool:
    """Whether two tensors are the same elements of the same source."""
    return first.source is second.source and np.array_equal(first.index, second.index) and first.scale == second.scale


def scalar(array: Array) -> float | None:
    """The one value that all elements have; None where they differ."""
    flat = np.asarray(array).reshape(-1)
    return float(flat[0]) if flat.size and (flat == flat[0]).all() else None


def channels(array: Array, width: int) -> Array | None:
    """A vector of the last axis, from an array that broadcasts along all others; None where it is no such."""
    array = np.asarray(array)
    if array.ndim == 0 or array.shape[-1] != width or array.size != width:
        return None
    return array.reshape(width)
