"""A stream as its consumer sees it: an iterator of finished frames, in order."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from edgemoe.bundle import Bundle
from edgemoe.errors import DeviceError
from edgemoe.runtime.channel import Closed
from edgemoe.runtime.pipeline import Pipeline
from edgemoe.runtime.predictions import Prediction
from edgemoe.runtime.statistics import StreamStats
from edgemoe_models.model_image import ModelImage

__all__ = ["Frame", "FrameError", "Stream", "TaskSource", "task_lists"]

Tasks: TypeAlias = "str | Iterable[str]"
TaskSource: TypeAlias = "Tasks | Iterable[Tasks] | Callable[[int], Tasks] | None"


class FrameError(DeviceError):
    """A frame of a stream failed; ``__cause__`` is what happened.

    Attributes:
        frame: its number in the source, from 0
    """

    def __init__(self, frame: int, error: BaseException) -> None:
        super().__init__(f"frame {frame}: {error}")
        self.frame = frame


@dataclass(frozen=True, eq=False)
class Frame:
    """A finished frame.

    Attributes:
        number: its place in the source, from 0
        image: as the model got it, uint8 [H, W, 3]; None when there was none
        predictions: by task, in the order of the frame's tasks; ``frame["depth"]`` is one of them
        latency_s: seconds from its arrival until all its predictions were ready
        error: what went wrong, where the stream was asked to go on
    """

    number: int
    image: ModelImage | None = field(repr=False)
    predictions: Mapping[str, Prediction]
    latency_s: float
    error: BaseException | None = None

    def __getitem__(self, task: str) -> Prediction:
        return self.predictions[task]


class Stream(Iterator[Frame]):
    """Iterates over finished frames; ends its threads when it is exhausted, closed, dropped or interrupted.

    Raises:
        FrameError (while iterating): a frame failed; all before it have been yielded
    """

    def __init__(self, pipeline: Pipeline, go_on: bool) -> None:
        self._pipeline, self._go_on = pipeline, go_on

    @property
    def stats(self) -> StreamStats:
        """Latency and throughput so far."""
        return self._pipeline.meter.stats()

    def __next__(self) -> Frame:
        try:
            work = self._pipeline.ready.get()
        except Closed:
            self.close()  # somebody else has begun to: when this returns, the accelerator is free
            if (failure := self._pipeline.failure) is not None:
                raise DeviceError(f"the stream broke off: {type(failure).__name__}: {failure}") from failure
            raise StopIteration from None
        except BaseException:  # the user's interrupt, while waiting
            self.close()
            raise
        if work is None or (work.error is not None and not self._go_on):
            self.close()
            if work is None or work.error is None:
                raise StopIteration
            raise FrameError(work.number, work.error) from work.error
        return Frame(work.number, work.image, work.predictions, work.latency, work.error)

    def close(self) -> None:
        """End the threads; what is not finished is given up. A second call does nothing."""
        self._pipeline.close()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self._pipeline.drop()


def task_lists(bundle: Bundle, tasks: TaskSource) -> Iterator[tuple[str, ...]]:
    """Each frame's tasks.

    Args:
        tasks: a task, or a list of tasks, for every frame; a function of the frame's number; any other iterable has
            each frame's in turn; None: all tasks of the bundle

    Raises:
        BundleError: there is no such task; at once where that is known
        ValueError: no task is named
    """
    if tasks is None:
        tasks = list(bundle.tasks)
    if isinstance(tasks, str) or (isinstance(tasks, (list, tuple)) and all(isinstance(name, str) for name in tasks)):
        return itertools.repeat(_checked(bundle, tasks))
    if callable(tasks):
        tasks = map(tasks, itertools.count())
    if not isinstance(tasks, Iterable):
        raise ValueError(f"tasks must be a name, a list, a function or an iterable, not {tasks!r}")
    return map(functools.partial(_checked, bundle), tasks)  # unlike a generator, it goes on after an exception


def _checked(bundle: Bundle, tasks: Tasks) -> tuple[str, ...]:
    names = [tasks] if isinstance(tasks, str) or not isinstance(tasks, Iterable) else list(tasks)
    if not all(isinstance(name, str) for name in names):
        raise ValueError(f"a frame's tasks must be a name or a list of names, not {tasks!r}")
    if not names:
        raise ValueError(f"a frame needs at least one task of {', '.join(bundle.tasks)}")
    return tuple(bundle.task(name).name for name in dict.fromkeys(names))
