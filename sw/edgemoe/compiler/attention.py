"""Lowering of a block's attention: keys and values become stationary weight rows while queries stream past."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy.typing as npt

from edgemoe.compiler.builder import Builder, Chunk, Job, Region
from edgemoe.compiler.commands import Command
from edgemoe.compiler.cuts import Group, HeadParts, query_groups
from edgemoe.compiler.naive import Refetch, softmax_passes
from edgemoe.compiler.packing import WeightLayout, spread_heads
from edgemoe.compiler.sequences import TokenSequences
from edgemoe.compiler.trace import Trace
from edgemoe_hw.spec.isa import MatMul, Mode, RowFactor, Source
from edgemoe_models.graph.integer_graph import IntegerBlock, IntegerLinear

__all__ = ["Attention"]

_STATIONARY_SHARE = 0.25  # of WEIGHT that keys and values of several sequences may take together


@dataclass(frozen=True)
class _Stationary:
    """Where keys and values of some heads lie in the weight scratchpad (isa.MatMul: KEY and VALUE)."""

    first_head: int
    key_row: int
    key_tiles: int
    key_steps: int
    value_row: int
    value_tiles: int
    value_steps: int

    @property
    def larger_head(self) -> int:
        """Rows of a head's keys or values, whichever are more."""
        return max(self.key_tiles * self.key_steps, self.value_tiles * self.value_steps)

    def key_head(self, head: int) -> int:
        return self.key_row + (head - self.first_head) * self.key_tiles * self.key_steps

    def value_head(self, head: int) -> int:
        return self.value_row + (head - self.first_head) * self.value_tiles * self.value_steps


