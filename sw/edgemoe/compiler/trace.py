"""Which command completes which part of which traced tensor."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from edgemoe.compiler.commands import Command
from edgemoe.compiler.cuts import Group

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
        sequence: whose tensor it is; queues and experts' hidden rows are those of all sequences up to this one
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
    sequence: int = 0

    def to_list(self) -> list[str | int]:
        return list(dataclasses.astuple(self))


class Trace:
    """Collects parts while commands are emitted; command indices are sequential until ``renumber``.

    Args:
        tokens: of one sequence
    """

    def __init__(self, tokens: int) -> None:
        self.parts: list[TracePart] = []
        self._tokens = tokens

    def add(
        self,
        tensor: str,
        command: Command,
        group: Group,
        channel: int,
        channels: int,
        *,
        head: int = -1,
        expert: int = -1,
        first: int = 0,
        sequence: int | None = None,
    ) -> None:
        """Note that ``command`` completes this part of ``tensor``, of the sequence in whose place the group lies.

        ``first``: the sequence's token that is the tensor's first row; ``sequence``: where several share the place.
        """
        place, token = divmod(group.first, self._tokens)
        whose = place if sequence is None else sequence
        self._add(tensor, command, (token - first, group.count), (channel, channels), head, expert, whose)

    def add_queued(
        self, tensor: str, command: Command, tokens: int, channel: int, channels: int, expert: int, sequence: int
    ) -> None:
        """Note that ``command`` completes what ``tensor`` has of the queued tokens of all sequences up to this one."""
        self._add(tensor, command, (0, tokens), (channel, channels), -1, expert, sequence)

    def _add(
        self,
        tensor: str,
        command: Command,
        tokens: tuple[int, int],
        channels: tuple[int, int],
        head: int,
        expert: int,
        sequence: int,
    ) -> None:
        done = (command.index, int(command.engine), command.ordinal + 1)
        self.parts.append(TracePart(tensor, *done, *tokens, *channels, head, expert, sequence))

    def renumber(self, places: dict[int, int]) -> list[TracePart]:
        """The parts in program order, given each command's place in the program."""
        moved = [dataclasses.replace(part, command=places[part.command]) for part in self.parts]
        return sorted(moved, key=lambda part: part.command)
