"""Lowering of a block's second half: the dense MLP, or the gate and the experts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from edgemoe.compiler.builder import Builder, Chunk, Group, Job, Phase, Region
from edgemoe.compiler.commands import Command
from edgemoe.compiler.naive import gelu_pass, split_groups
from edgemoe.compiler.trace import Trace
from edgemoe_hw.spec.isa import MatMul, Mode, RowFactor
from edgemoe_hw.spec.timing import gate_interval
from edgemoe_models.graph.integer_graph import IntegerBlock, IntegerLinear

__all__ = ["MlpPlan", "emit_dense", "emit_experts"]


@dataclass(frozen=True)
class MlpPlan:
    """Where the second half of a block works.

    ``x``: LayerNorm's output, ``residual``: the residual stream, ``hidden_row`` .. ``hidden_row + hidden_rows - 1``:
    activation rows that hidden layers may use.
    """

    x: Region
    residual: Region
    hidden_row: int
    hidden_rows: int


def _token_parts(groups: list[Group], rows_per_token: int, available: int) -> list[list[Group]]:
    """Groups in as few, balanced parts as let each part's hidden rows fit."""
    for count in range(1, len(groups) + 1):
        cuts = [round(i * len(groups) / count) for i in range(count + 1)]
        parts = [groups[start:stop] for start, stop in zip(cuts, cuts[1:], strict=False)]
        if all(sum(group.count for group in part) * rows_per_token <= available for part in parts):
            return parts
    raise AssertionError("single groups fit")


