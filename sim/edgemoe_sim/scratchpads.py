"""The on-chip memories of the command-level model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from edgemoe_hw.spec.config import AcceleratorConfig
from edgemoe_hw.spec.isa import Memory
from edgemoe_hw.spec.memories import memory_depths

__all__ = ["Scratchpads"]

Array = npt.NDArray[Any]


@dataclass
class Scratchpads:
    """On-chip memories; they start with noise, because hardware does not clear them.

    ``weight`` int8 [depth, lanes_n, lanes_k], ``act`` uint8 [depth, lanes_k],
    ``residual`` int16 [depth, epilogue_lanes], ``score`` int16 [depth, lanes_k],
    ``row_max`` int16 [max_tokens], ``param`` uint8 [depth, epilogue_lanes * 8],
    ``norm`` uint8 [rows, norm_lanes * 8], ``activation`` uint8 [rows, axi_bytes],
    ``queues``: (tokens, scores) an expert
    """

    config: AcceleratorConfig
    seed: int = 0
    whole_queues = False  # they have exactly the queued tokens
    queues: list[tuple[Array, Array]] = field(default_factory=list)

    def __post_init__(self) -> None:
        c, rng = self.config, np.random.default_rng(self.seed)
        rows = memory_depths(c)
        self.weight = rng.integers(-127, 128, (rows[Memory.WEIGHT], c.lanes_n, c.lanes_k)).astype(np.int8)
        self.act = rng.integers(0, 256, (rows[Memory.ACT], c.lanes_k)).astype(np.uint8)
        self.residual = rng.integers(-32767, 32768, (rows[Memory.RESIDUAL], c.epilogue_lanes)).astype(np.int16)
        self.score = rng.integers(-2047, 2048, (c.score_depth, c.lanes_k)).astype(np.int16)
        self.row_max = rng.integers(-2047, 2048, c.max_tokens).astype(np.int16)
        self.param = rng.integers(0, 256, (rows[Memory.PARAM], 8 * c.epilogue_lanes)).astype(np.uint8)
        self.norm = rng.integers(0, 256, (rows[Memory.NORM], 8 * c.norm_lanes)).astype(np.uint8)
        self.activation = rng.integers(0, 256, (rows[Memory.ACTIVATION], c.axi_bytes)).astype(np.uint8)
        empty = np.zeros(0, np.int64)
        self.queues = [(empty, empty) for _ in range(c.max_experts)]
