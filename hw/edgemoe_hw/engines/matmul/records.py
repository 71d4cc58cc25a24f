"""What travels between the stages of the MATMUL engine."""

from amaranth import signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import Out
from amaranth.utils import ceil_log2

from edgemoe_hw.spec.config import AcceleratorConfig
from edgemoe_hw.spec.constants import (
    EXPERT_COUNT_BITS,
    LANE_BITS,
    ROW_BITS,
    ROW_FACTOR_BITS,
    ROW_SHIFT_BITS,
    TOKEN_BITS,
    TOP_K_BITS,
    accumulator_bits,
)
from edgemoe_hw.spec.isa import Mode

__all__ = ["FinishedTile", "Parameter", "RowScale", "StepMeta", "TileMeta", "accumulators", "group_control"]


class TileMeta(data.Struct):
    """What the epilogue must know of a finished tile beside its command."""

    first_tile: 1  # of its token
    last_of_command: 1
    index: TOKEN_BITS  # of the token within the command
    dst_offset: ROW_BITS  # rows from dst_base to the token's row
    score: ROW_FACTOR_BITS  # gate score of the token, if it came from a queue


class StepMeta(data.Struct):
    """One step of the array."""

    valid: 1
    first: 1
    last: 1
    first_tile: 1
    source: 1
    unsigned: 1
    nibbles: 1
    softmax: 1
    score_shift: 2
    maximum_row: TOKEN_BITS
    step: 8
    keys: TOKEN_BITS
    source_row: ROW_BITS
    weight_row: ROW_BITS
    tile: TileMeta


class RowScale(data.Struct):
    """A token's own factor of the requantization: ``row / 2^(15 + shift)``."""

    row: ROW_FACTOR_BITS
    shift: ROW_SHIFT_BITS


class Parameter(data.Struct):
    """One output channel's requantization, as it lies in the parameter scratchpad."""

    bias: signed(32)
    multiplier: 16
    shift: 8
    activation_shift: 2
    reserved: 6


def accumulators(config: AcceleratorConfig) -> data.ArrayLayout:
    """A tile's results."""
    return data.ArrayLayout(signed(accumulator_bits(config.max_tokens)), config.lanes_n)


class FinishedTile(wiring.Signature):
    """A tile on its way from the array to the epilogue, which always takes it.

    Members:
        valid, meta: one cycle before ``result`` holds the tile
        result: the array's accumulators
        softmax: row factor of the current token, there with ``result`` of its first tile and until the next token's
    """

    def __init__(self, config: AcceleratorConfig):
        super().__init__(
            {
                "valid": Out(1),
                "meta": Out(TileMeta),
                "result": Out(accumulators(config)),
                "softmax": Out(RowScale),
            }
        )


def group_control(config: AcceleratorConfig) -> data.StructLayout:
    """What travels with a group of ``epilogue_lanes`` values down the epilogue.

    Members:
        mode, activate, accumulate, num_experts, top_k: as in the command
        row: destination row
        part: the group's position within a row of lanes_k elements
        lane: KEY: bank of the token; VALUE: byte of the token
        first_bank: VALUE: bank of the group's first channel
        channels, any_channel: which of the group's lanes are channels at all, and whether one is
        first_group, last_group: of the token
        clear: GATE: first group of a command that empties the queues
        index: the token's entry of the row-maximum memory, or its number
        last_of_command: no group comes after this one
    """
    return data.StructLayout(
        {
            "mode": Mode,
            "activate": 1,
            "accumulate": 1,
            "row": ROW_BITS,
            "part": unsigned(ceil_log2(config.lanes_k // config.epilogue_lanes)),
            "lane": LANE_BITS,
            "first_bank": LANE_BITS,
            "channels": config.epilogue_lanes,
            "any_channel": 1,
            "first_group": 1,
            "last_group": 1,
            "clear": 1,
            "index": TOKEN_BITS,
            "num_experts": EXPERT_COUNT_BITS,
            "top_k": TOP_K_BITS,
            "last_of_command": 1,
        }
    )