def emit_dense(
    b: Builder,
    trace: Trace,
    name: str,
    block: IntegerBlock,
    plan: MlpPlan,
    groups: list[Group],
    after: Callable[[Group], None] | None,
    phase: Phase,
) -> None:
    """fc1 + GELU, fc2, residual add. ``after(group)`` follows a group's last residual write.

    When the hidden rows of all tokens do not fit, tokens go in parts and the weights are fetched once a part.
    """
    assert block.fc1 is not None and block.fc2 is not None
    fc1, fc2 = (
        b.image.add_linear(f"{name}.{kind}", linear) for kind, linear in (("fc1", block.fc1), ("fc2", block.fc2))
    )
    stride = -(-fc1.outputs // b.config.lanes_k)
    b.load_gelu(block.gelu, f"{name}.gelu")
    for part in _token_parts(groups, stride, plan.hidden_rows):
        hidden = Region(plan.hidden_row - part[0].first * stride, stride)

        def first(chunk: Chunk, group: Group, hidden: Region = hidden) -> None:
            command = b.matmul(
                chunk,
                group,
                f"{name}.fc1",
                MatMul(
                    src_base=plan.x.row(group.first),
                    src_stride=plan.x.stride,
                    dst_base=hidden.row(group.first),
                    dst_stride=stride,
                    dst_channel=chunk.channel,
                    gelu=True,
                    gelu_shift=block.gelu.shift,
                ),
            )
            trace.add(f"{name}.hidden", command, group, chunk.channel, chunk.channels)

        def second(chunk: Chunk, group: Group, hidden: Region = hidden) -> None:
            if chunk.tile == 0:
                gelu_pass(b, name, chunk, group, hidden)
            command = b.matmul(
                chunk,
                group,
                f"{name}.fc2",
                MatMul(
                    src_base=hidden.row(group.first),
                    src_stride=stride,
                    mode=Mode.RESIDUAL,
                    accumulate=True,
                    dst_base=plan.residual.row(group.first),
                    dst_stride=plan.residual.stride,
                    dst_channel=chunk.channel,
                ),
            )
            trace.add(f"{name}.residual2", command, group, chunk.channel, chunk.channels)

        b.stream([Job(fc1, first)], part)
        b.stream([Job(fc2, second)], part, after)
    phase.macs += b.model.num_tokens * (fc1.macs + fc2.macs)


def _emit_gate(
    b: Builder, trace: Trace, name: str, gate: IntegerLinear, task: str, x: Region, groups: list[Group]
) -> Iterator[bool]:
    """Gate logits, top-k and the expert queues, one group after the other.

    Yields when experts may work on the queues, and whether no token comes after: once, or every ``moe_group`` tokens.
    """
    layout = b.image.add_linear(f"{name}.gate.{task}", gate)
    interval = gate_interval(b.config, b.model.num_experts, b.model.top_k)
    gap = max(1, b.config.epilogue_cycles, -(-interval // layout.tiles))

    def emit(chunk: Chunk, group: Group, clear: bool) -> Command:
        return b.matmul(
            chunk,
            group,
            f"{name}.gate",
            MatMul(
                src_base=x.row(group.first),
                src_stride=x.stride,
                mode=Mode.GATE,
                min_gap=gap,
                max_base=group.first,
                num_experts=b.model.num_experts,
                top_k=b.model.top_k,
                gate_first=clear,
            ),
        )

    def emit_traced(chunk: Chunk, group: Group) -> None:
        command = emit(chunk, group, group == groups[0])
        if group == groups[-1]:
            every = Group(0, b.model.num_tokens)
            for expert in range(b.model.num_experts):
                trace.add(f"{name}.queues", command, every, 0, 1, expert=expert)
                trace.add(f"{name}.gate_scores", command, every, 0, 1, expert=expert)

    if not b.options.moe_group:
        b.stream([Job(layout, emit_traced, layout.tiles)], groups)
        yield True
        return
    rows = b.weights.alloc(layout.tiles * layout.tile_rows, layout.name)
    resident = b.load_chunk(layout, 0, layout.tiles, rows)
    for group in split_groups(b.model.num_tokens, b.options.moe_group):
        emit(resident, group, clear=True)
        yield group.first + group.count == b.model.num_tokens
    b.release_chunk(resident)


def emit_experts(
    b: Builder,
    trace: Trace,
    name: str,
    block: IntegerBlock,
    task: str,
    plan: MlpPlan,
    groups: list[Group],
    phase: Phase,
    preload: Sequence[Callable[[], object]],
) -> None:
    """The gate, then every expert with a queue: fetched once, its tokens gathered, scaled and scattered.

    ``preload`` fetches what the next block starts with: experts wait for the gate, and memory has nothing else to do.
    """
    fetches = list(preload)
    for final in _emit_gate(b, trace, name, block.gates[task], task, plan.x, groups):
        while fetches:
            fetches.pop(0)()
        b.load_gelu(block.gelu, f"{name}.gelu")
        _emit_queued(b, trace, name, block, plan, final)
    fc1, fc2 = block.expert_fc1[0], block.expert_fc2[0]  # all have one shape
    phase.expert_macs = fc1.weight.size + fc2.weight.size
    phase.expert_bytes = -(-phase.expert_macs * b.expert_bits // 8) + 4 * (fc1.outputs + fc2.outputs)
    gate = block.gates[task]
    phase.macs += b.model.num_tokens * gate.weight.size
    phase.bytes_read += gate.weight.size + 4 * gate.outputs


def _emit_queued(b: Builder, trace: Trace, name: str, block: IntegerBlock, plan: MlpPlan, final: bool) -> None:
    """All experts for the tokens in their queues; ``final`` when the block's residual stream is complete afterwards."""
    stride = -(-b.model.expert_hidden // b.config.lanes_k)
    need = b.model.num_tokens * stride
    slots = min(plan.hidden_rows // need, 2)
    every = Group(0, b.model.num_tokens)  # whichever they are
    for number, pair in enumerate(zip(block.expert_fc1, block.expert_fc2, strict=True)):
        hidden = plan.hidden_row + number % slots * need
        label, last = f"{name}.experts.{number}", final and number == b.model.num_experts - 1
        fc1, fc2 = (
            b.image.add_linear(f"{label}.{kind}", linear, bits=b.expert_bits)
            for kind, linear in zip(("fc1", "fc2"), pair, strict=True)
        )

        def first(chunk: Chunk, group: Group, hidden: int = hidden, number: int = number, label: str = label) -> None:
            command = b.matmul(
                chunk,
                group,
                f"{label}.fc1",
                MatMul(
                    use_queue=True,
                    gather=True,
                    src_base=plan.x.base,
                    src_stride=plan.x.stride,
                    dst_base=hidden,
                    dst_stride=stride,
                    dst_channel=chunk.channel,
                    gelu=True,
                    gelu_shift=block.gelu.shift,
                ),
            )
            if not b.options.moe_group:  # the reference's hidden rows are those of a whole queue
                trace.add(f"{label}.hidden", command, group, chunk.channel, chunk.channels, expert=number)

        def second(chunk: Chunk, group: Group, hidden: int = hidden, label: str = label, last: bool = last) -> None:
            if chunk.tile == 0:
                gelu_pass(b, label, chunk, group, Region(hidden, stride), queued=True)
            command = b.matmul(
                chunk,
                group,
                f"{label}.fc2",
                MatMul(
                    use_queue=True,
                    scatter=True,
                    src_base=hidden,
                    src_stride=stride,
                    mode=Mode.RESIDUAL,
                    accumulate=True,
                    row_factor=RowFactor.GATE,
                    dst_base=plan.residual.base,
                    dst_stride=plan.residual.stride,
                    dst_channel=chunk.channel,
                ),
            )
            if last:
                trace.add(f"{name}.residual2", command, group, chunk.channel, chunk.channels)

        b.expert = number
        b.stream([Job(fc1, first), Job(fc2, second)], [every])
        b.expert = None
