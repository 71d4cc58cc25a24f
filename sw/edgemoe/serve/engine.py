"""A bundle that is served: a bounded queue, and the one thread that runs what waits in it on the device."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from edgemoe.bundle import Bundle
from edgemoe.errors import DeviceError
from edgemoe.runtime.accelerator import Accelerator
from edgemoe.runtime.planner import Planner
from edgemoe.runtime.predictions import Prediction
from edgemoe.serve.message import InferRequest

__all__ = ["Busy", "Engine", "Found", "Place"]

Found = list[dict[str, Prediction]]
_SMOOTHING = 0.2  # weight of the newest request in the mean of their times
_LONGEST_RETRY = 60  # seconds


class Busy(Exception):
    """The queue is full.

    Attributes:
        seconds: after which it is worth asking again
    """

    def __init__(self, message: str, seconds: int) -> None:
        super().__init__(message)
        self.seconds = seconds


@dataclass(eq=False)
class _Job:
    request: InferRequest
    result: Future[Found] = field(default_factory=Future)


class Place:
    """A place in the queue, from before the request is read until the device takes it. Not for two threads."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.is_filled = False

    def fill(self, request: InferRequest) -> Future[Found]:
        """Put the request into its place; the future has what the device makes of it, or why it failed."""
        self.is_filled = True
        return self._engine.append(request)


class Engine:
    """Runs requests for one bundle, in the order in which they came. ``close`` ends its thread, not the accelerator.

    Requests for the same tasks that wait at the same time run together where the bundle has programs for it.

    Args:
        accelerator: the opened device
        version: by which it is called, beside the model's name
        limit: requests that may wait, those that are still being read included
        timeout: seconds after which a run counts as stuck
        ran: told of everything that the device has run, and of what has failed there, in the engine's thread

    Attributes:
        accelerator, version, limit: as above
        bundle, name: what it runs, and the model's name
        most_images: of the bundle's largest program for some of its tasks
    """

    def __init__(
        self,
        accelerator: Accelerator,
        version: str,
        limit: int,
        timeout: float,
        ran: Callable[[Engine, Found | BaseException], None] = lambda engine, found: None,
    ) -> None:
        self.accelerator, self.version, self.limit, self._timeout, self._ran = accelerator, version, limit, timeout, ran
        self.bundle: Bundle = accelerator.bundle
        self.name = self.bundle.model.name
        self._planner = Planner(self.bundle)
        self._changed = threading.Condition()
        self._jobs: deque[_Job] = deque()
        self._waiting, self._began, self._seconds, self._is_closed = 0, 0.0, 0.0, False
        self._thread = threading.Thread(target=self._work, name=f"serve {self.name}", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Requests that the device has not taken yet."""
        return self._waiting

    @property
    def is_stuck(self) -> bool:
        """Whether the device has worked longer on something than any request may take."""
        began = self._began
        return bool(began) and time.monotonic() - began > self._timeout

    @contextlib.contextmanager
    def place(self) -> Iterator[Place]:
        """A place in the queue; what was not put into it at the end of the block is free again.

        Raises:
            Busy: there is none
        """
        with self._changed:
            if self._waiting >= self.limit:
                seconds = math.ceil(self._waiting * self._seconds)
                raise Busy(
                    f"{self.limit} requests wait for {self.name} already; ask again later",
                    min(max(seconds, 1), _LONGEST_RETRY),
                )
            self._waiting += 1
        place = Place(self)
        try:
            yield place
        finally:
            if not place.is_filled:
                with self._changed:
                    self._waiting -= 1

    def append(self, request: InferRequest) -> Future[Found]:
        """Queue a request that has a place. Cancelling the future gives it up, if the device has not taken it."""
        job = _Job(request)
        with self._changed:
            self._jobs.append(job)
            self._changed.notify_all()
        job.result.add_done_callback(lambda future: self._drop(job) if future.cancelled() else None)
        return job.result

    def _drop(self, job: _Job) -> None:
        with self._changed:
            if job in self._jobs:
                self._jobs.remove(job)
                self._waiting -= 1

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._jobs or self._is_closed)
                if not self._jobs:
                    return
                jobs = self._take()
            jobs = [job for job in jobs if job.result.set_running_or_notify_cancel()]
            if jobs:
                self._began = begin = time.monotonic()
                self._run(jobs)
                self._began, spent = 0.0, (time.monotonic() - begin) / len(jobs)
                self._seconds += (spent - self._seconds) * (_SMOOTHING if self._seconds else 1.0)

    def _take(self) -> list[_Job]:
        """The first request, and of the next ones those that can run together with it."""
        jobs = [self._jobs.popleft()]
        tasks, images = jobs[0].request.tasks, len(jobs[0].request.images)
        most = self._planner.most_images(tasks) if jobs[0].request.program is None else 0
        while self._jobs and (following := self._jobs[0].request).tasks == tasks and following.program is None:
            images += len(following.images)
            if images > most:
                break
            jobs.append(self._jobs.popleft())
        self._waiting -= len(jobs)
        return jobs

    def _run(self, jobs: Sequence[_Job]) -> None:
        """Together; where that fails, each by itself, so that only those fail that have to."""
        try:
            found = self._predict([job.request for job in jobs])
        except BaseException as error:  # whatever it is, the client must hear of it and the thread go on
            self._ran(self, error)
            if len(jobs) == 1:
                is_usual = isinstance(error, Exception)  # somebody's sys.exit() must not end the server
                jobs[0].result.set_exception(error if is_usual else DeviceError(str(error)))
                return
            for job in jobs:
                self._run([job])
            return
        self._ran(self, found)
        for job in jobs:
            count = len(job.request.images)
            job.result.set_result(found[:count])
            found = found[count:]

    def _predict(self, requests: Sequence[InferRequest]) -> Found:
        images: list[Any] = [image for request in requests for image in request.images]
        if (program := requests[0].program) is not None:
            return self.accelerator.run_program(program, images)
        return self.accelerator.run(images, list(requests[0].tasks))

    def close(self) -> None:
        """Run what waits and end the thread; a second call does nothing."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._thread.join()
