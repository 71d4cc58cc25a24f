"""Cycles of units and memories: what one unit, or the compiler, must know of another."""

from __future__ import annotations

from edgemoe_hw.spec.config import AcceleratorConfig
from edgemoe_hw.spec.constants import COUNT_CYCLES, RECIPROCAL_LATENCY

__all__ = [
    "ACTIVATION",
    "ACT_READ",
    "EPILOGUE",
    "EXPONENTIAL",
    "EXPONENTIAL_SUM",
    "ISSUE_IDLE",
    "PARAM_READ",
    "REQUANTIZE",
    "RESIDUAL_READ",
    "RESIDUAL_SPACING",
    "SCORE_READ",
    "WEIGHT_READ",
    "WEIGHT_WRITE",
    "completion_cycles",
    "gate_interval",
    "mac_array",
    "matmul_pipeline",
    "operand_path",
]

# Cycles from a scratchpad's address to its data: 2 where the block RAM's output register is used.
ACT_READ = 2
WEIGHT_READ = 3
"""The address goes through registers of its own."""
SCORE_READ = 2
"""Of scores and of row maxima."""
PARAM_READ = 2
RESIDUAL_READ = 2

WEIGHT_WRITE = 2
"""Cycles from a loaded beat, or a group of keys or values, at the weight scratchpad until a read finds it: a register
stands before the memory. Other scratchpads take 1. A LOAD or MATMUL counts as finished no earlier than that, and what
waits for it reads weights only several cycles after its first step."""

EXPONENTIAL = 4
"""Cycles from scores to their exponentials."""
EXPONENTIAL_SUM = EXPONENTIAL + 3
"""Cycles from scores to the sum of their exponentials."""
ISSUE_IDLE = 1
"""Cycles without a step between two MATMULs, at least."""
REQUANTIZE = 8
"""Cycles from an accumulator to the requantized value (= Requantizer.LATENCY)."""
ACTIVATION = 5
"""Cycles from there to the activation function's value (= Activation.LATENCY)."""
EPILOGUE = 1 + PARAM_READ + REQUANTIZE + ACTIVATION + 1
"""Cycles from a tile's strobe to the writes of its first group's activations; nothing but row maxima comes later."""
RESIDUAL_SPACING = RESIDUAL_READ + 3
"""Least cycles from a group that writes a residual row to one that adds to what it wrote.

A row is read, added to, clamped and written, each in its own cycle; the next read sees it the cycle after.
"""


def mac_array(lanes_k: int, chain: int) -> int:
    """Cycles from a step's operands to the array's sums.

    Three registers before a chain's first sum, one a position; one a level of the tree; the accumulator.
    """
    return 3 + chain + (lanes_k // chain).bit_length() - 1 + 1


def operand_path(config: AcceleratorConfig) -> int:
    """Cycles from a tile's last step to its strobe, a cycle before its result.

    A register, scores, and what takes longer: the sum of the exponentials, accumulated, and its reciprocal; or the
    exponentials themselves and the array.
    """
    row_factor = EXPONENTIAL_SUM + 1 + RECIPROCAL_LATENCY
    products = EXPONENTIAL + mac_array(config.lanes_k, config.dsp_chain) - 1
    return 1 + SCORE_READ + max(row_factor, products)


def matmul_pipeline(config: AcceleratorConfig) -> int:
    """Cycles from a tile's last step to the writes of its first group."""
    return operand_path(config) + EPILOGUE - 1


def completion_cycles(config: AcceleratorConfig) -> int:
    """Cycles from a MATMUL's last step to the count that says it is finished, when all that it wrote can be read.

    A gate's count also waits for its last queue entry.
    """
    last_group = config.epilogue_cycles - 1
    # A row maximum, of requantized values, may be written last: masks have a cycle, and each level of its tree.
    maximum = max(1, 1 + (config.epilogue_lanes.bit_length() - 1) - ACTIVATION)
    return matmul_pipeline(config) + last_group + maximum + 1 + COUNT_CYCLES


def gate_interval(config: AcceleratorConfig, num_experts: int, top_k: int) -> int:
    """Least cycles between the first (and between the last) groups of two tokens that the gate unit sustains.

    The slower of its stages: collecting groups, one expert a cycle, and the reciprocal followed by one winner a cycle.
    """
    groups = -(-num_experts // config.epilogue_lanes)
    return max(groups, num_experts + 1, top_k + RECIPROCAL_LATENCY)
