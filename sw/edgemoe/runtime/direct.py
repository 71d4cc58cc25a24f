"""A plan at once, step by step, on an executor that nothing else uses: what ``Accelerator.run`` does."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgemoe.bundle import Bundle, Joined
from edgemoe.runtime.executor import Executor, Measured
from edgemoe.runtime.planner import Plan
from edgemoe.runtime.predictions import Prediction, interpret
from edgemoe_models.model_image import ModelImage

__all__ = ["RawResult", "execute_plan", "interpret_all"]


@dataclass(frozen=True)
class RawResult:
    """One task's raw outputs of one image, int16 [rows, channels].

    ``measured``: the program that made them; ``joined``: of what that is; ``seconds``: that the host spent on them.
    """

    image: int
    task: str
    raw: npt.NDArray[np.int16]
    measured: Measured
    joined: Joined
    seconds: float


def execute_plan(
    executor: Executor, plan: Plan, images: Sequence[object], prepare: Callable[[object], ModelImage]
) -> list[RawResult]:
    """Every step of a plan, in input and output slot 0.

    Args:
        executor: of the bundle that the plan is for
        plan: for as many images as there are
        images: what ``prepare`` makes images of the model's size of

    Raises:
        ValueError: an image cannot be read, or does not fit
        DeviceError: a step failed
    """
    results = []
    for chunk in plan.chunks:
        unpaid = {}
        for place in range(chunk.images):
            begin = time.perf_counter()
            executor.pack(0, prepare(images[chunk.first + place]), place)
            unpaid[chunk.first + place] = time.perf_counter() - begin
        for step in chunk.steps:
            measured = executor.execute(step.program, 0, 0, first=step.first - chunk.first)
            for number, (offset, task) in enumerate(step.joined.sequences):
                begin, image = time.perf_counter(), step.first + offset
                raw = executor.unpack(step.program, 0, number)
                spent = time.perf_counter() - begin + unpaid.pop(image, 0.0)
                results.append(RawResult(image, task, raw, measured, step.joined, spent))
    return results


def interpret_all(
    bundle: Bundle, tasks: Sequence[str], images: int, results: Sequence[RawResult]
) -> list[dict[str, Prediction]]:
    """Each image's predictions, in the order of ``tasks``."""
    found = {
        (each.image, each.task): interpret(bundle, each.task, each.raw, each.measured, each.seconds, each.joined)
        for each in results
    }
    return [{task: found[image, task] for task in tasks} for image in range(images)]
