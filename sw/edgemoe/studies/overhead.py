"""The host's own time a frame: everything but the device.

Runs the driver on an accelerator that needs no time, so what is measured is checking and packing the image, registers,
unpacking the outputs and making the typed prediction. Times are this machine's; Python's own, not simulated ones.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import numpy.typing as npt

from edgemoe.bundle import Bundle
from edgemoe.runtime.driver import Driver
from edgemoe.runtime.images import prepare
from edgemoe.runtime.platforms.null import NullPlatform
from edgemoe.runtime.predictions import interpret

__all__ = ["STEPS", "TARGET_MS", "measure_overhead"]

TARGET_MS = 1.0
_WARM_UP = 20
STEPS = ("prepare", "pack", "execute", "unpack", "predict")


def measure_overhead(bundle: Bundle, frames: int = 300) -> dict[str, Any]:
    """Time outside the device of ``frames`` inferences of every task.

    Returns:
        ``model``, ``config``, ``frames``, ``target_ms`` and ``tasks``: by name the median milliseconds of each step,
            and
        ``p50_ms`` and ``p90_ms`` of their sum
    """
    model, rng = bundle.model, np.random.default_rng(0)
    image = rng.integers(0, 256, (model.image_height, model.image_width, 3), np.uint8)
    platform = NullPlatform(bundle.config)
    driver = Driver(platform, bundle)
    for buffer in platform.buffers[-driver.depth :]:  # the outputs: labels of random logits, not of equal ones
        buffer.array[:] = rng.integers(0, 256, buffer.array.size, np.uint8)
    tasks = {}
    for task in bundle.tasks:
        times = np.array([_one(driver, image, task, number % driver.depth) for number in range(_WARM_UP + frames)])
        times = times[_WARM_UP:] * 1e3
        middle, high = np.percentile(times.sum(1), (50, 90))
        tasks[task] = {
            **{f"{step}_ms": float(value) for step, value in zip(STEPS, np.median(times, 0), strict=True)},
            "p50_ms": float(middle),
            "p90_ms": float(high),
        }
    driver.close()
    return {"model": model.name, "config": bundle.config.name, "frames": frames, "target_ms": TARGET_MS, "tasks": tasks}


def _one(driver: Driver, image: npt.NDArray[Any], task: str, slot: int) -> list[float]:
    """Seconds of each step of one inference."""
    marks = [time.perf_counter()]
    pixels = prepare(image, driver.bundle.model)
    marks.append(time.perf_counter())
    driver.pack(slot, pixels)
    marks.append(time.perf_counter())
    measured = driver.execute(task, slot, slot)
    marks.append(time.perf_counter())
    raw = driver.unpack(task, slot)
    marks.append(time.perf_counter())
    interpret(driver.bundle, task, raw, measured, 0.0)
    marks.append(time.perf_counter())
    result: list[float] = np.diff(marks).tolist()
    return result