class Attention:
    """Emits one block's attention.

    Args:
        builder, trace: where commands and traced tensors go
        name: ``blocks.{i}``
        block: its integer parameters
        sequences: of the program
        places: of the sequences whose attention this is
    """

    def __init__(
        self,
        builder: Builder,
        trace: Trace,
        name: str,
        block: IntegerBlock,
        sequences: TokenSequences,
        places: Sequence[int],
    ) -> None:
        self.b, self.trace, self.name, self.block = builder, trace, name, block
        self.sequences, self.places = sequences, places
        config, model = builder.config, builder.model
        self.tokens, self.heads, self.shape = model.num_tokens, model.heads, HeadParts.of(model, config)
        self.padded, self.parts = self.shape.padded, self.shape.split(config.weight_depth)
        self.together = self._cut_places()
        self.refetch: Refetch | None = None
        linears, macs = self._linears(), model.dim * model.dim
        self.query, self.key, self.value, self.proj = (
            builder.image.add_linear(f"{name}.{part}", linear, macs)
            for part, linear in zip(("q", "k", "v", "proj"), linears, strict=True)
        )
        self._preloaded: list[Chunk | None] = [None, None, None]

    def _cut_places(self) -> list[Sequence[int]]:
        """Places whose keys and values are on chip together, so that weights are fetched once for all of them.

        One by one where they would take much of WEIGHT: what they leave is what memory can be ahead of the array.
        """
        rows = self.heads * self.shape.head_rows
        at_once = max(int(self.b.config.weight_depth * _STATIONARY_SHARE) // rows, 1) if len(self.parts) == 1 else 1
        count = -(-len(self.places) // at_once)
        cuts = [i * len(self.places) // count for i in range(count + 1)]
        return [self.places[start:stop] for start, stop in itertools.pairwise(cuts)]

    def _linears(self) -> tuple[IntegerLinear, IntegerLinear, IntegerLinear, IntegerLinear]:
        """q, k, v with each head's rows padded, and proj with each head's columns padded."""
        qkv, proj, width = self.block.qkv, self.block.proj, self.b.model.dim

        def rows(part: int) -> IntegerLinear:
            span = slice(part * width, (part + 1) * width)

            def spread(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
                return spread_heads(array[span], self.heads, self.padded)

            numbers = spread(qkv.bias), spread(qkv.multiplier), spread(qkv.shift)
            return IntegerLinear(spread(qkv.weight), *numbers, bits=qkv.bits)

        columns = spread_heads(proj.weight.T, self.heads, self.padded).T
        return rows(0), rows(1), rows(2), replace(proj, weight=columns)

    def preload(self) -> None:
        """Fetch the first weights, so that attention can start while the rest follows."""
        heads, unit = self.parts[0], self.shape.unit
        below = self._first_row(heads, len(self.together[0]))
        rows = min(int(self.b.config.weight_depth * self.b.options.preload_fraction), below // 3)
        for index, (layout, step) in enumerate(((self.key, unit), (self.query, 1), (self.value, unit))):
            tiles = layout.tiles if layout is self.query else self._tiles(layout, heads).stop
            chunk = self.b.preload(layout, step, min(rows, tiles * layout.tile_rows), below)
            self._preloaded[index] = chunk
            if chunk is None or chunk.tiles < tiles:
                return
            rows -= chunk.tiles * layout.tile_rows

    def _tiles(self, layout: WeightLayout, heads: range) -> range:
        """The tiles of keys' or values' weights that make those of ``heads``."""
        lanes = self.b.config.lanes_n
        return range(heads.start * self.padded // lanes, min(-(-heads.stop * self.padded // lanes), layout.tiles))

    def _first_row(self, heads: range, count: int) -> int:
        """Where keys and values of some heads of ``count`` sequences begin: they take the end of WEIGHT."""
        return self.b.config.weight_depth - count * len(heads) * self.shape.head_rows

    def _place(self, heads: range, base: int) -> _Stationary:
        """Keys and values of ``heads`` of one sequence, from row ``base`` on, until P.V has used them."""
        c = self.b.config
        key_tiles, key_steps = -(-self.tokens // c.lanes_n), self.padded // c.lanes_k
        value_tiles, value_steps = -(-self.padded // c.lanes_n), -(-self.tokens // c.lanes_k)
        keys = len(heads) * key_tiles * key_steps
        return _Stationary(heads.start, base, key_tiles, key_steps, base + keys, value_tiles, value_steps)

    def emit(self, x: Region, q: Region, between: Callable[[], None] | None = None) -> tuple[Region, Region]:
        """QKV and attention of what is in ``x``; returns where the context is, and the region that is free.

        The context takes the place of ``x``, or, if keys and values of all heads do not fit and so later heads need
        ``x`` again, that of their queries in ``q``: a head's context is where its queries were. ``between`` is called
        once, when the first weights have been asked for: what it loads has until the projection.
        """
        b, image = self.b, self.b.image
        params = [
            b.load_uniform(image.add_uniform(f"{self.name}.{kind}", requant), f"{self.name}.{kind} params")
            for kind, requant in (("score", self.block.score), ("context", self.block.context))
        ]
        context, free = (x, q) if len(self.parts) == 1 else (q, x)
        for places, heads in itertools.product(self.together, self.parts):
            base = self._first_row(heads, len(places))
            stationary = b.config.weight_depth - base
            b.weights.reserve(base, stationary, f"{self.name}: keys and values")
            rows = len(heads) * self.shape.head_rows
            held = {place: self._place(heads, base + number * rows) for number, place in enumerate(places)}
            self._project(heads, held, x, q)
            if between is not None:
                between()
                between = None
            for place, at in held.items():
                self._heads(heads, place, at, params, q, context)
            b.weights.release(base, stationary)
        for row in params:
            b.params.release(row, 1)
        return context, free

    def _project(self, heads: range, held: Mapping[int, _Stationary], x: Region, q: Region) -> None:
        """Keys and values of ``heads`` of some places, and before the first of the heads all queries."""
        unit, keys, values = self.shape.unit, self._tiles(self.key, heads), self._tiles(self.value, heads)
        groups = self.sequences.all_groups(held)

        def key(chunk: Chunk, group: Group) -> None:
            self._stationary(chunk, group, x, held[group.first // self.tokens], Mode.KEY)

        def value(chunk: Chunk, group: Group) -> None:
            self._stationary(chunk, group, x, held[group.first // self.tokens], Mode.VALUE)

        first, last = (
            Job(self.key, key, unit, keys.start, keys.stop),
            Job(self.value, value, unit, values.start, values.stop),
        )
        if heads.start:
            self.b.stream([first, last], groups, single_set=True)
            return
        jobs = [first, Job(self.query, lambda chunk, group: self._query(chunk, group, x, q)), last]
        there, self._preloaded = self._preloaded, [None, None, None]
        ready = [(job, chunk) for job, chunk in zip(jobs, there, strict=True) if chunk is not None]
        rest = [
            replace(job, first=chunk.tiles if chunk is not None else 0) for job, chunk in zip(jobs, there, strict=True)
        ]
        self.b.stream(rest, groups, single_set=True, held=ready)

    def _query(self, chunk: Chunk, group: Group, x: Region, q: Region) -> None:
        command = self.b.matmul(
            chunk,
            group,
            f"{self.name}.q",
            MatMul(
                src_base=x.row(group.first),
                src_stride=x.stride,
                dst_base=q.row(group.first),
                dst_stride=q.stride,
                dst_channel=chunk.channel,
            ),
        )
        self.trace.add(f"{self.name}.q", command, group, chunk.channel, chunk.channels)

    def _stationary(self, chunk: Chunk, group: Group, x: Region, place: _Stationary, mode: Mode) -> None:
        c, head = self.b.config, chunk.channel // self.padded
        if mode == Mode.KEY:
            name, base, lanes = "k", place.key_head(head), c.lanes_n
            stride, tile = place.key_tiles * place.key_steps, place.key_steps
            rows = tile
        else:
            name, base, lanes = "v", place.value_head(head), c.lanes_k
            stride, tile = place.value_tiles * place.value_steps, place.value_steps
            rows = 1
        quotient, remainder = divmod(group.first % self.tokens, lanes)
        command = self.b.matmul(
            chunk,
            group,
            f"{self.name}.{name}",
            MatMul(
                src_base=x.row(group.first),
                src_stride=x.stride,
                mode=mode,
                dst_base=base + quotient * rows,
                head_dim=self.padded,
                head_stride=stride,
                tile_stride=tile,
                token_rem=remainder,
            ),
        )
        self.trace.add(f"{self.name}.{name}", command, group, chunk.channel, chunk.channels)

    def _heads(
        self, heads: range, sequence: int, place: _Stationary, params: list[int], q: Region, context: Region
    ) -> None:
        """Q.K and P.V over (head, group); P.V runs one pair late, so that no command needs its predecessor's result."""
        offset = sequence * self.tokens
        depth = self.b.config.score_depth
        stride = -(-self.tokens // self.b.config.lanes_k)
        groups = query_groups(self.tokens, self.b.config, self.b.options)
        largest = max(group.count for group in groups) * stride
        slots = min(depth // largest, max(len(groups), 3))
        self.refetch = Refetch(self.b, place.larger_head) if self.b.options.attention_group else None
        lag = 1 if slots >= 2 and len(groups) >= 2 else 0  # a lone group's row maxima have one place only
        pairs = [(head, Group(offset + group.first, group.count)) for head in heads for group in groups]
        for number in range(len(pairs) + lag):
            if number < len(pairs):
                self._scores(*pairs[number], number % slots * largest, stride, place, params[0], q)
            if number >= lag:
                earlier = number - lag
                self._context(*pairs[earlier], earlier % slots * largest, stride, place, params[1], context)
        if self.refetch is not None:
            self.refetch.release()

    def _product(self, label: str, payload: MatMul) -> Command:
        """A MATMUL with a head's keys or values; a naive order fetches them first."""
        if self.refetch is None:
            return self.b.emit_matmul(label, payload)
        fetched = self.refetch.fetch(payload.tiles * payload.k_steps, f"{label} operands again")
        command = self.b.emit_matmul(label, payload)
        self.refetch.used_by(command, fetched)
        return command

    def _scores(
        self, head: int, group: Group, row: int, stride: int, place: _Stationary, param: int, q: Region
    ) -> None:
        command = self._product(
            f"{self.name}.scores[{head}]",
            MatMul(
                src_base=q.row(group.first) + head * place.key_steps,
                src_stride=q.stride,
                k_steps=place.key_steps,
                weight_base=place.key_head(head),
                tiles=place.key_tiles,
                tokens=group.count,
                mode=Mode.SCORE,
                channels=self.tokens,
                dst_base=row,
                dst_stride=stride,
                param_base=param,
                param_uniform=True,
                keys=self.tokens,
                score_shift=self.block.score_shift,
                max_base=group.first % self.tokens,
            ),
        )
        self.trace.add(f"{self.name}.scores", command, group, 0, self.tokens, head=head)
        self.trace.add(f"{self.name}.score_max", command, group, 0, 1, head=head)

    def _context(
        self, head: int, group: Group, row: int, stride: int, place: _Stationary, param: int, context: Region
    ) -> None:
        operands = MatMul(
            source=Source.SCORE,
            unsigned=True,
            src_base=row,
            src_stride=stride,
            k_steps=place.value_steps,
            tokens=group.count,
            weight_base=place.value_head(head),
            param_base=param,
            param_uniform=True,
            keys=self.tokens,
            score_shift=self.block.score_shift,
            max_base=group.first % self.tokens,
        )
        softmax_passes(self.b, f"{self.name}.context[{head}]", operands)
        command = self._product(
            f"{self.name}.context[{head}]",
            replace(
                operands,
                tiles=place.value_tiles,
                channels=self.padded,
                dst_base=context.row(group.first),
                dst_stride=context.stride,
                dst_channel=head * self.padded,
                row_factor=RowFactor.SOFTMAX,
            ),
        )
        self.trace.add(f"{self.name}.context", command, group, head * self.padded, self.padded)
