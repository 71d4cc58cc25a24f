"""Cycles of units and memories: what one unit, or the compiler, must know of another."""

from __future__ import annotations

from edgemoe_hw.spec.config import AcceleratorConfig
from edgemoe_hw.spec.constants import COUNT_CYCLES, RECIPROCAL_LATENCY

__all__ = [
    "ACT_READ",
    "EPILOGUE",
    "MATMUL_PIPELINE",
    "OPERAND_PATH",
    "PARAM_READ",
    "RESIDUAL_READ",
    "SCORE_READ",
    "WEIGHT_READ",
    "completion_cycles",
    "gate_interval",
]

# Cycles from a scratchpad's address to its data: 2 where the block RAM's output register is used.
ACT_READ = 1
WEIGHT_READ = 1
SCORE_READ = 1
"""Of scores and of row maxima."""
PARAM_READ = 1
RESIDUAL_READ = 1

OPERAND_PATH = 11
"""Cycles from a tile's last step to its strobe, a cycle before its result."""
EPILOGUE = 12
"""Cycles from a tile's strobe to the writes of its first group."""
MATMUL_PIPELINE = OPERAND_PATH + EPILOGUE - 1
"""Cycles from a tile's last step to the writes of its first group."""


def completion_cycles(config: AcceleratorConfig) -> int:
    """Cycles from a MATMUL's last step to the count that says it is finished, when all that it wrote can be read.

    A gate's count also waits for its last queue entry.
    """
    last_group = config.epilogue_cycles - 1
    maximum = max(1, -(-(config.epilogue_lanes.bit_length() - 1) // 2))  # the row maximum is written last
    return MATMUL_PIPELINE + last_group + maximum + 1 + COUNT_CYCLES


def gate_interval(config: AcceleratorConfig, num_experts: int, top_k: int) -> int:
    """Least cycles between the first (and between the last) groups of two tokens that the gate unit sustains.

    The slower of its stages: collecting groups, one expert a cycle, and the reciprocal followed by one winner a cycle.
    """
    groups = -(-num_experts // config.epilogue_lanes)
    return max(groups, num_experts + 1, top_k + RECIPROCAL_LATENCY)
