"""Cycles of units that the compiler plans with."""

from __future__ import annotations

from edgemoe_hw.spec.config import AcceleratorConfig
from edgemoe_hw.spec.constants import RECIPROCAL_LATENCY

__all__ = ["gate_interval"]


def gate_interval(config: AcceleratorConfig, num_experts: int, top_k: int) -> int:
    """Least cycles between the first (and between the last) groups of two tokens that the gate unit sustains.

    The slower of its stages: collecting groups, one expert a cycle, and the reciprocal followed by one winner a cycle.
    """
    groups = -(-num_experts // config.epilogue_lanes)
    return max(groups, num_experts + 1, top_k + RECIPROCAL_LATENCY)
