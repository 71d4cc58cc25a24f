"""Cycles of units that the compiler plans with."""

from __future__ import annotations

from edgemoe_hw.spec.config import AcceleratorConfig
from edgemoe_hw.spec.constants import COUNT_CYCLES, RECIPROCAL_LATENCY

__all__ = ["MATMUL_PIPELINE", "completion_cycles", "gate_interval"]

MATMUL_PIPELINE = 22
"""Cycles from a tile's last step to the requantized values of its first group."""


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
