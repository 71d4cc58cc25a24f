"""Lowering of the tasks' heads: the final LayerNorm, each head's layers, and its outputs back to DRAM."""

from __future__ import annotations

from dataclasses import dataclass, field

from edgemoe.compiler.allocation import RowAllocator
from edgemoe.compiler.builder import Builder, Chunk, Job, Region
from edgemoe.compiler.cuts import Group
from edgemoe.compiler.naive import activation_pass
from edgemoe.compiler.sequences import TokenSequences
from edgemoe.compiler.trace import Trace
from edgemoe.layout import OutputPart, align
from edgemoe_hw.spec.isa import Base, MatMul, Mode, Store
from edgemoe_models.graph.integer_graph import IntegerGraph

__all__ = ["Heads", "Outputs"]


@dataclass
class Outputs:
    """Where the heads' outputs lie in the OUTPUT memory.

    Attributes:
        parts: of each sequence
        end: bytes that are taken; what comes first is not the heads'
    """

    parts: list[list[OutputPart]]
    end: int = 0
    size: int = field(default=0, init=False)

    def add(self, sequence: int, tokens: Group, channel: int, channels: int, stride: int) -> int:
        """Place for rows of a sequence; returns its offset."""
        offset, size = self.end, 2 * tokens.count * stride
        self.parts[sequence].append(OutputPart(offset, tokens.first, tokens.count, channel, channels, stride))
        self.size, self.end = offset + size, align(offset + size)
        return offset


