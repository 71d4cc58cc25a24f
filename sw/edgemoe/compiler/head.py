"""Lowering of a task's head: the final LayerNorm, the head's layers, and its outputs back to DRAM."""

from __future__ import annotations

from edgemoe.compiler.allocation import RowAllocator
from edgemoe.compiler.builder import Builder, Chunk, Group, Job, Region
from edgemoe.compiler.naive import activation_pass
from edgemoe.compiler.trace import Trace
from edgemoe.layout import OutputPart, align
from edgemoe_hw.spec.isa import Base, MatMul, Mode, Store
from edgemoe_models.graph.integer_graph import IntegerGraph

__all__ = ["emit_head"]


def emit_head(
    b: Builder,
    trace: Trace,
    graph: IntegerGraph,
    task: str,
    residual: Region,
    buffers: list[Region],
    groups: list[Group],
) -> tuple[list[OutputPart], int]:
    """Emit the head for the tokens that it reads; returns the outputs' layout and bytes.

    Of a task that the host finishes, the tokens' residual stream is stored instead. Other outputs go through residual
    rows that no token needs any more, as many tokens and channels at a time as fit.
    """
    head, model = graph.heads[task], b.model
    first, count = model.head_rows(task)
    groups = [
        Group(start, end - start)
        for group in groups
        if (start := max(group.first, first)) < (end := min(group.first + group.count, first + count))
    ]
    phase = b.phase("head")
    if model.task(task).is_finished_by_host:
        return _store_residual(b, residual, groups, first)
    x = buffers[0]
    row = b.load_norm("norm", graph.norm)
    for group in groups:
        command = b.layernorm(graph.norm, row, group, residual, x, "norm")
        trace.add("norm", command, _shift(group, first), 0, model.dim)
    source = x
    if head.fc1 is not None and head.activation is not None:
        source = _hidden_layer(b, trace, graph, task, x, groups, first)
    outputs = _output_layer(b, trace, graph, task, source, groups, first)
    linears = [linear for linear in (head.fc1, head.out) if linear is not None]
    tokens = sum(group.count for group in groups)
    phase.macs += tokens * sum(linear.weight.size for linear in linears)
    phase.bytes_read += sum(linear.weight.size + 4 * linear.outputs for linear in linears) + 6 * model.dim
    phase.bytes_written += 2 * tokens * head.out.outputs
    return outputs, _size(outputs)


def _size(parts: list[OutputPart]) -> int:
    """Bytes of all of them, which lie one after the other."""
    return max(part.offset + 2 * part.tokens * part.stride for part in parts)


def _store_residual(b: Builder, residual: Region, groups: list[Group], first: int) -> tuple[list[OutputPart], int]:
    """The residual rows of ``groups``, as they are; nothing is computed."""
    parts: list[OutputPart] = []
    end, stride = 0, residual.stride * b.config.epilogue_lanes
    for group in groups:
        rows = group.count * residual.stride
        b.emit(Store(base=Base.OUTPUT, offset=end, row=residual.row(group.first), rows=rows), "residual")
        parts.append(OutputPart(end, group.first - first, group.count, 0, b.model.dim, stride))
        end = align(end + 2 * group.count * stride)
    b.phases[-1].bytes_written += 2 * sum(group.count for group in groups) * b.model.dim
    return parts, _size(parts)


def _shift(group: Group, first: int) -> Group:
    """The group in rows of the reference's trace, which begin at the first needed token."""
    return Group(group.first - first, group.count)


def _hidden_layer(
    b: Builder, trace: Trace, graph: IntegerGraph, task: str, x: Region, groups: list[Group], first: int
) -> Region:
    head = graph.heads[task]
    assert head.fc1 is not None and head.activation is not None
    name = f"heads.{task}.hidden"
    layout = b.image.add_linear(f"heads.{task}.fc1", head.fc1)
    stride = -(-layout.outputs // b.config.lanes_k)
    base = x.row(b.model.num_tokens)
    hidden = Region(base, stride)
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
        trace.add(name, command, _shift(group, first), chunk.channel, chunk.channels)

    b.stream([Job(layout, emit)], groups)
    return hidden


def _output_layer(
    b: Builder, trace: Trace, graph: IntegerGraph, task: str, source: Region, groups: list[Group], first: int
) -> list[OutputPart]:
    config, name = b.config, f"heads.{task}"
    layout = b.image.add_linear(name, graph.heads[task].out)
    rows = RowAllocator("residual", config.residual_depth)
    parts: list[OutputPart] = []
    end = 0

    def emit(chunk: Chunk, group: Group) -> None:
        nonlocal end
        width = -(-chunk.channels // config.epilogue_lanes)
        limit = max(config.residual_depth // (2 * width), 1)  # tokens at a time, so that STORE overlaps MATMUL
        if chunk.tile == 0 and graph.heads[task].fc1 is not None:
            activation_pass(b, name, chunk, group, source)
        for start in range(group.first, group.first + group.count, limit):
            part = Group(start, min(limit, group.first + group.count - start))
            need = part.count * width
            place = rows.alloc(need, f"{name}: outputs")
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
            trace.add(name, command, _shift(part, first), chunk.channel, chunk.channels)
            b.emit(Store(base=Base.OUTPUT, offset=end, row=place, rows=need), name)
            rows.release(place, need)
            stride = width * config.epilogue_lanes
            parts.append(OutputPart(end, part.first - first, part.count, chunk.channel, chunk.channels, stride))
            end = align(end + 2 * part.count * stride)

    b.stream([Job(layout, emit)], groups)
    return parts
