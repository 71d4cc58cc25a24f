"""Which programs compute the wanted tasks of the wanted images in as few cycles as the bundle's programs allow."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

from edgemoe.bundle import Bundle, Joined, Joint, Task

__all__ = ["Chunk", "Plan", "Planner", "Step"]


@dataclass(frozen=True)
class Step:
    """One program to run: ``joined`` of the images from ``first`` on; ``cycles``: the compiler's estimate."""

    joined: Joined
    first: int
    cycles: int

    @property
    def program(self) -> str | Joined:
        """By which an executor knows the program."""
        return self.joined.key

    @property
    def images(self) -> range:
        """Which images it is of."""
        return range(self.first, self.first + self.joined.images)


@dataclass(frozen=True)
class Chunk:
    """Images that lie in an input slot together: ``images`` of them from ``first`` on, and the steps for these."""

    first: int
    images: int
    steps: tuple[Step, ...]

    @property
    def cycles(self) -> int:
        """Estimated, of all steps."""
        return sum(step.cycles for step in self.steps)


@dataclass(frozen=True)
class Plan:
    """Chunks that cover every wanted task of every wanted image once, in the order of the images."""

    chunks: tuple[Chunk, ...]

    @property
    def steps(self) -> list[Step]:
        """Those of all chunks."""
        return [step for chunk in self.chunks for step in chunk.steps]

    @property
    def cycles(self) -> int:
        """Estimated, of all steps."""
        return sum(chunk.cycles for chunk in self.chunks)


class Planner:
    """Plans for one bundle. Nothing is run or changed; asking again costs nothing.

    Args:
        bundle: whose programs there are
    """

    def __init__(self, bundle: Bundle) -> None:
        self._order = {name: number for number, name in enumerate(bundle.tasks)}
        programs: list[Task | Joint] = [*bundle.tasks.values(), *bundle.joint]
        self._cycles: dict[Joined, int] = {program.joined: program.estimated_cycles for program in programs}
        self._most = bundle.most_images
        self._plan_once = functools.lru_cache(maxsize=256)(self._plan)
        self._most_once = functools.lru_cache(maxsize=256)(self._most_images)

    def plan(self, tasks: tuple[str, ...], images: int = 1) -> Plan:
        """The plan with the fewest estimated cycles; of equal ones, that with the fewest programs.

        Args:
            tasks: of the bundle, each once
            images: at least 1
        """
        return self._plan_once(tasks, images)

    def most_images(self, tasks: tuple[str, ...]) -> int:
        """Images that are worth running together: of the largest batch that saves cycles; 1 where there is none."""
        return self._most_once(tasks)

    def _plan(self, tasks: tuple[str, ...], images: int) -> Plan:
        covers = [self._cover(tasks, count) for count in range(1, min(images, self._most) + 1)]
        best: list[tuple[tuple[int, int], int]] = [((0, 0), 0)]  # of so many images: cost, and images of the last chunk
        for count in range(1, images + 1):
            ends = range(1, min(count, self._most) + 1)
            best.append(min((_sum(best[count - last][0], _cost(covers[last - 1])), -last) for last in ends))
        sizes: list[int] = []
        while images:
            sizes.insert(0, -best[images][1])
            images -= sizes[0]
        chunks, first = [], 0
        for size in sizes:
            steps = (Step(step.joined, first + step.first, step.cycles) for step in covers[size - 1])
            chunks.append(Chunk(first, size, tuple(steps)))
            first += size
        return Plan(tuple(chunks))

    def _most_images(self, tasks: tuple[str, ...]) -> int:
        alone = self.plan(tasks, 1).cycles
        worth = [count for count in range(2, self._most + 1) if self.plan(tasks, count).cycles < count * alone]
        return max((count for count in worth if len(self.plan(tasks, count).chunks) == 1), default=1)

    def _cover(self, tasks: Sequence[str], images: int) -> tuple[Step, ...]:
        """The cheapest steps for all of ``images`` images in one slot.

        The tasks are parted into sets that have programs, and each set's images into such programs' numbers of them.
        """
        sets: dict[frozenset[str], tuple[Step, ...]] = {}
        for joined in self._cycles:
            key = frozenset(joined.tasks)
            if key <= set(tasks) and key not in sets and (steps := self._in_a_row(key, images)):
                sets[key] = steps

        @functools.cache
        def cheapest(rest: frozenset[str]) -> tuple[Step, ...]:
            if not rest:
                return ()
            first = min(rest, key=self._order.__getitem__)
            fitting = [key for key in sets if first in key and key <= rest]
            return min((sets[key] + cheapest(rest - key) for key in fitting), key=_cost)

        return cheapest(frozenset(tasks))

    def _in_a_row(self, tasks: frozenset[str], images: int) -> tuple[Step, ...]:
        """The cheapest steps for exactly these tasks, the images one after the other; none where there are none."""
        programs = [joined for joined in self._cycles if frozenset(joined.tasks) == tasks]
        best: list[tuple[Step, ...] | None] = [()]
        for count in range(1, images + 1):
            found = []
            for joined in programs:
                before = best[count - joined.images] if joined.images <= count else None
                if before is not None:
                    found.append((*before, Step(joined, count - joined.images, self._cycles[joined])))
            best.append(min(found, key=_cost, default=None))
        return best[images] or ()


def _cost(steps: Sequence[Step]) -> tuple[int, int]:
    return sum(step.cycles for step in steps), len(steps)


def _sum(one: tuple[int, int], other: tuple[int, int]) -> tuple[int, int]:
    return one[0] + other[0], one[1] + other[1]
