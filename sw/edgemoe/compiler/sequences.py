"""The token sequences of a program: one for every task of every image, computed side by side.

Everything before the first gate is the same for all tasks of an image; it is computed once, in the place of the
image's first sequence. Places are runs of ``tokens`` rows in every memory that has rows of tokens, one after the other,
so that a token's number in the program is ``place * tokens`` and its number in its sequence: expert queues, gathered
and scattered rows need nothing else to tell sequences apart.
"""

from __future__ import annotations

from collections.abc import Iterable

from edgemoe.bundle import Joined
from edgemoe.compiler.cuts import Group, balanced_groups
from edgemoe_models.config import ModelConfig

__all__ = ["TokenSequences"]


class TokenSequences:
    """The sequences of a program, task by task: of each task, one for every image.

    Args:
        model: the network
        joined: which tasks of how many images
        group_tokens: most tokens of one group (``CompilerOptions``)

    Attributes:
        tokens: of one sequence
        members: all of them, by place; without gates the tasks of an image share its place
        places: how many places there are
    """

    def __init__(self, model: ModelConfig, joined: Joined, group_tokens: int) -> None:
        self.joined, self.tokens = joined, model.num_tokens
        self.images, self.tasks = joined.images, joined.tasks
        self.members = joined.sequences
        self.forks = model.num_experts > 0 and any(model.is_moe(block) for block in range(model.depth))
        self.places = len(self.members) if self.forks else self.images
        self._groups = balanced_groups(model.num_tokens, group_tokens)

    @property
    def trunk(self) -> range:
        """The places in which everything before the first gate is computed: one for each image."""
        return range(self.images)

    @property
    def all_tokens(self) -> int:
        """Of all places."""
        return self.places * self.tokens

    def place(self, member: int) -> int:
        """The place of a sequence."""
        return member if self.forks else member % self.images

    def of_task(self, task: str) -> range:
        """The sequences of a task."""
        first = self.tasks.index(task) * self.images
        return range(first, first + self.images)

    def groups(self, place: int) -> list[Group]:
        """The groups of a place, with tokens numbered over all places."""
        return [Group(place * self.tokens + group.first, group.count) for group in self._groups]

    def all_groups(self, places: Iterable[int]) -> list[Group]:
        """The groups of several places, one place after the other."""
        return [group for place in places for group in self.groups(place)]

    def trunk_group(self, group: Group) -> Group:
        """The tokens of a group's own image in the trunk."""
        place, first = divmod(group.first, self.tokens)
        return Group(place % self.images * self.tokens + first, group.count)
