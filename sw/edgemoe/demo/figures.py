"""Speed, latency and power of the last frames."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from edgemoe.runtime.statistics import FrameEnergy

__all__ = ["Figures", "figures_of"]


@dataclass(frozen=True)
class Figures(FrameEnergy):
    """Of the last frames: frames a second, latency in seconds, and mean power; ``watts`` None: not measured."""

    fps: float = 0.0
    latency: float = 0.0
    latency_p50: float = 0.0
    latency_p90: float = 0.0
    watts: float | None = None


def figures_of(times: Iterable[tuple[float, float]], powers: Sequence[float]) -> Figures:
    """Of when each frame ended, and its latency; at least one frame. ``powers``: watts, measured meanwhile."""
    ends, latencies = zip(*times, strict=True)
    middle, high = np.percentile(latencies, (50, 90))
    fps = (len(ends) - 1) / (ends[-1] - ends[0]) if len(ends) > 1 else 0.0
    return Figures(fps, latencies[-1], float(middle), float(high), float(np.mean(powers)) if powers else None)
