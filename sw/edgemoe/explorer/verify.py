"""Verification of explored configurations: what RTL and Yosys say, as tasks that any worker can do."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from edgemoe.boards.board import load_board
from edgemoe.explorer.cluster import run_tasks
from edgemoe.explorer.cycles import Workload
from edgemoe.explorer.search import Point
from edgemoe_hw.spec.config import AcceleratorConfig

__all__ = ["Verified", "jobs_of", "verify", "verify_task"]

Job = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Verified:
    """A point and what was measured of it.

    Attributes:
        point: as the models see it
        cycles: of the RTL, by workload
        mismatches: values that differ from the integer reference, by workload
        used: resources by Yosys
        fmax_mhz: clock by static timing of Yosys' netlist, which is not placed
        row: all of it for ``verified.json``
    """

    point: Point
    cycles: dict[str, int]
    mismatches: dict[str, int]
    used: dict[str, float]
    fmax_mhz: float
    row: dict[str, Any]

    @property
    def cycle_errors(self) -> dict[str, float]:
        """Estimate / RTL - 1, by workload."""
        return {name: self.point.cycles[name] / cycles - 1 for name, cycles in self.cycles.items()}

    @property
    def resource_errors(self) -> dict[str, float]:
        """Model / Yosys - 1, by resource."""
        return {name: self.point.resources[name] / used - 1 for name, used in self.used.items() if used}


def jobs_of(points: Sequence[Point], board: str, loads: Sequence[Workload]) -> list[Job]:
    """A task for Yosys and one a model for the RTL, of every point; those that take longest first."""
    jobs = []
    for number, point in enumerate(points):
        common = {"point": number, "board": board, "config": point.config.to_dict()}
        jobs.append(common | {"kind": "yosys"})
        jobs += [common | {"kind": "rtl", "model": load.given, "expert_bits": load.expert_bits} for load in loads]
    return sorted(jobs, key=lambda job: job["kind"] != "yosys")


def verify_task(job: Job) -> dict[str, Any]:
    """Do one job.

    Raises:
        ValueError, DeviceError, SynthesisError: it cannot be done; the message says why
    """
    begin = time.perf_counter()
    config = AcceleratorConfig.from_dict(job["config"])
    found = _rtl(config, job) if job["kind"] == "rtl" else _yosys(config, job["board"])
    return found | {"seconds": round(time.perf_counter() - begin, 1)}


def _rtl(config: AcceleratorConfig, job: Job) -> dict[str, Any]:
    """One scene, the first task: cycles, and every traced tensor against the integer reference."""
    from edgemoe.compiler import build_bundle
    from edgemoe.runtime.verify import open_verified
    from edgemoe.workloads import load_graph
    from edgemoe_models.datasets import scenes
    from edgemoe_models.integer import reference

    graph = load_graph(job["model"], expert_bits=job["expert_bits"], target=config)
    model = graph.config
    task = model.tasks[0].name
    image = scenes.generate_scene(scenes.SPLITS["demo"].start, model.image_height, model.image_width).image
    trace: dict[str, Any] = {}
    reference.run(graph, image, task, trace)
    with open_verified(build_bundle(graph, config), quiet=True) as verifier:
        run = verifier.run(image, task, expected=trace)
    assert run.comparison is not None
    compared = {"tensors_compared": len(run.comparison.tensors), "mismatches": run.comparison.mismatches}
    return {"model": job["model"], "cycles": run.stats["cycles"]} | compared


def _yosys(config: AcceleratorConfig, board_name: str) -> dict[str, Any]:
    """Resources by unit, and the estimate of the clock."""
    from edgemoe.boards.synth import RESOURCES, synthesize
    from edgemoe.boards.timing.nets import grade_of
    from edgemoe.boards.timing.report import timing_of_file

    board = load_board(board_name)
    with tempfile.TemporaryDirectory(prefix="edgemoe-explore-") as folder:
        result = synthesize(config, Path(folder), device=board.device)
        grade = grade_of(board.device.family, board.part)
        timing = timing_of_file(Path(folder) / f"{config.name}.il", grade, None, paths=1)
    used = {resource: result[resource] for resource in RESOURCES}
    return {"used": used, "units": result["units"], "tool": result["tool"], "fmax_mhz": timing["fmax_mhz"]}


def verify(
    points: Sequence[Point],
    board: str,
    loads: Sequence[Workload],
    *,
    scheduler: str | None = None,
    workers: int | None = None,
    on_done: Callable[[int, int], None] = lambda done, of: None,
) -> list[Verified]:
    """Have RTL and Yosys judge points, in parallel on Dask.

    Args:
        points: whose configurations
        board: its name; its FPGA is Yosys' target
        loads: models that are run on the RTL; workers read files under the same path
        scheduler, workers: as ``cluster.run_tasks`` has them
        on_done: told how many tasks are done, of how many

    Raises:
        MissingExtraError: Dask is not installed
        DeviceError: the scheduler cannot be reached, or a task failed
    """
    jobs = jobs_of(points, board, loads)
    done = 0

    def count(index: int, result: dict[str, Any]) -> None:
        nonlocal done
        done += 1
        on_done(done, len(jobs))

    results = run_tasks(verify_task, jobs, scheduler=scheduler, workers=workers, on_done=count)
    return [
        _verified(point, board, [(job, result) for job, result in zip(jobs, results, strict=True) if job["point"] == n])
        for n, point in enumerate(points)
    ]


def _verified(point: Point, board: str, results: Sequence[tuple[Job, dict[str, Any]]]) -> Verified:
    synthesis = next(result for job, result in results if job["kind"] == "yosys")
    runs = [result for job, result in results if job["kind"] == "rtl"]
    row = {"board": board, "config": point.config.to_dict(), **synthesis, "runs": runs}
    return Verified(
        point,
        {run["model"]: run["cycles"] for run in runs},
        {run["model"]: run["mismatches"] for run in runs},
        synthesis["used"],
        synthesis["fmax_mhz"],
        row,
    )
