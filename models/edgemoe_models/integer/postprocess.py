"""From a head's raw integers to pictures: dequantized outputs, upsampling, labels. NumPy only."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from edgemoe_models.config import ModelConfig
from edgemoe_models.exact.sums import mean
from edgemoe_models.graph.integer_graph import IntegerGraph

Floats = npt.NDArray[np.float32]


def arrange(config: ModelConfig, task: str, rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Head rows [P, cells*cells*channels] as an image [channels, grid_h*cells, grid_w*cells].

    A patch's outputs are ordered (cell_y, cell_x, channel). Rows of a task of the whole picture become [channels],
    pooled as ``TaskConfig.pool`` says: in float64, unless there is but one.
    """
    head = config.task(task)
    if not head.is_dense:
        return _pooled(config, task, rows)
    grid = rows.reshape(*config.grid, head.cells, head.cells, head.channels)
    return grid.transpose(4, 0, 2, 1, 3).reshape(config.output_shape(task))


def _pooled(config: ModelConfig, task: str, rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
    head, n = config.task(task), config.task(task).channels
    if len(rows) == 1 and head.pool not in ("cls-dist", "cls-avg"):
        return rows.reshape(n)
    values = rows.astype(np.float64)
    if head.pool == "cls-dist":
        return np.asarray((values[0, :n] + values[1, n:]) / 2)
    if head.pool == "cls-avg":
        return np.asarray(values[0, :n] + mean(np.ascontiguousarray(values[config.prefix_tokens :, n:]), 0))
    return mean(values, 0)


def decode_output(graph: IntegerGraph, task: str, raw: npt.NDArray[Any]) -> Floats:
    """Raw head outputs as the float model's: [channels, grid_h*cells, grid_w*cells], or [channels] of cls."""
    return arrange(graph.config, task, raw).astype(np.float32) * np.float32(graph.heads[task].output_scale)


def _taps(size: int, out: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Floats]:
    centre = np.clip((np.arange(out) + 0.5) * (size / out) - 0.5, 0, size - 1)
    low = np.floor(centre).astype(np.int64)
    return low, np.minimum(low + 1, size - 1), (centre - low).astype(np.float32)


def upsample(image: Floats, height: int, width: int) -> Floats:
    """Bilinear resize of [C, h, w] to [C, height, width], pixel centres aligned (torch's ``align_corners=False``)."""
    if image.shape[1:] == (height, width):
        return image
    low, high, share = _taps(image.shape[1], height)
    rows = image[:, low] * (1 - share)[:, None] + image[:, high] * share[:, None]
    low, high, share = _taps(image.shape[2], width)
    return np.asarray(rows[:, :, low] * (1 - share) + rows[:, :, high] * share, np.float32)


def _normalised(vectors: Floats) -> Floats:
    """Vectors float32 [..., 3] of length 1.

    Root and quotient go through float64, which rounds to the float32 that IEEE 754 wants: on 32-bit ARM NumPy's own for
    float32 are approximations (NEON has neither), and the last bit would be another one there.
    """
    squares = np.add.reduce(vectors * vectors, axis=-1, keepdims=True)
    length = np.sqrt(squares.astype(np.float64)).astype(np.float32)
    result: Floats = (vectors.astype(np.float64) / np.maximum(length, np.float32(1e-6))).astype(np.float32)
    return result


def postprocess(config: ModelConfig, task: str, output: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A task's decoded output as what a user wants, at the image's resolution.

    Returns:
        segmentation: labels uint8 [H, W]; depth: metres float32 [H, W]; normals: unit vectors float32 [H, W, 3];
        edges: bool [H, W]; classification: probabilities float32 [channels]; features: as they are, float32 [channels]
    """
    head = config.task(task)
    result: npt.NDArray[Any]
    if head.kind == "features":
        return output.astype(np.float32)
    if head.kind == "classification":
        exponentials = np.exp(output - output.max())
        result = exponentials / exponentials.sum()
        return result
    image = upsample(output.astype(np.float32), config.image_height, config.image_width)
    if head.kind == "segmentation":
        result = image.argmax(0).astype(np.uint8 if head.channels <= 256 else np.uint16)
    elif head.kind == "depth":
        result = image[0] * np.float32(head.output_scale)
    elif head.kind == "edges":
        result = np.greater(image[0], 0)
    else:
        result = _normalised(image.transpose(1, 2, 0))
    return result
