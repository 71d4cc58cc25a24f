"""How fast the simulated accelerator runs: cycles a second, without and with the comparison of every tensor.

The machine may be shared, so processor seconds are measured beside wall seconds. The simulation is one thread.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from edgemoe.bundle import Bundle
from edgemoe.runtime.verify import open_verified
from edgemoe_models.datasets import scenes
from edgemoe_models.graph.integer_graph import IntegerGraph
from edgemoe_models.integer import reference
from edgemoe_sim.fast_verilog import is_verbatim

__all__ = ["measure_speed"]

Progress = Callable[[str, float], None]


def measure_speed(graph: IntegerGraph, bundle: Bundle, progress: Progress = lambda what, share: None) -> dict[str, Any]:
    """Time of one inference of the bundle's first task, on a generated scene, once without and once with comparison.

    The integer reference's own time is ``reference_seconds``: it is no part of the simulation's.

    Returns:
        ``model``, ``config``, ``task``, ``rtl`` (``verbatim``, or ``fast``: see
            ``edgemoe_sim.fast_verilog``), ``cycles``,
        ``build_seconds`` (of wall; next to nothing where the simulator is in the cache), ``reference_seconds``,
        ``plain`` and ``compared``: ``wall_seconds``, ``cpu_seconds``, ``cycles_per_second``,
        ``cycles_per_cpu_second`` and ``mismatches``
    """
    model, task = graph.config, next(iter(bundle.tasks))
    image = scenes.generate_scene(scenes.SPLITS["demo"].start, model.image_height, model.image_width).image
    expected: dict[str, Any] = {}
    begin = time.perf_counter()
    reference.run(graph, image, task, expected)
    reference_seconds, begin = time.perf_counter() - begin, time.perf_counter()
    result: dict[str, Any] = {
        "model": model.name,
        "config": bundle.config.name,
        "task": task,
        "rtl": "verbatim" if is_verbatim() else "fast",
        "reference_seconds": reference_seconds,
    }
    with open_verified(bundle, building=functools.partial(_building, progress)) as verifier:
        result["build_seconds"] = time.perf_counter() - begin
        for name, trace in (("plain", None), ("compared", expected)):
            watch = _Watch()
            run = verifier.run(image, task, expected=trace, progress=functools.partial(progress, f"simulating, {name}"))
            cycles = run.stats["cycles"]
            result["cycles"] = cycles
            result[name] = watch.result(cycles)
            wrong = np.count_nonzero(run.outputs != expected[f"heads.{task}"])
            result[name]["mismatches"] = int(wrong) if run.comparison is None else run.comparison.mismatches
    return result


def _building(progress: Progress, step: str, share: float) -> None:
    progress(step, share)


class _Watch:
    """Wall and processor seconds since its making."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def result(self, cycles: int) -> dict[str, float]:
        wall, cpu = time.perf_counter() - self._wall, time.process_time() - self._cpu
        return {
            "wall_seconds": wall,
            "cpu_seconds": cpu,
            "cycles_per_second": cycles / wall,
            "cycles_per_cpu_second": cycles / cpu,
        }
