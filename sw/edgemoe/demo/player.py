"""Plays frames through an accelerator's stream, in the background, for as long as somebody watches."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from edgemoe.bundle import BundleError
from edgemoe.demo.figures import figures_of
from edgemoe.demo.sources import Endless
from edgemoe.demo.view import encode
from edgemoe.runtime.accelerator import Accelerator
from edgemoe.runtime.platforms.power import PowerMeter
from edgemoe.runtime.stream import Frame

__all__ = ["Player"]

_WINDOW = 100  # frames that the figures are of
_SAMPLES = 10_000  # of power, about a quarter of an hour: so many frames may take longer on a simulator


class Player:
    """Keeps the message of the newest frame for its viewers. A context manager; ``close`` ends it.

    Args:
        accelerator: what runs the frames; stays the caller's to close
        pictures: endless frames, or an error in place of one; closed at the end, by the thread that reads them
        fps: frames a second at most
        tasks: of the bundle; what to run first

    Attributes:
        count, message: how many frames have been finished, and the newest of them as ``view.encode`` has it
        accelerator: what runs them
        measures_power: whether this device has sensors

    Raises:
        BundleError: there is no such task
    """

    def __init__(self, accelerator: Accelerator, pictures: Endless, fps: float, tasks: Sequence[str]) -> None:
        self.accelerator, self._pictures, self._period = accelerator, pictures, 1 / fps
        self._changed = threading.Condition()
        self._listeners: list[Callable[[], object]] = []
        self._is_paused = self._is_closed = self._has_ended = False
        self._failures, self._good, self._error = 0, 0, ""
        self._times: deque[tuple[float, float]] = deque(maxlen=_WINDOW)
        self._powers: deque[tuple[float, float]] = deque(maxlen=_SAMPLES)
        self.count, self.message = 0, b""
        self._tasks: tuple[str, ...] = ()
        self.choose(tasks)
        self._stream = accelerator.stream(self._paced(), lambda number: self._tasks, on_error="report")
        self.measures_power = False
        self._meter = PowerMeter(self._measure)
        self._thread = threading.Thread(target=self._play, name="edgemoe demo", daemon=True)
        self._thread.start()

    def choose(self, tasks: Sequence[str]) -> None:
        """Run these tasks from the next frame on, in the bundle's order; BundleError when there is no such task."""
        if not tasks:
            raise BundleError(f"choose at least one task of {', '.join(self.accelerator.tasks)}")
        for name in tasks:
            self.accelerator.bundle.task(name)
        with self._changed:
            self._tasks = tuple(name for name in self.accelerator.tasks if name in tasks)
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
        """What viewers share: ``tasks``, ``paused``, ``ended``, ``failures`` (frames), and the last
        ``error`` until a hundred frames in a row have been fine."""
        return {
            "tasks": self._tasks,
            "paused": self._is_paused,
            "ended": self._has_ended,
            "failures": self._failures,
            "error": self._error,
        }

    @property
    def viewers(self) -> int:
        """How many there are."""
        return len(self._listeners)

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
                picture = next(self._pictures)
                if isinstance(picture, ValueError):
                    self._tell(picture)
                else:
                    yield picture

    def _play(self) -> None:
        try:
            for frame in self._stream:
                self._show(frame)
        except Exception as error:  # viewers must hear of it, whatever it is
            self._tell(error)
        with self._changed:
            self._has_ended = True
            self._notify()

    def _tell(self, error: BaseException, failures: int = 0) -> None:
        with self._changed:
            self._failures, self._good = self._failures + failures, 0
            self._error = str(error) or type(error).__name__
            self._notify()

    def _measure(self) -> Mapping[str, float]:
        """Samples power; ``PowerMeter`` calls it, in its thread."""
        self.measures_power = True  # also where a sensor does not answer now
        rails = self.accelerator.power()
        self.measures_power = bool(rails)
        if rails:
            with self._changed:
                self._powers.append((time.perf_counter(), sum(rails.values())))
        return rails

    def _show(self, frame: Frame) -> None:
        if frame.error is not None:
            self._tell(frame.error, 1)
            return
        with self._changed:
            self._times.append((time.perf_counter(), frame.latency_s))
            while self._powers and self._powers[0][0] < self._times[0][0]:
                self._powers.popleft()
            figures = figures_of(self._times, [watts for _, watts in self._powers])
        message = encode(frame, figures, self.accelerator.bundle)
        with self._changed:
            self.count, self.message, self._good = self.count + 1, message, self._good + 1
            if self._good == _WINDOW:
                self._error = ""
            self._notify()

    def close(self) -> None:
        """End playing; a second call does nothing."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._stream.close()
        self._thread.join()
        self._meter.close()

    def __enter__(self) -> Player:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
