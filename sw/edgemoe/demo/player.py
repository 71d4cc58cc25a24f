"""Plays frames through an accelerator's stream, in the background, for as long as somebody watches."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgemoe.bundle import BundleError
from edgemoe.demo.view import encode
from edgemoe.runtime.accelerator import Accelerator
from edgemoe.runtime.stream import Frame

__all__ = ["Figures", "Player"]

_WINDOW = 100  # frames that the figures are of


@dataclass(frozen=True)
class Figures:
    """Of the last frames: frames a second, and latency in seconds."""

    fps: float = 0.0
    latency: float = 0.0
    latency_p50: float = 0.0
    latency_p90: float = 0.0


class Player:
    """Keeps the message of the newest frame for its viewers. A context manager; ``close`` ends it.

    Parameters
    ----------
    accelerator: what runs the frames; stays the caller's to close
    pictures: endless frames; closed at the end, by the thread that reads them
    fps: frames a second at most
    tasks: of the bundle; what to run first

    Attributes
    ----------
    count, message: how many frames have been finished, and the newest of them as ``view.encode`` has it

    Raises
    ------
    BundleError: there is no such task
    """

    def __init__(self, accelerator: Accelerator, pictures: Generator[npt.NDArray[np.uint8], None, None],
                 fps: float, tasks: Sequence[str]) -> None:
        self._accelerator, self._pictures, self._period = accelerator, pictures, 1 / fps
        self._changed = threading.Condition()
        self._listeners: list[Callable[[], object]] = []
        self._is_paused = self._is_closed = self._has_ended = False
        self._failures, self._error = 0, ""
        self._times: deque[tuple[float, float]] = deque(maxlen=_WINDOW)
        self.count, self.message = 0, b""
        self._tasks: tuple[str, ...] = ()
        self.choose(tasks)
        self._stream = accelerator.stream(self._paced(), lambda number: self._tasks, on_error="report")
        self._thread = threading.Thread(target=self._play, name="edgemoe demo", daemon=True)
        self._thread.start()

    def choose(self, tasks: Sequence[str]) -> None:
        """Run these tasks from the next frame on, in the bundle's order; BundleError when there is no such task."""
        if not tasks:
            raise BundleError(f"choose at least one task of {', '.join(self._accelerator.tasks)}")
        for name in tasks:
            self._accelerator.bundle.task(name)
        with self._changed:
            self._tasks = tuple(name for name in self._accelerator.tasks if name in tasks)
            self._begin_anew()

    def switch(self, task: str, is_on: bool) -> None:
        """Run a task or not, from the next frame on; BundleError as ``choose``."""
        with self._changed:
            others = [name for name in self._tasks if name != task]
            self.choose([*others, task] if is_on else others)

    def pause(self, is_paused: bool) -> None:
        """Stop taking frames, or go on."""
        with self._changed:
            self._is_paused = is_paused
            self._begin_anew()

    def _begin_anew(self) -> None:
        self._times.clear()  # the figures are of what runs now
        self._notify()

    @property
    def state(self) -> dict[str, object]:
        """What viewers share: ``tasks``, ``paused``, ``ended``, ``failures`` (frames) and the last ``error``."""
        return {"tasks": self._tasks, "paused": self._is_paused, "ended": self._has_ended,
                "failures": self._failures, "error": self._error}

    @contextlib.contextmanager
    def watched(self, listener: Callable[[], object]) -> Iterator[None]:
        """Call ``listener``, from any thread and with a lock held, whenever there is something new."""
        with self._changed:
            if not self._listeners:
                self._times.clear()
            self._listeners.append(listener)
            self._notify()
        try:
            yield
        finally:
            with self._changed:
                self._listeners.remove(listener)

    def _notify(self) -> None:
        self._changed.notify_all()
        for listener in self._listeners:
            listener()

    def _paced(self) -> Iterator[npt.NDArray[np.uint8]]:
        """The pictures, not faster than asked for, and none while paused or unwatched."""
        due = 0.0
        with contextlib.closing(self._pictures):
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._is_closed, due - time.perf_counter())
                    self._changed.wait_for(lambda: self._is_closed or (self._listeners and not self._is_paused))
                    if self._is_closed:
                        return
                due = max(due, time.perf_counter() - self._period) + self._period
                yield next(self._pictures)

    def _play(self) -> None:
        try:
            for frame in self._stream:
                self._show(frame)
        except Exception as error:  # viewers must hear of it, whatever it is
            self._error = str(error)
        with self._changed:
            self._has_ended = True
            self._notify()

    def _show(self, frame: Frame) -> None:
        if frame.error is not None:
            with self._changed:
                self._failures, self._error = self._failures + 1, str(frame.error)
                self._notify()
            return
        with self._changed:
            self._times.append((time.perf_counter(), frame.latency_s))
            figures = _figures(self._times)
        message = encode(frame, figures)
        with self._changed:
            self.count, self.message = self.count + 1, message
            self._notify()

    def close(self) -> None:
        """End playing; a second call does nothing."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._stream.close()
        self._thread.join()

    def __enter__(self) -> Player:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _figures(times: Iterable[tuple[float, float]]) -> Figures:
    """Of when each frame ended, and its latency; at least one frame."""
    ends, latencies = zip(*times, strict=True)
    middle, high = np.percentile(latencies, (50, 90))
    fps = (len(ends) - 1) / (ends[-1] - ends[0]) if len(ends) > 1 else 0.0
    return Figures(fps, latencies[-1], float(middle), float(high))
