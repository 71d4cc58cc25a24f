"""Shapes of the on-chip memories, as loads, compiler and simulators see them."""

from __future__ import annotations

from edgemoe_hw.spec.config import AcceleratorConfig
from edgemoe_hw.spec.constants import ACTIVATION_ENTRIES
from edgemoe_hw.spec.isa import Memory

__all__ = ["memory_depths", "slice_beats"]


def slice_beats(config: AcceleratorConfig) -> dict[Memory, int]:
    """Beats of one master's slice of a row, by memory."""
    beats = {
        memory: config.row_bytes[memory.name] // config.load_masters(memory.name) // config.axi_bytes
        for memory in Memory
    }
    for memory, count in beats.items():
        if not 1 <= count <= 256:
            raise ValueError(f"a master's slice of a {memory.name} row must have 1 to 256 beats, not {count}")
    return beats


def memory_depths(config: AcceleratorConfig) -> dict[Memory, int]:
    """Rows of every memory that a LOAD can write."""
    norm_rows = -(-config.max_dim // config.epilogue_lanes) * config.epilogue_lanes // config.norm_lanes
    return {
        Memory.WEIGHT: config.weight_depth,
        Memory.ACT: config.act_depth,
        Memory.RESIDUAL: config.residual_depth,
        Memory.PARAM: config.param_depth,
        Memory.NORM: 2 * norm_rows,  # two sets: one in use, one loading
        Memory.ACTIVATION: ACTIVATION_ENTRIES // config.axi_bytes,
    }
