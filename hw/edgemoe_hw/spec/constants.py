"""Limits of the architecture, and the widths that follow from them. A configuration stays within the limits."""

from __future__ import annotations

__all__ = [
    "ACCUMULATOR_BITS",
    "ADDRESS_BITS",
    "COMMAND_BITS",
    "COMMAND_BYTES",
    "COUNT_BITS",
    "COUNT_CYCLES",
    "DIM_BITS",
    "DSP_CHAINS",
    "EXPERT_BITS",
    "EXPERT_COUNT_BITS",
    "EXP_SUM_BITS",
    "GATE_SCORE_BITS",
    "ACTIVATION_BITS",
    "ACTIVATION_ENTRIES",
    "IP_VLNV",
    "LANE_BITS",
    "LARGEST_PROBABILITY",
    "MAX_BLOCKS",
    "MAX_DEPTH",
    "MAX_DIM",
    "MAX_EXPERTS",
    "MAX_LANES",
    "MAX_SHIFT",
    "MAX_SLICE_BEATS",
    "MAX_TOKENS",
    "MAX_TOP_K",
    "MODULE_VLNV",
    "QUEUE_COMMANDS",
    "RECIPROCAL_LATENCY",
    "ROW_BITS",
    "ROW_COUNT_BITS",
    "ROW_FACTOR_BITS",
    "ROW_SHIFT_BITS",
    "SCORE_BITS",
    "SHIFT_BITS",
    "SHIFT_SUM_BITS",
    "SIZE_BITS",
    "TOKEN_BITS",
    "TOP_K_BITS",
    "accumulator_bits",
]

# What a configuration may have at most.
MAX_DEPTH = 1 << 16
"""Rows of a scratchpad."""
MAX_TOKENS = 1024
"""Tokens of an image."""
MAX_DIM = 1024
"""Channels of a LayerNorm."""
MAX_EXPERTS = 32
"""Experts of a MoE layer."""
MAX_TOP_K = 4
"""Experts a token."""
MAX_LANES = 256
"""``lanes_k`` and ``lanes_n``: a token's place among them has ``LANE_BITS`` bits in a command."""
DSP_CHAINS = (1, 2, 4)
"""Products that the array can sum in a cascade of DSPs."""
MAX_SLICE_BEATS = 256
"""Beats of one master's slice of a scratchpad row."""
MAX_BLOCKS = 16
"""MoE blocks whose expert loads are kept for the host."""

# Widths that follow.
ROW_BITS = (MAX_DEPTH - 1).bit_length()
"""A row's number."""
ROW_COUNT_BITS = MAX_DEPTH.bit_length()
"""A number of rows."""
TOKEN_BITS = MAX_TOKENS.bit_length()
"""A token's number, or a number of tokens."""
DIM_BITS = MAX_DIM.bit_length()
"""A number of a LayerNorm's channels."""
EXPERT_BITS = (MAX_EXPERTS - 1).bit_length()
"""An expert's number."""
EXPERT_COUNT_BITS = MAX_EXPERTS.bit_length()
"""A number of experts."""
TOP_K_BITS = MAX_TOP_K.bit_length()
"""A number of experts of a token."""
LANE_BITS = (MAX_LANES - 1).bit_length()
"""A lane's number."""
LARGEST_PROBABILITY = 255
"""The exponential of a row's maximum (docs/numerics.md, section 6)."""
EXP_SUM_BITS = (LARGEST_PROBABILITY * MAX_TOKENS).bit_length()
"""The sum of a token's exponentials."""
ROW_SHIFT_BITS = (EXP_SUM_BITS - 1).bit_length()
"""``row_shift``, the logarithm of such a sum."""

# Widths of the number formats (docs/numerics.md).
MAX_SHIFT = 47
"""Largest shift of an output channel's requantization."""
SHIFT_BITS = MAX_SHIFT.bit_length()
"""Such a shift."""
SHIFT_SUM_BITS = (MAX_SHIFT + EXP_SUM_BITS - 1).bit_length()
"""Such a shift and a ``row_shift``."""
ROW_FACTOR_BITS = 16
"""A row factor, at most 2**15."""
ACCUMULATOR_BITS = 25
"""An accumulator of a linear layer or a score, with its bias: the compiler proves that it stays below 2**24."""
SCORE_BITS = 12
"""A score of Q.K, signed."""
GATE_SCORE_BITS = 16
"""A gate score."""
ACTIVATION_BITS = 12
"""Of an activation function's input."""
ACTIVATION_ENTRIES = 512
"""Bytes of an activation function's table."""

# Programs and memory.
COMMAND_BITS = 512
COMMAND_BYTES = COMMAND_BITS // 8
COUNT_BITS = 16
"""A number of commands; a program has fewer than 2**16."""
ADDRESS_BITS = 40
"""A byte address in DRAM."""
SIZE_BITS = 32
"""Bytes of a region of DRAM: offsets have as many bits."""
QUEUE_COMMANDS = 16
"""Commands that an engine's queue holds; the compiler orders programs by it."""

# Latencies of units that the compiler plans with.
RECIPROCAL_LATENCY = 4
"""Cycles of the reciprocal unit."""
COUNT_CYCLES = 2
"""Cycles from a MATMUL's completion to its count."""

# Under which names a block design has the accelerator, and the host's driver finds it. A module reference gets Vivado's
# vendor and library; IP_VLNV is the same accelerator packaged as IP.
MODULE_VLNV = "xilinx.com:module_ref:edgemoe:1.0"
IP_VLNV = "edgemoe.org:ip:edgemoe:1.0"


def accumulator_bits(max_tokens: int) -> int:
    """Bits of the array's accumulators: those of linear layers, or more where P.V of so many tokens needs them."""
    return max(ACCUMULATOR_BITS, (LARGEST_PROBABILITY * 127 * max_tokens).bit_length() + 1)
