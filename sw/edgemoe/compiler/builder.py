"""Emission of commands in sequential order, with allocation of weights and parameters.

What is emitted is a valid program for a machine that runs one command after another; concurrency comes afterwards
from the derived waits (``commands.HazardTracker``) and the dispatch order (``schedule``).
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from edgemoe.compiler.allocation import RowAllocator
from edgemoe.compiler.commands import Command, HazardTracker, memory_depths
from edgemoe.compiler.cuts import Group
from edgemoe.compiler.errors import TOO_LARGE, CompileError, CompilerOptions
from edgemoe.compiler.packing import DramImage, DramObject, WeightLayout
from edgemoe.compiler.schedule import Estimator
from edgemoe_hw.spec.config import AcceleratorConfig
from edgemoe_hw.spec.isa import Base, Engine, EnginePayload, FieldError, LayerNorm, Load, MatMul, Memory
from edgemoe_models.config import ModelConfig
from edgemoe_models.graph.integer_graph import Activation, IntegerLayerNorm

__all__ = ["Builder", "Chunk", "Job", "Phase", "Piece", "Region"]


@dataclass(frozen=True)
class Region:
    """Token rows of a scratchpad: token t starts at row ``base + t * stride``."""

    base: int
    stride: int

    def row(self, token: int) -> int:
        return self.base + token * self.stride


@dataclass
class Phase:
    """One phase's name and what the model needs in it: its MACs and least DRAM bytes of any image.

    ``expert_macs`` and ``expert_bytes`` come on top for each queued token and each used expert of an image.
    ``prefetched``: bytes that are fetched for each expert whether an image uses it or not; empty where none are.
    """

    name: str
    macs: int = 0
    bytes_read: int = 0
    bytes_written: int = 0
    expert_macs: int = 0
    expert_bytes: int = 0
    prefetched: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Chunk:
    """Resident tiles of one linear layer: rows in the weight and parameter scratchpads."""

    layout: WeightLayout
    tile: int
    tiles: int
    weight_row: int
    param_row: int
    channel: int
    channels: int


Emit = Callable[[Chunk, Group], None]


@dataclass(frozen=True)
class Job:
    """A linear layer to stream: ``emit`` issues one chunk for one group; a chunk has a multiple of ``unit`` tiles.

    ``first``: its first tile that is not resident yet; ``stop``: the tile before which it ends, if not the layer's end.
    """

    layout: WeightLayout
    emit: Emit
    unit: int = 1
    first: int = 0
    stop: int | None = None

    @property
    def end(self) -> int:
        return self.layout.tiles if self.stop is None else self.stop


Piece = tuple[Job, int, int]
"""Tiles of a job that are loaded together: the job, the first of them, and how many."""


@contextlib.contextmanager
def _explained(label: str) -> Iterator[None]:
    """A value that no field can hold says that the model is too large, and where."""
    try:
        yield
    except FieldError as error:
        raise CompileError(f"{label}: {TOO_LARGE}: {error}") from None


@dataclass
class Builder:
    """State of one program's lowering."""

    config: AcceleratorConfig
    model: ModelConfig
    options: CompilerOptions
    image: DramImage
    commands: list[Command] = field(default_factory=list)
    phases: list[Phase] = field(default_factory=list)

    def __post_init__(self) -> None:
        depths = memory_depths(self.config)
        self.tracker = HazardTracker(self.config)
        self.weights = RowAllocator("weight", depths["WEIGHT"])
        self.params = RowAllocator("parameter", depths["PARAM"])
        self.norms = RowAllocator("norm-parameter", depths["NORM"])
        self.expert: int | None = None
        self.clock = Estimator(self.config, self.model)  # of what was emitted; roughly, as waits may still be added
        self._activation: DramObject | None = None
        self._activation_pending: str | None = None  # label of a table that is to be loaded, but not yet
        self._activation_free = 0  # when the last user of the table before has finished

    # -- commands ------------------------------------------------------------------------------------------------

    def phase(self, name: str) -> Phase:
        """Begin a phase: the following commands belong to it."""
        self.phases.append(Phase(name))
        return self.phases[-1]

    def emit(self, payload: EnginePayload, label: str) -> Command:
        """Append one command; its waits follow from the rows it touches."""
        command = Command(payload, len(self.phases) - 1, self.expert, label, len(self.commands))
        self.tracker.add(command)
        if not self.options.prefetch and self.commands:
            previous = self.commands[-1]
            command.waits[previous.engine] = max(command.waits[previous.engine], previous.ordinal + 1)
        self.commands.append(command)
        timing = self.clock.add(command)
        if isinstance(payload, MatMul) and payload.activate:
            self._activation_free = timing.finish
        return command

    def load(
        self, source: DramObject, first: int, rows: int, row: int, label: str, base: Base = Base.WEIGHTS
    ) -> Command:
        """LOAD ``rows`` rows of a DRAM object, from its row ``first``, to scratchpad row ``row``."""
        with _explained(label):
            load = Load(
                memory=Memory[source.memory],
                base=base,
                offset=source.row_offset(first),
                plane_stride=source.plane_stride,
                row=row,
                rows=rows,
            )
        if self.clock.free[Engine.LOAD] >= self._activation_free:
            self._load_pending_activation()
        return self.emit(load, label)

    def emit_matmul(self, label: str, payload: MatMul) -> Command:
        """MATMUL with the smallest gap that the epilogue allows, unless it has one."""
        if not payload.min_gap:
            payload = replace(payload, min_gap=max(1, self.config.epilogue_cycles))
        if payload.activate:
            self._load_pending_activation()
        return self.emit(payload, label)

    def matmul(self, chunk: Chunk, group: Group, label: str, payload: MatMul) -> Command:
        """MATMUL of one resident chunk for one group; ``payload`` has the fields that these do not give."""
        with _explained(label):
            payload = replace(
                payload,
                k_steps=chunk.layout.k_steps,
                weight_base=chunk.weight_row,
                tiles=chunk.tiles,
                tokens=group.count,
                channels=chunk.channels,
                param_base=chunk.param_row,
                nibbles=chunk.layout.nibbles,
            )
        return self.emit_matmul(label, payload)

    def layernorm(
        self, norm: IntegerLayerNorm, param_row: int, group: Group, source: Region, target: Region, label: str
    ) -> Command:
        """LAYERNORM of one group."""
        dim = len(norm.gamma)
        with _explained(label):
            payload = LayerNorm(
                src_base=source.row(group.first),
                src_stride=source.stride,
                src_rows=-(-dim // self.config.epilogue_lanes),
                tokens=group.count,
                dst_base=target.row(group.first),
                dst_stride=target.stride,
                param_base=param_row,
                dim=dim,
                log2_dim=norm.log2_dim,
                inv_dim=norm.inv_dim,
                eps=norm.eps,
                shift=norm.shift,
            )
        return self.emit(payload, label)

    # -- resident objects ----------------------------------------------------------------------------------------

    def load_norm(self, name: str, norm: IntegerLayerNorm) -> int:
        """Load a LayerNorm's parameters; returns their first row. The rows are free for later loads at once."""
        stored = self.image.add_norm(name, norm)
        row = self.norms.alloc(stored.rows, name)
        self.load(stored, 0, stored.rows, row, name)
        self.norms.release(row, stored.rows)
        return row

    def load_activation(self, activation: Activation, label: str) -> None:
        """Load an activation function's table unless it is the one that is there.

        There is one place for it, and LOADs work in order: this one, which waits for the last user of the table before,
        must not hold back others that do not. So it stands behind those that start earlier, by the estimate, but before
        the table's first user.
        """
        stored = self.image.add_activation(activation.table)
        if stored != self._activation:
            self._activation, self._activation_pending = stored, label

    def _load_pending_activation(self) -> None:
        if self._activation_pending is None or self._activation is None:
            return
        (label, self._activation_pending), (expert, self.expert) = (self._activation_pending, None), (self.expert, None)
        self.load(self._activation, 0, self._activation.rows, 0, label)  # whatever expert comes next
        self.expert = expert

    def load_uniform(self, stored: DramObject, label: str) -> int:
        """Load one parameter row and keep it; release it with ``params.release(row, 1)``."""
        row = self.params.alloc(1, label)
        self.load(stored, 0, 1, row, label)
        return row

    # -- streaming of linear layers ------------------------------------------------------------------------------

    def _chunk_tiles(self, job: Job, free: int) -> int:
        """Tiles of a chunk, a multiple of the job's unit."""
        limit = max(int(free * self.options.chunk_fraction), 1)
        units = max(limit // (job.unit * job.layout.tile_rows), 1)
        per_tile = self.config.lanes_n // self.config.epilogue_lanes
        units = min(units, max(self.params.depth // 8 // (job.unit * per_tile), 1))
        return units * job.unit

    def _plan(self, jobs: Sequence[Job], free: int, single: bool) -> Iterator[list[Piece]]:
        """Sets that are resident together."""
        per_tile = self.config.lanes_n // self.config.epilogue_lanes
        param_limit = self.params.depth // 2
        total = sum((job.end - job.first) * job.layout.tile_rows for job in jobs)
        limit = free * self.options.resident_fraction
        if single and total <= free * 0.9:
            limit = free
        sets = max(-(-total // max(int(limit), 1)), 1)
        target = total / sets  # balanced sets: none ends so short that a LayerNorm cannot hide behind it
        resident: list[Piece] = []
        rows = params = 0
        for job in jobs:
            tile = job.first
            while tile < job.end:
                tiles = min(self._chunk_tiles(job, free), job.end - tile)
                need = tiles * job.layout.tile_rows
                full = rows + need > limit or params + tiles * per_tile > param_limit
                if resident and (full or rows >= target):
                    yield resident
                    resident, rows, params = [], 0, 0
                resident.append((job, tile, tiles))
                rows += need
                params += tiles * per_tile
                tile += tiles
        if resident:
            yield resident

    def pieces(self, jobs: Sequence[Job], free: int) -> Iterator[Piece]:
        """The chunks that ``stream`` loads one after the other for a lone group, with so many rows of WEIGHT free."""
        return itertools.chain(*self._plan(jobs, free, False))

    def piece_rows(self, piece: Piece) -> tuple[int, int]:
        """Rows of WEIGHT and of PARAM that a piece takes."""
        job, _, tiles = piece
        return tiles * job.layout.tile_rows, tiles * self.config.epilogue_cycles

    def has_room(self, piece: Piece) -> bool:
        """Whether ``load_piece`` finds the rows."""
        weights, params = self.piece_rows(piece)
        return weights <= self.weights.longest_free() and params <= self.params.longest_free()

    def load_piece(self, piece: Piece) -> Chunk:
        """Load a piece where rows are free soonest."""
        job, tile, tiles = piece
        row = self.weights.alloc(self.piece_rows(piece)[0], job.layout.name)
        return self.load_chunk(job.layout, tile, tiles, row)

    @contextlib.contextmanager
    def kept_free(self, pieces: Sequence[Piece], count: int) -> Iterator[None]:
        """Leave rows for ``count`` pieces at once, whichever they are, to what comes later."""
        weights, params = (count * max(rows) for rows in zip(*map(self.piece_rows, pieces), strict=True))
        with self.weights.kept_free(weights), self.params.kept_free(params):
            yield

    def load_chunk(self, layout: WeightLayout, tile: int, tiles: int, weights: int) -> Chunk:
        """Load tiles of a linear layer to weight row ``weights``, and their parameters."""
        lanes, per_tile = self.config.lanes_n, self.config.lanes_n // self.config.epilogue_lanes
        label = f"{layout.name}[{tile}:{tile + tiles}]"
        params = self.params.alloc(tiles * per_tile, layout.name)
        self.load(layout.params, tile * per_tile, tiles * per_tile, params, label + " params")
        self.load(layout.weight, tile * layout.tile_rows, tiles * layout.tile_rows, weights, label)
        channels = min(layout.outputs, (tile + tiles) * lanes) - tile * lanes
        return Chunk(layout, tile, tiles, weights, params, tile * lanes, channels)

    def release_chunk(self, chunk: Chunk) -> None:
        """Give a chunk's rows back."""
        self.weights.release(chunk.weight_row, chunk.tiles * chunk.layout.tile_rows)
        self.params.release(chunk.param_row, chunk.tiles * self.config.lanes_n // self.config.epilogue_lanes)

    def preload(self, layout: WeightLayout, unit: int, rows: int, below: int) -> Chunk | None:
        """Load the first tiles of a layer, at most ``rows`` weight rows, ahead of what is emitted in between.

        They lie ``below`` that weight row. ``stream`` takes the chunk as ``held``.
        """
        tiles = min(rows // (unit * layout.tile_rows) * unit, layout.tiles)
        if not tiles:
            return None
        base = self.weights.alloc(tiles * layout.tile_rows, layout.name, below)
        return self.load_chunk(layout, 0, tiles, base)

    def stream(
        self,
        jobs: Sequence[Job],
        groups: Sequence[Group],
        after: Callable[[Group], None] | None = None,
        single_set: bool = False,
        held: Sequence[tuple[Job, Chunk]] = (),
        free: int | None = None,
    ) -> None:
        """Run linear layers over all groups: for each resident set, for each group, for each chunk.

        ``after(group)`` is called when the group's last chunk has been emitted. A set takes at most
        ``resident_fraction`` of the free weight scratchpad, so that the next set is fetched meanwhile; with
        ``single_set``, when nothing has to be fetched behind it, all layers stay together if they fit. A lone group
        gives each chunk's rows back at once. ``held`` chunks are resident already and go with the first set. ``free``:
        rows that chunks are cut for; default: all that are free.
        """
        free = self.weights.longest_free() if free is None else free
        self._check_units(jobs, free)
        if len(groups) == 1:
            for job, chunk in held:
                job.emit(chunk, groups[0])
                self.release_chunk(chunk)
            for piece in self.pieces(jobs, free):
                chunk = self.load_piece(piece)
                piece[0].emit(chunk, groups[0])
                self.release_chunk(chunk)
            if after is not None:
                after(groups[0])
            return
        sets = list(self._plan(jobs, free, single_set)) or [[]]
        for resident in sets:
            chunks = list(held) if resident is sets[0] else []
            sizes = [tiles * job.layout.tile_rows for job, _, tiles in resident]
            if resident:
                starts = self.weights.alloc_each(sizes, resident[0][0].layout.name)
                chunks += [
                    (job, self.load_chunk(job.layout, tile, tiles, start))
                    for (job, tile, tiles), start in zip(resident, starts, strict=True)
                ]
            for group in groups:
                for job, chunk in chunks:
                    job.emit(chunk, group)
                if resident is sets[-1] and after is not None:
                    after(group)
            for _, chunk in chunks:
                self.release_chunk(chunk)

    def _check_units(self, jobs: Sequence[Job], free: int) -> None:
        for job in jobs:
            need = job.unit * job.layout.tile_rows
            if need > free:
                raise CompileError(
                    f"{job.layout.name}: {job.unit} tile(s) need {need} rows of the weight scratchpad, but only "
                    f"{free} of {self.weights.depth} are free: weight_depth is {need - free} rows too small"
                )