class Heads:
    """Emits every sequence's head for the tokens that it reads.

    Of a task that the host finishes, the tokens' residual stream is stored instead. Other outputs go through residual
    rows that no token needs any more, as many tokens and channels at a time as fit: so the residual stream of all
    sequences is read before.
    """

    def __init__(
        self,
        b: Builder,
        trace: Trace,
        graph: IntegerGraph,
        sequences: TokenSequences,
        residual: Region,
        x: Region,
        outputs: Outputs,
    ) -> None:
        self.b, self.trace, self.graph, self.sequences = b, trace, graph, sequences
        self.residual, self.x, self.outputs = residual, x, outputs
        self.rows = RowAllocator("residual", b.config.residual_depth)

    def emit(self) -> None:
        """Emit all of them, as one phase."""
        b, sequences = self.b, self.sequences
        phase = b.phase("head")
        finished = [task for task in sequences.tasks if b.model.task(task).is_finished_by_host]
        for task in finished:
            self._store_residual(task)
        rest = [task for task in sequences.tasks if task not in finished]
        if not rest:
            return
        self._normalize(rest)
        phase.bytes_read += 6 * b.model.dim
        for task in rest:
            self._emit(task)
            head, tokens = self.graph.heads[task], sequences.images * b.model.head_rows(task)[1]
            linears = [linear for linear in (head.fc1, head.out) if linear is not None]
            phase.macs += tokens * sum(linear.weight.size for linear in linears)
            phase.bytes_read += sum(linear.weight.size + 4 * linear.outputs for linear in linears)
            phase.bytes_written += 2 * tokens * head.out.outputs

    def _groups(self, task: str) -> list[tuple[int, Group]]:
        """A task's sequences and the groups of their tokens that the head reads."""
        first, count = self.b.model.head_rows(task)
        found = []
        for sequence in self.sequences.of_task(task):
            begin = self.sequences.place(sequence) * self.sequences.tokens + first
            for group in self.sequences.groups(self.sequences.place(sequence)):
                start, end = max(group.first, begin), min(group.first + group.count, begin + count)
                if start < end:
                    found.append((sequence, Group(start, end - start)))
        return found

    def _row(self, task: str, group: Group) -> Group:
        """The group in rows of the head, which begin at the first token that it reads."""
        first, _ = self.b.model.head_rows(task)
        return Group(group.first % self.sequences.tokens - first, group.count)

    def _store_residual(self, task: str) -> None:
        """The residual rows that the head reads, as they are; nothing is computed."""
        b, stride = self.b, self.residual.stride
        for sequence, group in self._groups(task):
            offset = self.outputs.add(
                sequence, self._row(task, group), 0, b.model.dim, stride * b.config.epilogue_lanes
            )
            row, rows = self.residual.row(group.first), group.count * stride
            b.emit(Store(base=Base.OUTPUT, offset=offset, row=row, rows=rows), "residual")
            b.phases[-1].bytes_written += 2 * group.count * b.model.dim

    def _normalize(self, tasks: list[str]) -> None:
        """The final LayerNorm of all tokens that the heads read, once each."""
        b, norm = self.b, self.graph.norm
        row = b.load_norm("norm", norm)
        seen: set[Group] = set()
        for task in tasks:
            first = b.model.head_rows(task)[0]
            for sequence, group in self._groups(task):
                if group not in seen:
                    seen.add(group)
                    command = b.layernorm(norm, row, group, self.residual, self.x, "norm")
                    self.trace.add("norm", command, group, 0, b.model.dim, first=first, sequence=sequence)

    def _emit(self, task: str) -> None:
        """One task's head for all images."""
        head, source = self.graph.heads[task], self.x
        if head.fc1 is not None and head.activation is not None:
            source = self._hidden_layer(task)
        self._output_layer(task, source)

    def _hidden_layer(self, task: str) -> Region:
        b, x, head = self.b, self.x, self.graph.heads[task]
        assert head.fc1 is not None and head.activation is not None
        name, first = f"heads.{task}.hidden", b.model.head_rows(task)[0]
        layout = b.image.add_linear(f"heads.{task}.fc1", head.fc1)
        stride = -(-layout.outputs // b.config.lanes_k)
        sequence_of = {group: sequence for sequence, group in self._groups(task)}
        skipped = self.sequences.place(self.sequences.of_task(task).start) * self.sequences.tokens
        hidden = Region(x.row(self.sequences.all_tokens) - skipped * stride, stride)  # the same rows for every task
        b.load_activation(head.activation, name)

        def emit(chunk: Chunk, group: Group) -> None:
            command = b.matmul(
                chunk,
                group,
                name,
                MatMul(
                    src_base=x.row(group.first),
                    src_stride=x.stride,
                    dst_base=hidden.row(group.first),
                    dst_stride=stride,
                    dst_channel=chunk.channel,
                    activate=True,
                ),
            )
            sequence = sequence_of[group]
            self.trace.add(name, command, group, chunk.channel, chunk.channels, first=first, sequence=sequence)

        b.stream([Job(layout, emit)], list(sequence_of))
        return hidden

    def _output_layer(self, task: str, source: Region) -> None:
        b, config, name = self.b, self.b.config, f"heads.{task}"
        layout = b.image.add_linear(name, self.graph.heads[task].out)
        first = b.model.head_rows(task)[0]
        sequence_of = {group: sequence for sequence, group in self._groups(task)}

        def emit(chunk: Chunk, group: Group) -> None:
            width = -(-chunk.channels // config.epilogue_lanes)
            limit = max(config.residual_depth // (2 * width), 1)  # tokens at a time, so that STORE overlaps MATMUL
            if chunk.tile == 0 and self.graph.heads[task].fc1 is not None:
                activation_pass(b, name, chunk, group, source)
            for start in range(group.first, group.first + group.count, limit):
                part = Group(start, min(limit, group.first + group.count - start))
                need = part.count * width
                place = self.rows.alloc(need, f"{name}: outputs")
                command = b.matmul(
                    chunk,
                    part,
                    name,
                    MatMul(
                        src_base=source.row(part.first),
                        src_stride=source.stride,
                        mode=Mode.RESIDUAL,
                        dst_base=place,
                        dst_stride=width,
                    ),
                )
                sequence, stride = sequence_of[group], width * config.epilogue_lanes
                self.trace.add(name, command, part, chunk.channel, chunk.channels, first=first, sequence=sequence)
                offset = self.outputs.add(sequence, self._row(task, part), chunk.channel, chunk.channels, stride)
                b.emit(Store(base=Base.OUTPUT, offset=offset, row=place, rows=need), name)
                self.rows.release(place, need)

        b.stream([Job(layout, emit)], list(sequence_of))
