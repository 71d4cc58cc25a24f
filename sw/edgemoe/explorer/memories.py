"""Block RAM and UltraRAM of a configuration, by the geometry of its memories.

The list is the RTL's (``compute.py`` and the units in it); what a memory takes is what Yosys' ``memory_libmap`` chooses
of the modes of a block RAM: the cheapest, where blocks cost and the multiplexers between stacked blocks do too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from edgemoe_hw.spec import constants
from edgemoe_hw.spec.config import AcceleratorConfig

__all__ = ["Ram", "Taken", "free_rows", "rams", "taken"]

_BYTE = 9  # bits of a block RAM that one write enable covers, the parity bit among them
# (units of _BYTE in a row, rows, blocks of 36 Kbit, cost of one as Yosys has it)
_MODES = (
    (1, 2048, 0.5, 129),
    (2, 1024, 0.5, 129),
    (4, 512, 0.5, 129),
    (1, 4096, 1.0, 257),
    (2, 2048, 1.0, 257),
    (4, 1024, 1.0, 257),
    (8, 512, 1.0, 257),
)
_MUX_COST = 0.5  # a bit of another block to choose from
_LUT_ROWS, _LUT_MEMORY = 64, 2048  # memories of so few rows, or bits, are LUT memories
_LUT_BITS = 0.75  # bits of a row of 64 that a LUT holds: three of four LUTs' are data
_URAM_ROWS, _URAM_BYTES = 4096, 8
_RING_ROWS, _RING_SLOTS = 512, (4, 16)  # of LayerNorm's ring of tokens: norm/unit.py
_WHOLE, _LITTLE = 1024, 256  # what hw's memory_parts splits off: a rest that would take a block by itself


@dataclass(frozen=True)
class Ram:
    """A memory with one read and one write port.

    Attributes:
        unit: of the accelerator that has it
        rows: of it
        units: write enables of a row times the bytes of ``_BYTE`` bits that each covers
        bits: of a row
        ultra: it is to lie in UltraRAM
        count: how many alike there are
    """

    unit: str
    rows: int
    units: int
    bits: int
    ultra: bool = False
    count: int = 1


@dataclass(frozen=True)
class Taken:
    """What a memory takes: block RAMs of 36 Kbit, UltraRAMs, LUTs as memory, and bits times blocks that are chosen."""

    bram36: float = 0.0
    uram: int = 0
    lut: float = 0.0
    muxed: int = 0


def _ram(unit: str, rows: int, bits: int, granularity: int, ultra: bool = False, count: int = 1) -> Ram:
    """``granularity``: bits a write enable"""
    return Ram(unit, rows, bits // granularity * -(-granularity // _BYTE), bits, ultra, count)


def rams(config: AcceleratorConfig) -> Iterator[Ram]:
    """All memories of a configuration that are large enough for block RAM."""
    lanes, groups, ultra = config.lanes_k, config.epilogue_lanes, config.ultra_ram
    yield _ram("weight", config.weight_depth, 8 * lanes, 8, count=config.lanes_n)
    for unit, rows, bits in (
        ("act", config.act_depth, 8 * lanes),
        ("residual", config.residual_depth, 16 * groups),
        ("param", config.param_depth, 64 * groups),
    ):
        masters = config.load_masters(unit.upper())
        rest = rows % _WHOLE
        split = not ultra and rows > _WHOLE and 0 < rest <= _LITTLE
        for part in (rows - rest, rest) if split else (rows,):
            yield _ram(unit, part, bits // masters, 8, ultra, masters)
    score = constants.SCORE_BITS
    yield _ram("score", config.score_depth, score * lanes, score * groups, ultra)
    yield _ram("maximum", config.max_tokens, score, score)
    entry = constants.TOKEN_BITS + constants.ROW_FACTOR_BITS
    yield _ram("queue", config.max_experts * config.max_tokens, entry, entry)
    groups_of_row = -(-config.max_dim // groups) * groups // config.norm_lanes
    index = (groups_of_row - 1).bit_length()
    slots = min(max(_RING_ROWS >> index, _RING_SLOTS[0]), _RING_SLOTS[1])
    norm = 16 * config.norm_lanes
    yield _ram("norm", slots << index, norm, norm)
    yield _ram("norm", 2 * groups_of_row, 4 * norm, 8 * config.axi_bytes)
    yield Ram("tables", 1024, 2, 16, count=3)  # of the reciprocals and of the reciprocal square root


def taken(ram: Ram) -> Taken:
    """What one memory takes; of ``count`` alike all of them."""
    if ram.ultra:
        blocks = -(-ram.units // _URAM_BYTES) * -(-ram.rows // _URAM_ROWS)
        return Taken(uram=blocks * ram.count)
    if ram.rows <= _LUT_ROWS or ram.rows * ram.bits <= _LUT_MEMORY:
        return Taken(lut=-(-ram.rows // _LUT_ROWS) * ram.bits / _LUT_BITS * ram.count)
    best = min((_in_mode(ram, *mode) for mode in _MODES), key=lambda found: found[0])
    return Taken(best[1] * ram.count, muxed=best[2] * ram.count)


def _in_mode(ram: Ram, width: int, rows: int, blocks: float, cost: int) -> tuple[float, float, int]:
    """``(cost, blocks, bits times further stacks)`` of a memory in one mode.

    Blocks are stacked; what is left of the last rows of all columns shares blocks where these can be as wide as that.
    """
    columns = -(-ram.units // width)
    stacks, rest = divmod(ram.rows, rows)
    count = columns * (stacks + (rest > 0))
    muxed = ram.bits * (stacks + (rest > 0) - 1)
    return cost * count + _MUX_COST * muxed, blocks * count, muxed


def free_rows(rows: int, ultra: bool = False) -> int:
    """As many rows as the same blocks give that ``rows`` take: a multiple of what a block stacks."""
    step = _URAM_ROWS if ultra else 512
    return -(-rows // step) * step
