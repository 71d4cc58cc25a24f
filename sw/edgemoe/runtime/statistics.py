"""Latency and throughput of a stream, while it runs and afterwards."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from edgemoe.runtime.platforms.power import PowerMeter

__all__ = ["FrameEnergy", "Meter", "StreamStats"]

_WINDOW = 4096  # frames that the percentiles are of: an endless stream takes no more memory


class FrameEnergy:
    """Energy of figures that have a mean power and a frame rate."""

    fps: float
    watts: float | None

    @property
    def joules(self) -> float | None:
        """Measured energy a frame; None: not measured."""
        return None if self.watts is None or not self.fps else self.watts / self.fps


@dataclass(frozen=True)
class StreamStats(FrameEnergy):
    """A stream so far.

    Attributes:
        frames: how many have been finished
        inferences: how many have been finished; a frame with several tasks has as many
        failures: how many of the frames have failed
        seconds: from the start to the last finished frame
        fps: frames a second
        latency_p50: median of the seconds from a frame's arrival until its predictions are ready, over the last 4096
            frames
        latency_p90: 90th percentile of these
        latency_max: the largest of these
        device_seconds: wall time a frame in which the host waited for the device
        host_seconds: time a frame of everything else that the host does for it: preparing, packing, unpacking,
            predictions
        device_share: share of ``seconds`` in which the device worked; 1 where the host hides behind it completely
        watts: mean of the measured supply rails' sum, idle parts of the board included; None: not measured
    """

    frames: int = 0
    inferences: int = 0
    failures: int = 0
    seconds: float = 0.0
    fps: float = 0.0
    latency_p50: float = 0.0
    latency_p90: float = 0.0
    latency_max: float = 0.0
    device_seconds: float = 0.0
    host_seconds: float = 0.0
    device_share: float = 0.0
    watts: float | None = None

    def __str__(self) -> str:
        energy = (
            "power unavailable" if self.joules is None else f"{self.watts:.2f} W, {self.joules * 1e3:.1f} mJ a frame"
        )
        return (
            f"{self.frames} frames, {self.inferences} inferences, {self.failures} failed, "
            f"{self.fps:.1f} frames/s; latency p50 {self.latency_p50 * 1e3:.2f} ms, p90 "
            f"{self.latency_p90 * 1e3:.2f} ms; a frame: device {self.device_seconds * 1e3:.2f} ms, host "
            f"{self.host_seconds * 1e3:.2f} ms; device busy {self.device_share:.0%}; {energy}"
        )


class Meter:
    """Collects what ``StreamStats`` shows; for several threads. ``power``: watts of each measured rail."""

    def __init__(self, power: Callable[[], Mapping[str, float]] = dict) -> None:
        self._power = PowerMeter(power)
        self._lock = threading.Lock()
        self._begin = self._end = time.perf_counter()
        self._latencies: deque[float] = deque(maxlen=_WINDOW)
        self._frames = self._inferences = self._failures = 0
        self._device = self._host = 0.0

    def add(self, latency: float, inferences: int, device: float, host: float, failed: bool) -> None:
        """One finished frame: times in seconds."""
        with self._lock:
            self._end = time.perf_counter()
            self._frames += 1
            self._inferences += inferences
            self._failures += failed
            self._latencies.append(latency)
            self._device += device
            self._host += host

    def stats(self) -> StreamStats:
        """The figures so far."""
        with self._lock:
            if not self._frames:
                return StreamStats()
            seconds = self._end - self._begin
            middle, high, most = np.percentile(self._latencies, (50, 90, 100))
            return StreamStats(
                self._frames,
                self._inferences,
                self._failures,
                seconds,
                self._frames / seconds,
                float(middle),
                float(high),
                float(most),
                self._device / self._frames,
                self._host / self._frames,
                self._device / seconds,
                self._power.watts,
            )

    def close(self) -> None:
        """Measure no more power."""
        self._power.close()
