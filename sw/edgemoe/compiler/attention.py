"""Lowering of a block's attention: keys and values become stationary weight rows while queries stream past."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from edgemoe.compiler.builder import Builder, Chunk, Group, Job, Region
from edgemoe.compiler.errors import CompileError
from edgemoe.compiler.packing import spread_heads
from edgemoe.compiler.trace import Trace
from edgemoe_hw.isa import Mode, RowFactor, Source
from edgemoe_models.graph import IntegerBlock, IntegerLinear

__all__ = ["Attention"]


@dataclass(frozen=True)
class _Stationary:
    """Where keys and values lie in the weight scratchpad (isa.MatMul: KEY and VALUE)."""

    key_row: int
    key_tiles: int
    key_steps: int
    value_row: int
    value_tiles: int
    value_steps: int

    def key_head(self, head: int) -> int:
        return self.key_row + head * self.key_tiles * self.key_steps

    def value_head(self, head: int) -> int:
        return self.value_row + head * self.value_tiles * self.value_steps


class Attention:
    """Emits one block's attention.

    Parameters
    ----------
    builder, trace: where commands and traced tensors go
    name: ``blocks.{i}``
    block: its integer parameters
    groups: token groups
    """

    def __init__(self, builder: Builder, trace: Trace, name: str, block: IntegerBlock, groups: list[Group]) -> None:
        self.b, self.trace, self.name, self.block, self.groups = builder, trace, name, block, groups
        config, model = builder.config, builder.model
        self.tokens, self.heads, self.head_dim = model.num_tokens, model.heads, model.head_dim
        self.padded = -(-self.head_dim // config.lanes_k) * config.lanes_k

    def _linears(self) -> tuple[IntegerLinear, IntegerLinear, IntegerLinear, IntegerLinear]:
        """q, k, v with each head's rows padded, and proj with each head's columns padded."""
        qkv, proj, width = self.block.qkv, self.block.proj, self.b.model.dim

        def rows(part: int) -> IntegerLinear:
            span = slice(part * width, (part + 1) * width)
            return IntegerLinear(*(spread_heads(array[span], self.heads, self.padded)
                                   for array in (qkv.weight, qkv.bias, qkv.multiplier, qkv.shift)))

        columns = spread_heads(proj.weight.T, self.heads, self.padded).T
        return rows(0), rows(1), rows(2), replace(proj, weight=columns)

    def _reserve(self) -> _Stationary:
        """Keys and values take the end of the weight scratchpad until P.V has used them."""
        c = self.b.config
        key_tiles, key_steps = -(-self.tokens // c.lanes_n), self.padded // c.lanes_k
        value_tiles, value_steps = -(-self.padded // c.lanes_n), -(-self.tokens // c.lanes_k)
        keys, values = self.heads * key_tiles * key_steps, self.heads * value_tiles * value_steps
        base = c.weight_depth - keys - values
        if base <= 0:
            raise CompileError(f"{self.name}: keys and values of {self.tokens} tokens need {keys + values} rows of "
                               f"the weight scratchpad, which has {c.weight_depth}: "
                               f"{keys + values - c.weight_depth} too few, and weights need some")
        self.b.weights.reserve(base, keys + values, f"{self.name}: keys and values")
        return _Stationary(base, key_tiles, key_steps, base + keys, value_tiles, value_steps)

    def emit(self, x: Region, q: Region) -> None:
        """QKV and attention: reads ``x``, leaves the context in ``x``'s place. ``q`` is free afterwards."""
        b, image = self.b, self.b.image
        linears = self._linears()
        macs = b.model.dim * b.model.dim
        layouts = [image.add_linear(f"{self.name}.{part}", linear, macs)
                   for part, linear in zip("qkv", linears, strict=False)]
        self.proj = image.add_linear(f"{self.name}.proj", linears[3], macs)
        params = [b.load_uniform(image.add_uniform(f"{self.name}.{kind}", requant), f"{self.name}.{kind} params")
                  for kind, requant in (("score", self.block.score), ("context", self.block.context))]
        place = self._reserve()
        unit = self._head_unit()
        key = Job(layouts[1], lambda chunk, group: self._stationary(chunk, group, x, place, Mode.KEY), unit)
        query = Job(layouts[0], lambda chunk, group: self._query(chunk, group, x, q))
        value = Job(layouts[2], lambda chunk, group: self._stationary(chunk, group, x, place, Mode.VALUE), unit)
        b.stream([key, query, value], self.groups, single_set=True)
        self._heads(place, params, x, q)
        for row in params:
            b.params.release(row, 1)
        b.weights.release(place.key_row, b.config.weight_depth - place.key_row)

    def _head_unit(self) -> int:
        """Fewest tiles that end where a head ends."""
        lanes, total = self.b.config.lanes_n, self.heads * self.padded
        return -(-min(math.lcm(self.padded, lanes), total) // lanes)

    def _query(self, chunk: Chunk, group: Group, x: Region, q: Region) -> None:
        command = self.b.matmul(chunk, group, f"{self.name}.q", src_base=x.row(group.first), src_stride=x.stride,
                                dst_base=q.row(group.first), dst_stride=q.stride, dst_channel=chunk.channel)
        self.trace.add(f"{self.name}.q", command, group, chunk.channel, chunk.channels)

    def _stationary(self, chunk: Chunk, group: Group, x: Region, place: _Stationary, mode: Mode) -> None:
        c, head = self.b.config, chunk.channel // self.padded
        if mode == Mode.KEY:
            name, base = "k", place.key_head(head)
            stride, tile, lanes = place.key_tiles * place.key_steps, place.key_steps, c.lanes_n
        else:
            name, base = "v", place.value_head(head)
            stride, tile, lanes = place.value_tiles * place.value_steps, place.value_steps, c.lanes_k
        quotient, remainder = divmod(group.first, lanes)
        command = self.b.matmul(
            chunk, group, f"{self.name}.{name}", src_base=x.row(group.first), src_stride=x.stride, mode=mode,
            dst_base=base, head_dim=self.padded, head_stride=stride, tile_stride=tile, token_quot=quotient,
            token_rem=remainder)
        self.trace.add(f"{self.name}.{name}", command, group, chunk.channel, chunk.channels)

    def _heads(self, place: _Stationary, params: list[int], x: Region, q: Region) -> None:
        """Q.K and P.V over (head, group); P.V runs one pair late, so that no command needs its predecessor's result."""
        depth = self.b.config.score_depth
        stride = -(-self.tokens // self.b.config.lanes_k)
        largest = max(group.count for group in self.groups) * stride
        slots = min(depth // largest, max(len(self.groups), 3))
        if slots == 0:
            raise CompileError(f"{self.name}: scores of {largest // stride} tokens need {largest} rows of the score "
                               f"scratchpad, which has {depth}: {largest - depth} too few")
        lag = 1 if slots >= 2 and len(self.groups) >= 2 else 0  # a lone group's row maxima have one place only
        pairs = [(head, group) for head in range(self.heads) for group in self.groups]
        for number in range(len(pairs) + lag):
            if number < len(pairs):
                self._scores(*pairs[number], number % slots * largest, stride, place, params[0], q)
            if number >= lag:
                earlier = number - lag
                self._context(*pairs[earlier], earlier % slots * largest, stride, place, params[1], x)

    def _scores(self, head: int, group: Group, row: int, stride: int, place: _Stationary, param: int,
                q: Region) -> None:
        command = self.b.emit_matmul(
            f"{self.name}.scores[{head}]", src_base=q.row(group.first) + head * place.key_steps, src_stride=q.stride,
            k_steps=place.key_steps, weight_base=place.key_head(head), tiles=place.key_tiles, tokens=group.count,
            mode=Mode.SCORE, channels=self.tokens, dst_base=row, dst_stride=stride, param_base=param, param_uniform=1,
            keys=self.tokens, score_shift=self.block.score_shift, max_base=group.first)
        self.trace.add(f"{self.name}.scores", command, group, 0, self.tokens, head=head)
        self.trace.add(f"{self.name}.score_max", command, group, 0, 1, head=head)

    def _context(self, head: int, group: Group, row: int, stride: int, place: _Stationary, param: int,
                 context: Region) -> None:
        command = self.b.emit_matmul(
            f"{self.name}.context[{head}]", source=Source.SCORE, unsigned=1, src_base=row, src_stride=stride,
            k_steps=place.value_steps, weight_base=place.value_head(head), tiles=place.value_tiles, tokens=group.count,
            mode=Mode.ACT, channels=self.padded, dst_base=context.row(group.first), dst_stride=context.stride,
            dst_channel=head * self.padded, param_base=param, param_uniform=1, row_factor=RowFactor.SOFTMAX,
            keys=self.tokens, score_shift=self.block.score_shift, max_base=group.first)
        self.trace.add(f"{self.name}.context", command, group, head * self.padded, self.padded)
