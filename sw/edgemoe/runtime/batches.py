"""Frames on their way, and those that lie in an input slot together until the device takes it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from edgemoe.bundle import Joined
from edgemoe.runtime.executor import Measured
from edgemoe.runtime.planner import Step
from edgemoe.runtime.predictions import Prediction
from edgemoe_models.model_image import ModelImage

__all__ = ["Batch", "Output", "Progress", "Work"]


@dataclass
class Work:
    """A frame on its way: ``number``, what is known of it so far, and the first ``error``.

    ``begin``: when it arrived; ``latency``: seconds until it was ready; ``device``, ``host``: seconds spent on it, of a
    program of several frames an even share; ``unpaid``: host seconds that count with its next prediction; ``is_last``:
    the source has ended with it.
    """

    number: int
    frame: Any = None
    begin: float = 0.0
    tasks: tuple[str, ...] = ()
    image: ModelImage | None = None
    error: BaseException | None = None
    predictions: dict[str, Prediction] = field(default_factory=dict)
    latency: float = 0.0
    device: float = 0.0
    host: float = 0.0
    unpaid: float = 0.0
    is_last: bool = False


class Batch:
    """Frames of the same tasks in one input slot, in the order in which they arrived.

    The source may add frames until the device takes it. Whatever it packs into a free place meanwhile disturbs nobody.

    Args:
        slot: the input slot
        tasks: of every frame
        most: frames that it may have

    Attributes:
        slot, tasks: as above
        works: all frames; one that has failed before has no place in the slot
        packed: those that have: the frame in each place
    """

    def __init__(self, slot: int, tasks: tuple[str, ...], most: int) -> None:
        self.slot, self.tasks, self._most = slot, tasks, most
        self.works: list[Work] = []
        self.packed: list[Work] = []
        self._lock, self._is_taken = threading.Lock(), False

    @property
    def is_open(self) -> bool:
        """Whether a frame could be added now."""
        with self._lock:
            return self._has_room()

    def _has_room(self) -> bool:
        return not self._is_taken and len(self.works) < self._most

    def add(self, work: Work) -> bool:
        """Add a frame, which was packed into the next place unless it has failed; False: it is too late."""
        with self._lock:
            if not self._has_room():
                return False
            self.works.append(work)
            if work.error is None:
                self.packed.append(work)
            return True

    def take(self) -> None:
        """Nothing is added any more."""
        with self._lock:
            self._is_taken = True


@dataclass(frozen=True)
class Output:
    """A step's outputs in an output slot, of the frames ``works``; without ``measured`` the end of its only frame."""

    works: tuple[Work, ...]
    joined: Joined = Joined(())
    slot: int = -1
    measured: Measured | None = None


class Progress:
    """Which frames of a batch are finished: in their order, each as soon as all of its steps have been.

    Args:
        works: all of the batch
        steps: those that are to be run, by the place of a frame among ``packed``
        packed: the frames that have a place
    """

    def __init__(self, works: list[Work], steps: list[Step], packed: list[Work]) -> None:
        self._waiting = deque(works)
        self._left = {id(work): 0 for work in works}
        self._packed = packed
        for step in steps:
            for place in step.images:
                self._left[id(packed[place])] += 1

    def done(self, step: Step) -> None:
        """A step has been run, or given up."""
        for place in step.images:
            self._left[id(self._packed[place])] -= 1

    def finished(self) -> Iterator[Work]:
        """The frames that are finished now and were not before."""
        while self._waiting and not self._left[id(self._waiting[0])]:
            yield self._waiting.popleft()
