"""Tokens before those of the patches (class, distillation, registers), and which of them have a position."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from edgemoe_models.float_reference import Floats
from edgemoe_models.importers.common import Source
from edgemoe_models.importers.facts import Facts
from edgemoe_models.importers.options import ImportOptions, ImportRefused
from edgemoe_models.importers.positions import given_grid

#: In the order of the sequence.
_TOKENS = ("cls_token", "dist_token", "reg_token")


def take_tokens(
    source: Source, options: ImportOptions, facts: Facts, dim: int, patch: int
) -> tuple[Floats, Floats, ImportOptions]:
    """The first tokens [n, D], the position embeddings of these and of the patches [n + P, D], and the options.

    A file has positions for all of the first tokens, for the class token alone (DINOv2) or for none of them (DeiT-III);
    which, follows from the grid of patches. The options' grid is the facts' where they give none.

    Raises:
        ImportRefused: there are no tensors for this, or it cannot be told which patches they are for
    """
    names = [name for name in _TOKENS if name in source.left]
    tokens = [source.take(name, *_shape(source, name, dim)).reshape(-1, dim) for name in names]
    prefix = np.concatenate([np.zeros((0, dim), np.float32), *tokens])
    count = source.shape("pos_embed", 3)[1]
    embeddings = source.take("pos_embed", 1, count, dim)[0]
    possible = sorted({0, int("cls_token" in names), len(prefix)}, reverse=True)
    if facts.image is not None and options.trained_grid is None:
        rows, columns = (size // patch for size in facts.image)
        if rows * columns in [count - own for own in possible]:
            options = dataclasses.replace(options, trained_grid=f"{rows}x{columns}")
    own = _own_positions(count, possible, options, patch)
    without = np.zeros((len(prefix) - own, dim), np.float32)
    return prefix, np.concatenate([embeddings[:own], without, embeddings[own:]]), options


def _shape(source: Source, name: str, dim: int) -> tuple[int, int, int]:
    """One of each but registers, of which there may be several."""
    return 1, source.shape(name, 3)[1] if name == "reg_token" else 1, dim


def _is_square(number: int) -> bool:
    root = math.isqrt(max(number, 0))
    return number > 0 and root * root == number


def _own_positions(count: int, possible: list[int], options: ImportOptions, patch: int) -> int:
    """How many of ``count`` position embeddings are the first tokens', of those numbers that are possible."""
    if options.trained_grid is not None:
        grids = [own for own in possible if math.prod(given_grid(options)) == count - own]
        return grids[0] if grids else 1 if 1 in possible else possible[0]
    squares = [own for own in possible if _is_square(count - own)]
    if len(squares) > 1:
        found = " or ".join(f"{count - own}" for own in squares)
        raise ImportRefused(f"{count} position embeddings may be of {found} patches: give --trained-grid ROWSxCOLUMNS")
    if squares:
        return squares[0]
    if options.image_height is not None and options.image_width is not None:
        patches = (options.image_height // patch) * (options.image_width // patch)
        if fitting := [own for own in possible if count - own == patches]:
            return fitting[0]
    return 1 if 1 in possible else possible[0]
