"""Which command completes which part of which traced tensor."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from edgemoe.compiler.builder import Group
from edgemoe.compiler.commands import Command

__all__ = ["Trace", "TracePart"]


@dataclass(frozen=True)
class TracePart:
    """A part of a traced tensor, readable when ``command`` has completed and before anything overwrites it.

    Rows and strides follow from the command's own fields (``edgemoe_sim.trace.read_part``).

    Attributes:
        tensor: name as in the integer reference
        command: index in the program
        engine, completion: readable when this engine has finished this many commands
        token, tokens: token numbers; ``tokens`` = 0 where the expert's queue decides
        channel, channels: of the tensor, heads padded (``head_pad``)
        head: of scores; -1 elsewhere
        expert: of queues and hidden rows; -1 elsewhere
    """

    tensor: str
    command: int
    engine: int
    completion: int
    token: int
    tokens: int
    channel: int
    channels: int
    head: int = -1
    expert: int = -1

    def to_list(self) -> list[str | int]:
        return list(dataclasses.astuple(self))


class Trace:
    """Collects parts while commands are emitted; command indices are sequential until ``renumber``."""

    def __init__(self) -> None:
        self.parts: list[TracePart] = []

    def add(
        self, tensor: str, command: Command, group: Group, channel: int, channels: int, head: int = -1, expert: int = -1
    ) -> None:
        """Note that ``command`` completes this part of ``tensor``."""
        self.parts.append(
            TracePart(
                tensor,
                command.index,
                int(command.engine),
                command.ordinal + 1,
                group.first,
                group.count,
                channel,
                channels,
                head,
                expert,
            )
        )

    def renumber(self, places: dict[int, int]) -> list[TracePart]:
        """The parts in program order, given each command's place in the program."""
        moved = [dataclasses.replace(part, command=places[part.command]) for part in self.parts]
        return sorted(moved, key=lambda part: part.command)
