"""Lowering of a dense block's second half: the MLP; ``experts`` has the other kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edgemoe.compiler.builder import Builder, Chunk, Job, Phase, Region
from edgemoe.compiler.cuts import Group
from edgemoe.compiler.naive import activation_pass
from edgemoe.compiler.trace import Trace
from edgemoe_hw.spec.isa import MatMul, Mode
from edgemoe_models.graph.integer_graph import IntegerBlock

__all__ = ["MlpPlan", "emit_dense"]


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
    """fc1 + activation, fc2, residual add. ``after(group)`` follows a group's last residual write.

    When the hidden rows of all tokens do not fit, tokens go in parts and the weights are fetched once a part.
    """
    assert block.fc1 is not None and block.fc2 is not None
    fc1, fc2 = (
        b.image.add_linear(f"{name}.{kind}", linear) for kind, linear in (("fc1", block.fc1), ("fc2", block.fc2))
    )
    stride = -(-fc1.outputs // b.config.lanes_k)
    b.load_activation(block.activation, f"{name}.activation")
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
                    activate=True,
                ),
            )
            trace.add(f"{name}.hidden", command, group, chunk.channel, chunk.channels)

        def second(chunk: Chunk, group: Group, hidden: Region = hidden) -> None:
            if chunk.tile == 0:
                activation_pass(b, name, chunk, group, hidden)
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
    phase.macs += sum(group.count for group in groups) * (fc1.macs + fc2.macs)
