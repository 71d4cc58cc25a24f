"""Three threads that overlap: the host prepares frame n + 1 and interprets n - 1 while the device runs n.

Each hands its work to the next through a bounded channel:

    source:   wait for a free input slot; frame -> prepare -> pack into it
    device:   for each task, run into a free output slot; then the input slot is free again
    results:  unpack, so that the output slot is free again, and interpret; the frame is ready for the consumer

Each keeps the order, so frames come out as they went in. An exception travels with its frame.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from edgemoe.runtime.channel import Channel, Closed
from edgemoe.runtime.executor import Executor, Measured
from edgemoe.runtime.predictions import Prediction, interpret
from edgemoe.runtime.statistics import Meter
from edgemoe_models.model_image import ModelImage

__all__ = ["Pipeline", "Work"]

_JOIN_SECONDS = 2.0  # for a source that does not return: its thread ends when it does


@dataclass
class Work:
    """A frame on its way: ``number``, what is known of it so far, and the first ``error``.

    ``begin``: when it arrived; ``latency``: seconds until it was ready; ``device``, ``host``: seconds spent on it;
    ``unpaid``: host seconds that count with its next prediction; ``is_last``: the source has ended with it.
    """

    number: int
    slot: int
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


@dataclass(frozen=True)
class _Output:
    """One task's outputs in an output slot; without ``measured`` the end of the frame."""

    work: Work
    task: str = ""
    slot: int = -1
    measured: Measured | None = None


class Pipeline:
    """The threads and channels of one stream.

    Args:
        executor: runs the programs; its ``depth`` bounds the frames that are on their way
        frames: the source; ``close`` is called on it at the end, in the thread that reads it
        tasks: each frame's tasks, beside it
        prepare: makes an image of the model's size of a frame
        go_on: whether frames after a failed one are of interest
        ended: called once, when everything has ended

    Attributes:
        ready: finished frames, then None
        meter: figures of the finished frames
        failure: what ended a thread before its time; None: nothing
    """

    def __init__(
        self,
        executor: Executor,
        frames: Iterator[object],
        tasks: Iterator[tuple[str, ...]],
        prepare: Callable[[object], ModelImage],
        go_on: bool,
        ended: Callable[[], None],
    ) -> None:
        self._executor, self._frames, self._tasks, self._prepare = executor, frames, tasks, prepare
        self._go_on, self._ended = go_on, ended
        depth = executor.depth
        self._inputs, self._outputs = _slots(depth), _slots(depth)
        self._packed: Channel[Work | None] = Channel(depth)
        self._computed: Channel[_Output | None] = Channel(depth)
        self.ready: Channel[Work | None] = Channel(depth)
        self.meter = Meter(executor.power)
        self._stop = threading.Event()
        self._close_lock, self._has_ended = threading.RLock(), False
        self.failure: BaseException | None = None
        self._threads = [
            threading.Thread(
                target=self._until_closed, args=(stage,), daemon=True, name=f"edgemoe {stage.__name__.strip('_')}"
            )
            for stage in (self._source, self._device, self._results)
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Give up what is not finished and end the threads. A second call waits for the first, and finishes what that
        could not, because the user interrupted it."""
        self._stop_all()
        with self._close_lock:
            if self._has_ended:
                return
            source, *others = self._threads
            for thread, seconds in ((source, _JOIN_SECONDS), *((thread, None) for thread in others)):
                if thread is not threading.current_thread():  # a source may close its own stream
                    thread.join(seconds)
            self.meter.close()
            self._has_ended = True
            self._ended()

    def drop(self) -> None:
        """``close``, in whatever thread the garbage collector runs: its own threads cannot wait for each other."""
        if threading.current_thread() in self._threads:
            threading.Thread(target=self.close, name="edgemoe close", daemon=True).start()
        else:
            self.close()

    def _stop_all(self) -> None:
        self._stop.set()
        for channel in (self._inputs, self._outputs, self._packed, self._computed, self.ready):
            channel.close()

    def _until_closed(self, stage: Callable[[], None]) -> None:
        try:
            stage()
        except Closed:
            pass
        except BaseException as error:  # the consumer must not wait for ever
            self.failure = error
            self._stop_all()

    # Source

    def _source(self) -> None:
        try:
            number = 0
            while (work := self._arrival(number, self._inputs.get())) is not None:
                if self._stop.is_set():  # perhaps long ago: the slots may be gone
                    raise Closed
                if work.error is None:
                    self._pack(work)
                self._packed.put(work)
                if work.is_last or (work.error is not None and not self._go_on):
                    break
                number += 1
            self._packed.put(None)
        finally:
            with contextlib.suppress(Exception):
                if hasattr(self._frames, "close"):
                    self._frames.close()

    def _arrival(self, number: int, slot: int) -> Work | None:
        """The next frame with its tasks; None at the source's end. It is asked for only when there is room for it, so
        that a camera's frames are no older than they must be."""
        work = Work(number, slot)
        try:
            work.frame = next(self._frames)
            work.begin = time.perf_counter()
            work.tasks = next(self._tasks)
        except StopIteration:
            if not work.begin:
                return None
            work.error, work.is_last = ValueError("there are no tasks for it: they ended before the frames"), True
            return work
        except BaseException as error:  # the source's own sys.exit() too: the consumer must hear of it
            work.error, work.is_last = error, not work.begin  # whether a failed source could go on is not known
            work.begin = work.begin or time.perf_counter()
        return work

    def _pack(self, work: Work) -> None:
        try:
            work.image = self._prepare(work.frame)
            self._executor.pack(work.slot, work.image)
        except BaseException as error:  # somebody's sys.exit() too: the frame has failed, not the thread
            work.error = error
        work.unpaid = time.perf_counter() - work.begin

    # Device

    def _device(self) -> None:
        while (work := self._packed.get()) is not None:
            for task in work.tasks:
                if work.error is not None:
                    break
                self._compute(work, task)
            self._inputs.put(work.slot)
            self._computed.put(_Output(work))
        self._computed.put(None)

    def _compute(self, work: Work, task: str) -> None:
        target = self._outputs.get()
        try:
            measured = self._executor.execute(task, work.slot, target, self._stop)
        except BaseException as error:
            work.error = error
            self._outputs.put(target)
            return
        work.device += measured.wall_seconds
        self._computed.put(_Output(work, task, target, measured))

    # Results

    def _results(self) -> None:
        while (output := self._computed.get()) is not None:
            if output.measured is not None:
                self._interpret(output, output.measured)
                continue
            work = output.work
            work.latency = time.perf_counter() - work.begin
            self.meter.add(work.latency, len(work.predictions), work.device, work.host, work.error is not None)
            self.ready.put(work)
        self.ready.put(None)

    def _interpret(self, output: _Output, measured: Measured) -> None:
        work, begin = output.work, time.perf_counter()
        try:
            raw = self._executor.unpack(output.task, output.slot)
            self._outputs.put(output.slot)
            spent, work.unpaid = work.unpaid + time.perf_counter() - begin, 0.0
            prediction = interpret(self._executor.bundle, output.task, raw, measured, spent)
            work.predictions[output.task] = prediction
            work.host += prediction.stats.host_seconds
        except Closed:
            raise
        except BaseException as error:
            work.error = work.error or error


def _slots(depth: int) -> Channel[int]:
    slots: Channel[int] = Channel(depth)
    for slot in range(depth):
        slots.put(slot)
    return slots
