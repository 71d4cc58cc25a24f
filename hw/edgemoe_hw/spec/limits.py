"""The largest values that a configuration may have, and the widths of fields and signals that follow from them.

Every unit takes its widths from here, so that a larger limit widens all of them together.
"""

__all__ = [
    "ACCUMULATOR_BITS",
    "EXPERT_BITS",
    "EXPERT_COUNT_BITS",
    "LANE_BITS",
    "LARGEST_PROBABILITY",
    "MAX_DIM",
    "MAX_EXPERTS",
    "MAX_LANES",
    "MAX_ROWS",
    "MAX_SHIFT",
    "MAX_TOKENS",
    "MAX_TOP_K",
    "PROBABILITY_SUM_BITS",
    "ROW_BITS",
    "ROW_FACTOR_BITS",
    "ROW_SHIFT_BITS",
    "SCORE_BITS",
    "SHIFT_BITS",
    "SHIFT_SUM_BITS",
    "TOKEN_BITS",
    "TOP_K_BITS",
    "accumulator_bits",
]

MAX_DIM = 1024
"""Channels of the residual stream."""

MAX_TOKENS = 1024
"""Tokens of an image."""

MAX_EXPERTS = 32
"""Experts of a MoE layer."""

MAX_TOP_K = 4
"""Experts of a token."""

MAX_LANES = 256
"""``lanes_k`` and ``lanes_n``: a token's place among them has ``LANE_BITS`` bits in a command."""

MAX_ROWS = 65536
"""Rows of a scratchpad."""

MAX_SHIFT = 47
"""Shift of an output channel's requantization."""

LARGEST_PROBABILITY = 255
"""Largest exponential of the softmax: that of the row's maximum."""

TOKEN_BITS = MAX_TOKENS.bit_length()
"""A number of tokens (or a token's number)."""

EXPERT_BITS = (MAX_EXPERTS - 1).bit_length()
"""An expert's number."""

EXPERT_COUNT_BITS = MAX_EXPERTS.bit_length()
"""A number of experts."""

TOP_K_BITS = MAX_TOP_K.bit_length()
"""A number of experts of one token."""

LANE_BITS = (MAX_LANES - 1).bit_length()
"""A lane's number."""

ROW_BITS = (MAX_ROWS - 1).bit_length()
"""A row's number; sums of row numbers wrap, and what the compiler emits never does."""

SCORE_BITS = 12
"""An attention score, signed."""

SHIFT_BITS = MAX_SHIFT.bit_length()
"""An output channel's shift."""

ROW_FACTOR_BITS = 16
"""A row factor, at most 2^15."""

PROBABILITY_SUM_BITS = (LARGEST_PROBABILITY * MAX_TOKENS).bit_length()
"""The sum of a row's exponentials."""

ROW_SHIFT_BITS = (PROBABILITY_SUM_BITS - 1).bit_length()
"""``floor_log2`` of that sum."""

SHIFT_SUM_BITS = (MAX_SHIFT + PROBABILITY_SUM_BITS - 1).bit_length()
"""An output channel's shift plus its row's."""

ACCUMULATOR_BITS = 25
"""Accumulators of linear layers and scores, with their biases: the compiler proves that they stay below 2^24."""


def accumulator_bits(max_tokens: int) -> int:
    """Bits of the array's accumulators: those of linear layers, or more where a sum over so many values needs it.

    P.V adds up to ``max_tokens`` products of a probability and an int8 value; above 518 tokens that can reach 2^24.
    """
    return max(ACCUMULATOR_BITS, (LARGEST_PROBABILITY * 127 * max_tokens).bit_length() + 1)
