"""Three threads that overlap: the host prepares frame n + 1 and interprets n - 1 while the device runs n.

Each hands its work to the next through a bounded channel:

    source:   wait for a place in an input slot; frame -> prepare -> pack into it
    device:   for each step of the frames' plan, run into a free output slot; then the input slot is free again
    results:  unpack, so that the output slot is free again, and interpret; the frame is ready for the consumer

Each keeps the order, so frames come out as they went in. An exception travels with its frame.

Where the bundle has programs of several images, a slot has room for several frames of the same tasks. The first of them
goes to the device at once; those that arrive while the device is busy join the one that waits. So a batch is as large
as the device is late, and no frame ever waits for another one to come.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from collections.abc import Callable, Iterator

from edgemoe.runtime.batches import Batch, Output, Progress, Work
from edgemoe.runtime.channel import Channel, Closed
from edgemoe.runtime.executor import Executor, Measured
from edgemoe.runtime.planner import Planner, Step
from edgemoe.runtime.predictions import interpret
from edgemoe.runtime.statistics import Meter
from edgemoe_models.model_image import ModelImage

__all__ = ["Pipeline"]

_JOIN_SECONDS = 2.0  # for a source that does not return: its thread ends when it does


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
        self._go_on, self._ended, self._planner = go_on, ended, Planner(executor.bundle)
        depth = executor.depth
        self._inputs, self._outputs = _slots(depth), _slots(depth)
        self._packed: Channel[Batch | None] = Channel(depth)
        self._computed: Channel[Output | None] = Channel(depth)
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
            number, batch = 0, None
            while True:
                # A frame is asked for only when there is room for it: a camera's are no older than they must be.
                slot = None if batch is not None and batch.is_open else self._inputs.get()
                if (work := self._arrival(number)) is None:
                    break
                if self._stop.is_set():  # perhaps long ago: the slots may be gone
                    raise Closed
                self._spend(work, self._prepare_image)
                batch = self._join(work, batch, slot)
                if work.is_last or (work.error is not None and not self._go_on):
                    break
                number += 1
            self._packed.put(None)
        finally:
            with contextlib.suppress(Exception):
                if hasattr(self._frames, "close"):
                    self._frames.close()

    def _arrival(self, number: int) -> Work | None:
        """The next frame with its tasks; None at the source's end."""
        work = Work(number)
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

    def _join(self, work: Work, batch: Batch | None, slot: int | None) -> Batch:
        """Put a frame into the batch that waits for the device, or else into one of its own; returns where it is."""
        if batch is not None and batch.is_open and (work.error is not None or work.tasks == batch.tasks):
            self._pack(work, batch.slot, len(batch.packed))
            if batch.add(work):
                return batch
        if slot is None:  # the device has taken the batch meanwhile, or the frame is of other tasks
            slot = self._inputs.get()
        batch = Batch(slot, work.tasks, 1 if work.error is not None else self._planner.most_images(work.tasks))
        self._pack(work, slot, 0)
        batch.add(work)
        self._packed.put(batch)
        return batch

    def _prepare_image(self, work: Work) -> None:
        work.image = self._prepare(work.frame)

    def _pack(self, work: Work, slot: int, place: int) -> None:
        def pack(work: Work) -> None:
            assert work.image is not None
            self._executor.pack(slot, work.image, place)

        self._spend(work, pack)

    def _spend(self, work: Work, do: Callable[[Work], None]) -> None:
        """Do something for a frame that has not failed; it takes the host's time, and may fail."""
        if work.error is not None:
            return
        begin = time.perf_counter()
        try:
            do(work)
        except BaseException as error:  # somebody's sys.exit() too: the frame has failed, not the thread
            work.error = error
        work.unpaid += time.perf_counter() - begin

    # Device

    def _device(self) -> None:
        while (batch := self._packed.get()) is not None:
            batch.take()
            steps = self._planner.plan(batch.tasks, len(batch.packed)).steps if batch.packed else []
            progress = Progress(batch.works, steps, batch.packed)
            for step in steps:
                self._end(progress)
                self._run(batch, step)
                progress.done(step)
            self._inputs.put(batch.slot)
            self._end(progress)
        self._computed.put(None)

    def _end(self, progress: Progress) -> None:
        for work in progress.finished():
            self._computed.put(Output((work,)))

    def _run(self, batch: Batch, step: Step) -> None:
        """One step. That frames were put together must not make more of them fail: then each is run by itself."""
        works = [batch.packed[place] for place in step.images]
        if all(work.error is not None for work in works) or (error := self._compute(batch, step)) is None:
            return
        if len(works) == 1 or self._stop.is_set():
            for work in works:
                work.error = work.error or error
            return
        alone = self._planner.plan(step.joined.tasks).steps
        for work, place in zip(works, step.images, strict=True):
            for part in alone:
                if work.error is None:
                    work.error = self._compute(batch, dataclasses.replace(part, first=place), attempts=1)

    def _compute(self, batch: Batch, step: Step, attempts: int = 0) -> BaseException | None:
        """Run a program, which was attempted before as part of another; returns why it failed."""
        target = self._outputs.get()
        try:
            measured = self._executor.execute(step.program, batch.slot, target, self._stop, first=step.first)
        except BaseException as error:
            self._outputs.put(target)
            return error
        measured = dataclasses.replace(measured, attempts=measured.attempts + attempts)
        works = tuple(batch.packed[place] for place in step.images)
        for work in works:
            work.device += measured.wall_seconds / len(works)
        self._computed.put(Output(works, step.joined, target, measured))
        return None

    # Results

    def _results(self) -> None:
        while (output := self._computed.get()) is not None:
            if output.measured is not None:
                self._interpret(output, output.measured)
                continue
            (work,) = output.works
            work.predictions = {task: work.predictions[task] for task in work.tasks if task in work.predictions}
            work.latency = time.perf_counter() - work.begin
            self.meter.add(work.latency, len(work.predictions), work.device, work.host, work.error is not None)
            self.ready.put(work)
        self.ready.put(None)

    def _interpret(self, output: Output, measured: Measured) -> None:
        found = []
        for number, (image, task) in enumerate(output.joined.sequences):
            work, begin = output.works[image], time.perf_counter()
            try:
                raw = self._executor.unpack(output.joined.key, output.slot, number)
            except BaseException as error:
                work.error = work.error or error
            else:
                found.append((work, task, raw, time.perf_counter() - begin))
        self._outputs.put(output.slot)
        for work, task, raw, seconds in found:
            try:
                spent, work.unpaid = seconds + work.unpaid, 0.0
                prediction = interpret(self._executor.bundle, task, raw, measured, spent, output.joined)
            except BaseException as error:
                work.error = work.error or error
            else:
                work.predictions[task] = prediction
                work.host += prediction.stats.host_seconds


def _slots(depth: int) -> Channel[int]:
    slots: Channel[int] = Channel(depth)
    for slot in range(depth):
        slots.put(slot)
    return slots
