"""Position embeddings: for which grid of patches they are, and resampling them to another."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import numpy.typing as npt

from edgemoe_models.config import LIMITS
from edgemoe_models.exact.linear_algebra import matrix_product
from edgemoe_models.exact.sums import total
from edgemoe_models.float_reference import Floats
from edgemoe_models.importers.options import ImportOptions, ImportRefused

_CUBIC = -0.5  # Keys' coefficient, which torch uses together with antialiasing, as timm's resampling does

Grid = tuple[int, int]


def image_size(
    options: ImportOptions, patches: int, patch: int, aspect: int = 1, beside: str = " besides the class token's"
) -> tuple[int, int]:
    """Height and width in pixels: as given, or those of the grid that the position embeddings are for."""
    for name in ("image_height", "image_width"):
        if (given := getattr(options, name)) is not None and not 1 <= given <= LIMITS[name]:
            raise ImportRefused(f"--{name.replace('_', '-')} must be 1 to {LIMITS[name]}, not {given}")
    if (options.image_height is None) != (options.image_width is None):
        raise ImportRefused("--image-height and --image-width go together: give both or none")
    if options.image_height is not None and options.image_width is not None:
        for name, size in (("height", options.image_height), ("width", options.image_width)):
            if size % patch:
                raise ImportRefused(f"--image-{name} must be a multiple of the patches' {patch} pixels, not {size}")
        return options.image_height, options.image_width
    grid = _given(options, patches) or _likely(patches, aspect)
    if grid is None:
        raise ImportRefused(
            f"{patches} position embeddings{beside} have no obvious arrangement: "
            "give --trained-grid ROWSxCOLUMNS, or --image-height and --image-width"
        )
    return grid[0] * patch, grid[1] * patch


def fitted(
    embeddings: Floats, grid: Grid, options: ImportOptions, aspect: int = 1, prefix: int = 1
) -> tuple[Floats, str]:
    """Position embeddings [prefix + patches, D] for an image of ``grid`` patches, and in words what was done to them.

    They are taken to be of a square grid (or ``aspect`` times as wide as high) unless the options say another; where
    their number makes none, of the image's.

    Raises:
        ImportRefused: which grid they are for cannot be told
    """
    patches = len(embeddings) - prefix
    source = _given(options, patches) or _likely(patches, aspect) or (grid if patches == math.prod(grid) else None)
    if source is None:
        raise ImportRefused(
            f"{patches} position embeddings make no square, so they cannot be resampled to {grid[0]} x {grid[1]} "
            "patches: give --trained-grid ROWSxCOLUMNS"
        )
    said = "as given" if options.trained_grid else "--trained-grid"
    if source == grid:
        return embeddings, f"position embeddings of {grid[0]} x {grid[1]} patches ({said})"
    values = embeddings[prefix:].reshape(*source, -1)
    resized = resample(resample(values, grid[0]).swapaxes(0, 1), grid[1]).swapaxes(0, 1)
    resized = resized.reshape(-1, embeddings.shape[1]).astype(np.float32)
    text = f"position embeddings resampled from {source[0]} x {source[1]} to {grid[0]} x {grid[1]} patches, bicubic"
    return np.concatenate([embeddings[:prefix], resized]), f"{text} ({said})"


def _given(options: ImportOptions, patches: int) -> Grid | None:
    if options.trained_grid is None:
        return None
    rows, columns = given_grid(options)
    if rows * columns != patches:
        raise ImportRefused(f"--trained-grid {rows}x{columns} has {rows * columns} patches, the checkpoint {patches}")
    return rows, columns


def given_grid(options: ImportOptions) -> Grid:
    """``--trained-grid``, which is given.

    Raises:
        ImportRefused: it is no grid
    """
    text = (options.trained_grid or "").strip()
    match = re.fullmatch(r"(\d{1,4})\s*[xX×]\s*(\d{1,4})", text, re.ASCII)
    if match is None:
        raise ImportRefused(f"--trained-grid must be ROWSxCOLUMNS, as 14x14, not {options.trained_grid!r}")
    return int(match[1]), int(match[2])


def _likely(patches: int, aspect: int) -> Grid | None:
    rows = math.isqrt(max(patches, 0) // aspect)
    return (rows, rows * aspect) if rows and rows * rows * aspect == patches else None


def resample(values: npt.NDArray[np.floating[Any]], size: int) -> npt.NDArray[np.float64]:
    """Antialiased bicubic resampling of the first axis to ``size`` (torch's ``bicubic, antialias=True``)."""
    scale = len(values) / size
    centres = (np.arange(size) + 0.5) * scale
    distance = np.abs(np.arange(len(values)) + 0.5 - centres[:, None]) / max(scale, 1.0)
    near = ((_CUBIC + 2) * distance - (_CUBIC + 3)) * distance * distance + 1
    far = _CUBIC * (((distance - 5) * distance + 8) * distance - 4)
    weights = np.where(distance < 1, near, np.where(distance < 2, far, 0.0))
    weights /= total(weights)[:, None]
    flat = values.reshape(len(values), -1)
    return matrix_product(weights, flat).reshape(size, *values.shape[1:])
