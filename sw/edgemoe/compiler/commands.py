"""Commands with the scratchpad rows they touch, and the waits that follow from those rows.

No wait is written by hand: ``accesses`` derives from a command's own fields which rows it reads and writes, and
``HazardTracker`` turns that into the smallest completion counts that order all conflicting commands.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from edgemoe_hw.spec import memories
from edgemoe_hw.spec.config import AcceleratorConfig
from edgemoe_hw.spec.isa import (
    Base,
    Engine,
    EnginePayload,
    Header,
    LayerNorm,
    Load,
    MatMul,
    Mode,
    RowFactor,
    Source,
    Store,
    encode,
)
from edgemoe_hw.spec.timing import ISSUE_IDLE, RESIDUAL_SPACING

__all__ = ["Access", "Command", "HazardTracker", "accesses", "memory_depths"]

Rows = npt.NDArray[np.int64]
Access = tuple[str, Rows]

#: Memories whose rows a MATMUL reads when it issues: it must wait for an earlier MATMUL's epilogue. The others
#: (PARAM, ACTIVATION; RESIDUAL, if its steps take long enough) are read by the epilogue itself, which works in program
#: order.
_READ_AT_ISSUE = frozenset({"ACT", "SCORE", "WEIGHT", "ROWMAX", "QUEUE"})


_MORE = 4096  # rows of OUTPUT at a time, so that few extensions are needed


@dataclass
class Command:
    """One command before encoding.

    ``index`` is its place in sequential (lowering) order, ``ordinal`` its number among its engine's commands.
    """

    payload: EnginePayload
    phase: int = 0
    expert: int | None = None
    label: str = ""
    index: int = 0
    ordinal: int = 0
    waits: list[int] = field(default_factory=lambda: [0] * len(Engine))

    @property
    def engine(self) -> Engine:
        return self.payload.engine

    def header(self) -> Header:
        return Header(
            predicated=self.expert is not None, expert=self.expert or 0, phase=self.phase, waits=tuple(self.waits)
        )

    def encode(self) -> bytes:
        return encode(self.payload, self.header())


def _grid(base: int, stride: int, count: int, width: int) -> Rows:
    """Rows of ``count`` items, ``stride`` apart, ``width`` rows each."""
    return (base + np.arange(count)[:, None] * stride + np.arange(width)).ravel()


def _span(base: int, rows: int) -> Rows:
    return np.arange(base, base + rows)


def _attention_rows(config: AcceleratorConfig, p: MatMul) -> Rows:
    """Weight rows that a KEY or VALUE epilogue writes."""
    heads = np.arange(-(-p.channels // p.head_dim))[:, None, None] * p.head_stride
    if p.mode == Mode.KEY:
        tiles = -(-(p.token_rem + p.tokens) // config.lanes_n)
        outer = np.arange(tiles) * p.tile_stride
        inner = np.arange(-(-p.head_dim // config.lanes_k))
    else:
        outer = np.arange(-(-p.head_dim // config.lanes_n)) * p.tile_stride
        inner = np.arange(-(-(p.token_rem + p.tokens) // config.lanes_k))
    result: Rows = (p.dst_base + heads + outer[:, None] + inner).ravel()
    return result


def _matmul_writes(config: AcceleratorConfig, p: MatMul) -> Iterator[Access]:
    mode = p.mode
    if mode in (Mode.ACT, Mode.RESIDUAL):
        lanes = config.lanes_k if mode == Mode.ACT else config.epilogue_lanes
        first = p.dst_channel // lanes
        width = -(-(p.dst_channel + p.channels) // lanes) - first
        yield mode.name, _grid(p.dst_base + first, p.dst_stride, p.tokens, width)
    elif mode in (Mode.KEY, Mode.VALUE):
        yield "WEIGHT", _attention_rows(config, p)
    elif mode == Mode.SCORE:
        yield "SCORE", _grid(p.dst_base, p.dst_stride, p.tokens, -(-p.keys // config.lanes_k))
        yield "ROWMAX", _span(p.max_base, p.tokens)
    else:
        yield "QUEUE", _span(0, config.max_experts)


def _matmul_reads(config: AcceleratorConfig, p: MatMul, expert: int | None) -> Iterator[Access]:
    if p.source == Source.ACT:
        yield "ACT", _grid(p.src_base, p.src_stride, p.tokens, p.k_steps)
    else:
        yield "SCORE", _grid(p.src_base, p.src_stride, p.tokens, p.k_steps)
        yield "ROWMAX", _span(p.max_base, p.tokens)
    tile_rows = -(-p.k_steps // 2) if p.nibbles else p.k_steps
    yield "WEIGHT", _span(p.weight_base, p.tiles * tile_rows)
    params = 1 if p.param_uniform else -(-p.channels // config.epilogue_lanes)
    yield "PARAM", _span(p.param_base, params)
    if p.activate:
        yield "ACTIVATION", _span(0, memory_depths(config)["ACTIVATION"])
    if p.use_queue or p.row_factor == RowFactor.GATE:
        assert expert is not None
        yield "QUEUE", _span(expert, 1)
    if p.mode == Mode.RESIDUAL and p.accumulate:
        yield from _matmul_writes(config, p)


def accesses(config: AcceleratorConfig, command: Command) -> tuple[list[Access], list[Access]]:
    """Rows that a command reads and writes: two lists of (memory, row numbers).

    The region OUTPUT of DRAM is one of the memories, in rows of the residual scratchpad.
    """
    p = command.payload
    reads: list[Access] = []
    writes: list[Access] = []
    if isinstance(p, Load):
        writes.append((p.memory.name, _span(p.row, p.rows)))
        if p.base == Base.OUTPUT:  # a single row, or as one master reads several
            reads.append(("OUTPUT", _span(p.offset // config.row_bytes[p.memory.name], p.rows)))
    elif isinstance(p, Store):
        reads.append(("RESIDUAL", _span(p.row, p.rows)))
        assert p.base == Base.OUTPUT
        writes.append(("OUTPUT", _span(p.offset // config.row_bytes["RESIDUAL"], p.rows)))
    elif isinstance(p, LayerNorm):
        reads.append(("RESIDUAL", _grid(p.src_base, p.src_stride, p.tokens, p.src_rows)))
        reads.append(("NORM", _span(p.param_base, -(-p.dim // config.norm_lanes))))
        writes.append(("ACT", _grid(p.dst_base, p.dst_stride, p.tokens, -(-p.dim // config.lanes_k))))
    else:
        assert isinstance(p, MatMul)
        reads.extend(_matmul_reads(config, p, command.expert))
        writes.extend(_matmul_writes(config, p))
    if command.expert is not None:
        reads.append(("QUEUE", _span(command.expert, 1)))
    return reads, writes


def _overtakes(config: AcceleratorConfig, payload: EnginePayload, memory: str) -> bool:
    """Whether rows of ``memory`` may be read before an earlier command of the same engine has written them."""
    if not isinstance(payload, MatMul):
        return False
    # From that command's last group to this one's first, whatever rows they have in common.
    distance = ISSUE_IDLE + payload.k_steps - (config.epilogue_cycles - 1)
    return memory in _READ_AT_ISSUE or (memory == "RESIDUAL" and distance < RESIDUAL_SPACING)


def memory_depths(config: AcceleratorConfig) -> dict[str, int]:
    """Rows of every on-chip memory that hazards are tracked in."""
    loaded = {memory.name: depth for memory, depth in memories.memory_depths(config).items()}
    return loaded | {"SCORE": config.score_depth, "ROWMAX": config.max_tokens, "QUEUE": config.max_experts}


class HazardTracker:
    """Remembers each row's last reader and writer of every engine and derives waits from them."""

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        depths = memory_depths(config) | {"OUTPUT": 0}
        self._read = {name: np.zeros((len(Engine), depth), np.int32) for name, depth in depths.items()}
        self._written = {name: np.zeros((len(Engine), depth), np.int32) for name, depth in depths.items()}
        self._count = [0] * len(Engine)

    def add(self, command: Command) -> None:
        """Number the next command in sequential order and set its waits.

        Raises:
            AssertionError: the command touches rows outside its memory
        """
        own = command.engine
        reads, writes = accesses(self.config, command)
        for memory, rows in (*reads, *writes):
            if memory == "OUTPUT":
                self._extend(int(rows.max(initial=-1)) + 1)
        waits = np.zeros(len(Engine), np.int32)
        for memory, rows in reads:
            last = self._written[memory][:, rows].max(axis=1, initial=0)
            if not _overtakes(self.config, command.payload, memory):
                last[own] = 0  # engines work in order
            waits = np.maximum(waits, last)
        for memory, rows in writes:
            assert rows.size == 0 or (0 <= rows.min() and rows.max() < self._written[memory].shape[1]), (
                f"{command.label}: {memory} rows {rows.min()}..{rows.max()} of {self._written[memory].shape[1]}"
            )
            last = np.maximum(
                self._written[memory][:, rows].max(axis=1, initial=0),
                self._read[memory][:, rows].max(axis=1, initial=0),
            )
            last[own] = 0
            waits = np.maximum(waits, last)
        command.ordinal = self._count[own]
        command.waits = [int(value) for value in waits]
        self._count[own] += 1
        for memory, rows in reads:
            self._read[memory][own, rows] = self._count[own]
        for memory, rows in writes:
            self._written[memory][own, rows] = self._count[own]

    def _extend(self, rows: int) -> None:
        """Make room for so many rows of OUTPUT, whose size only the finished program says."""
        for table in (self._read, self._written):
            missing = rows - table["OUTPUT"].shape[1]
            if missing > 0:
                table["OUTPUT"] = np.pad(table["OUTPUT"], ((0, 0), (0, missing + _MORE)))
