"""The forms that techniques of Edge-MoE replace, for ``edgemoe ablation``: they cost what they would, and stay exact.

Extra passes are MATMULs without valid channels: they read their operands like any other and write nothing. Operands
that a naive order would fetch again are fetched, beside the ones that are used.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgemoe.compiler.builder import Builder, Chunk, Region
from edgemoe.compiler.commands import Command
from edgemoe.compiler.cuts import Group
from edgemoe_hw.spec.isa import Engine, MatMul

__all__ = ["Refetch", "activation_pass", "softmax_passes"]

_SLOTS = 2


def _pass(b: Builder, label: str, operands: MatMul) -> None:
    """Read ``tokens`` rows of ``k_steps`` once, ``lanes_k`` values a cycle."""
    b.emit_matmul(label, replace(operands, tiles=1, channels=0, param_uniform=True))


def activation_pass(b: Builder, label: str, chunk: Chunk, group: Group, source: Region, queued: bool = False) -> None:
    """A pass over the hidden rows that ``chunk`` takes, as an activation needs that is no part of the epilogue."""
    if b.options.fused_activation:
        return
    operands = MatMul(
        use_queue=queued,
        src_base=source.row(group.first),
        src_stride=source.stride,
        k_steps=chunk.layout.k_steps,
        tokens=group.count,
        weight_base=chunk.weight_row,
        nibbles=chunk.layout.nibbles,
    )
    _pass(b, f"{label}.activation pass", operands)


def softmax_passes(b: Builder, label: str, operands: MatMul) -> None:
    """The passes over a group's scores that find the maxima and the sums of the exponentials."""
    if not b.options.single_pass_softmax:
        for what in ("maximum", "sum"):
            _pass(b, f"{label}.{what} pass", operands)


class Refetch:
    """Fetches a head's keys or values again for each group of queries.

    The rows go to a part of the weight scratchpad that nothing else reads, in two slots where there is room; the
    group's MATMUL waits for them, and the next LOAD of a slot for that MATMUL. What is multiplied are the rows on chip.

    Args:
        rows: of the larger one of a head's keys and values
    """

    def __init__(self, builder: Builder, rows: int) -> None:
        self.b, self.rows = builder, rows
        self.slots = min(_SLOTS, max(builder.weights.longest_free() // rows, 1))
        zeros = np.zeros((rows, builder.config.row_bytes["WEIGHT"]), np.uint8)
        self.source = builder.image.add_rows(f"refetched.{rows}", "WEIGHT", zeros)
        self.base = builder.weights.alloc(self.slots * rows, "keys and values fetched again")
        self.users: list[Command] = []

    def fetch(self, rows: int, label: str) -> Command:
        """LOAD ``rows`` rows; the following ``used_by`` names who waits for them."""
        slot = len(self.users) % self.slots
        command = self.b.load(self.source, 0, rows, self.base + slot * self.rows, label)
        if len(self.users) >= self.slots:
            user = self.users[-self.slots]
            command.waits[Engine.MATMUL] = max(command.waits[Engine.MATMUL], user.ordinal + 1)
        return command

    def used_by(self, command: Command, fetched: Command) -> None:
        """``command`` starts when ``fetched`` has finished."""
        command.waits[Engine.LOAD] = max(command.waits[Engine.LOAD], fetched.ordinal + 1)
        self.users.append(command)

    def release(self) -> None:
        """Give the rows back."""
        self.b.weights.release(self.base, self.slots * self.rows)
