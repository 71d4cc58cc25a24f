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

__all__ = ["DEPTHS", "candidates", "preset_depths"]

#: What memories are as deep as: what the models need, or what the board's own configuration has.
DEPTHS = ("least", "preset")

_LANES_K = (8, 16, 32, 64, 128)
_LANES_N_STEP = 8
_MOST_LANES_N = 128
_EPILOGUE = (8, 16, 32)
_NORM = (1, 2, 4, 8, 16)
_GROUPS = range(1, 7)  # in which the epilogue drains a tile: with more, products of few steps wait for it
_MASTERS = (1, 2, 4)


def candidates(board: Board, models: Sequence[ModelConfig], depths: str = "least") -> Iterator[AcceleratorConfig]:
    """Every configuration of the space that is legal and deep enough for the models, whether it fits the FPGA or not.

    Args:
        board: whose memory ports, DRAM and clock they have
        models: that they are to take
        depths: ``least`` or ``preset``

    Raises:
        ValueError: ``depths`` is neither
    """
    if depths not in DEPTHS:
        raise ValueError(f"depths must be {' or '.join(DEPTHS)}, not {depths!r}")
    chain, own = CHAINS[board.device.family], board.config
    for lanes_k, lanes_n, epilogue, norm, masters in itertools.product(
        _LANES_K, range(_LANES_N_STEP, _MOST_LANES_N + 1, _LANES_N_STEP), _EPILOGUE, _NORM, _MASTERS
    ):
        if masters > own.axi_masters or lanes_n // epilogue not in _GROUPS:
            continue
        for ultra in {False, bool(board.device.uram)}:
            array = {"lanes_k": lanes_k, "lanes_n": lanes_n, "epilogue_lanes": epilogue, "norm_lanes": norm}
            name = f"{board.name}-{lanes_k}x{lanes_n}-e{epilogue}-n{norm}-m{masters}{'-u' if ultra else ''}"
            try:
                config = dataclasses.replace(
                    own, name=name, **array, axi_masters=masters, dsp_chain=chain, ultra_ram=ultra
                )
                yield preset_depths(config, own) if depths == "preset" else least_depths(config, models)
            except (ConfigError, CompileError):
                continue


def preset_depths(config: AcceleratorConfig, own: AcceleratorConfig) -> AcceleratorConfig:
    """The array of ``config`` with memories of as many bytes as those of ``own``."""

    def rows(name: str, lanes: str) -> int:
        return -(-getattr(own, name) * getattr(own, lanes) // getattr(config, lanes))

    return dataclasses.replace(
        config,
        act_depth=rows("act_depth", "lanes_k"),
        score_depth=rows("score_depth", "lanes_k"),
        residual_depth=rows("residual_depth", "epilogue_lanes"),
    )
