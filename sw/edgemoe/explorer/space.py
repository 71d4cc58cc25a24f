"""Candidates: configurations of a board that are worth a look."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

from edgemoe.boards.board import Board
from edgemoe.compiler.errors import CompileError
from edgemoe.explorer.needs import least_depths
from edgemoe.explorer.terms import CHAINS
from edgemoe_hw.spec.config import AcceleratorConfig, ConfigError
from edgemoe_models.config import ModelConfig

__all__ = ["DEPTHS", "candidates", "norm_lanes", "preset_depths"]

#: What memories are as deep as: what the models need, or what the board's own configuration has.
DEPTHS = ("least", "preset")

_LANES_K = (8, 16, 32, 64, 128)
_LANES_N_STEP, _MOST_LANES_N = 8, 128
_EPILOGUE = (8, 16, 32)
_GROUPS = range(1, 7)  # in which the epilogue drains a tile: with more, products of few steps wait for it


def candidates(board: Board, models: Sequence[ModelConfig], depths: str = "least") -> Iterator[AcceleratorConfig]:
    """Every configuration of the space that is legal and deep enough for the models, whether it fits the FPGA or not.

    Memory ports, DRAM and clock are the board's, UltraRAM is taken where the FPGA has it, and LayerNorm has as many
    lanes as it needs to keep up (``norm_lanes``).

    Args:
        board: for whose FPGA
        models: that they are to take
        depths: ``least`` or ``preset``

    Raises:
        ValueError: ``depths`` is neither
    """
    if depths not in DEPTHS:
        raise ValueError(f"depths must be {' or '.join(DEPTHS)}, not {depths!r}")
    family, own = board.device.family, board.config
    arrays = itertools.product(_LANES_K, range(_LANES_N_STEP, _MOST_LANES_N + 1, _LANES_N_STEP), _EPILOGUE)
    for lanes_k, lanes_n, epilogue in arrays:
        if lanes_n // epilogue not in _GROUPS:
            continue
        try:
            config = dataclasses.replace(
                own,
                name=f"{board.name}-{lanes_k}x{lanes_n}-{epilogue}",
                lanes_k=lanes_k,
                lanes_n=lanes_n,
                epilogue_lanes=epilogue,
                norm_lanes=norm_lanes(lanes_k * lanes_n, epilogue, own.axi_bytes, models),
                dsp_chain=CHAINS[family],
                ultra_ram=bool(board.device.uram),
            )
            yield preset_depths(config, own) if depths == "preset" else least_depths(config, models)
        except (ConfigError, CompileError):
            continue


def norm_lanes(macs: int, epilogue: int, axi_bytes: int, models: Sequence[ModelConfig]) -> int:
    """The fewest lanes with which LayerNorm of a token takes at most half as long as the products that it feeds.

    These are queries, keys and values: 3 D^2 / ``macs`` cycles, against D / lanes.
    """
    needed = max(2 * macs / (3 * model.dim) for model in models)
    lanes = max(1, axi_bytes // 8)
    while lanes < min(needed, epilogue):
        lanes *= 2
    return lanes


def preset_depths(config: AcceleratorConfig, own: AcceleratorConfig) -> AcceleratorConfig:
    """The array of ``config`` with memories of as many bytes as those of ``own``."""

    def rows(name: str, lanes: str) -> int:
        values: tuple[int, int, int] = getattr(own, name), getattr(own, lanes), getattr(config, lanes)
        return -(-values[0] * values[1] // values[2])

    return dataclasses.replace(
        config,
        act_depth=rows("act_depth", "lanes_k"),
        score_depth=rows("score_depth", "lanes_k"),
        residual_depth=rows("residual_depth", "epilogue_lanes"),
    )
