"""Timing, energy, and the distance from the float model, of one session."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from edgemoe.studies.baselines.workload import Images, Rows, Session, Workload
from edgemoe_models.evaluation.evaluate import evaluate, float_outputs
from edgemoe_models.integer.postprocess import arrange

__all__ = ["Effort", "check", "measure"]

#: Float32 outputs may differ from the float reference by this share of its largest value (order of additions).
TOLERANCE = 1e-4


@dataclasses.dataclass(frozen=True)
class Effort:
    """How long a session is warmed up and timed; the least number of steps counts where they are slow."""

    warm_up_seconds: float = 0.3
    seconds: float = 1.0
    least_warm_up: int = 3
    least_runs: int = 10
    most_runs: int = 500
    #: Of steps in a row: counters advance every millisecond (RAPL) to 100 milliseconds (NVML).
    energy_seconds: float = 2.0


def measure(session: Session, batch: int, device: str, effort: Effort) -> dict[str, Any]:
    """Milliseconds an image (median, 90th percentile, least), and millijoules where there are counters.

    ``cpu_ms`` is the median of the processor time of all threads: what a step costs however busy the machine is.
    """
    warm_up = _steps(session, effort.warm_up_seconds, effort.least_warm_up, effort.most_runs)
    runs = _steps(session, effort.seconds, effort.least_runs, effort.most_runs)
    wall, processor = (1e3 * column / batch for column in runs.T)
    millijoules, energy = _energy(session, batch, device, effort.energy_seconds)
    return {
        "ms": float(np.median(wall)),
        "p90_ms": float(np.percentile(wall, 90)),
        "least_ms": float(wall.min()),
        "cpu_ms": float(np.median(processor)),
        "batch_ms": float(np.median(wall)) * batch,
        "warm_up_runs": len(warm_up),
        "runs": len(runs),
        "energy_mj": millijoules,
        "energy": energy,
    }


def _steps(session: Session, seconds: float, least: int, most: int) -> npt.NDArray[np.float64]:
    """Seconds on the clock and of the processor [steps, 2], of steps for about ``seconds``."""
    times: list[tuple[float, float]] = []
    end = time.perf_counter() + seconds
    while len(times) < least or (time.perf_counter() < end and len(times) < most):
        clock, processor = time.perf_counter(), time.process_time()
        session.step()
        times.append((time.perf_counter() - clock, time.process_time() - processor))
    return np.array(times)


def _energy(session: Session, batch: int, device: str, seconds: float) -> tuple[float | None, str]:
    """Millijoules an image and what they were measured with, or None and why not.

    RAPL counts the whole processor package with whatever else it runs, NVML the whole card. NVML's own counter is read
    where it can be: Zeus, which reads RAPL, brings pandas and scikit-learn.
    """
    if device == "cuda" and (counter := _nvml_counter()) is not None:
        begin = counter()
        steps = len(_steps(session, seconds, 1, 1_000_000))
        return (counter() - begin) / (steps * batch), "NVML, whole card"
    try:
        from zeus.monitor import ZeusMonitor
    except ImportError:
        return None, "not measured: zeus is not installed (pip install zeus)"
    on_gpu = device == "cuda"
    monitor = ZeusMonitor(gpu_indices=None if on_gpu else [], cpu_indices=[] if on_gpu else None)
    if on_gpu and monitor.gpu_indices:
        monitor.gpu_indices = monitor.gpu_indices[:1]  # the one that sessions run on
    elif on_gpu or not monitor.cpu_indices:
        return None, f"not measured: no {'NVML' if on_gpu else 'RAPL'} counters that can be read here"
    monitor.begin_window("steps", sync_execution=False)
    steps = len(_steps(session, seconds, 1, 1_000_000))
    window = monitor.end_window("steps", sync_execution=False)
    joules = sum(window.gpu_energy.values()) if on_gpu else sum((window.cpu_energy or {}).values())
    return 1e3 * joules / (steps * batch), "NVML, whole card" if on_gpu else "RAPL, whole package"


def _nvml_counter() -> Callable[[], float] | None:
    """Reads millijoules since the driver was loaded, of the card that sessions run on; None without nvidia-ml-py."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        card = pynvml.nvmlDeviceGetHandleByIndex(0)
        pynvml.nvmlDeviceGetTotalEnergyConsumption(card)
    except pynvml.NVMLError:
        return None  # no card, or one without the counter
    return lambda: float(pynvml.nvmlDeviceGetTotalEnergyConsumption(card))


def check(workload: Workload, session: Session, batch: int, precision: str) -> dict[str, Any]:
    """The session's outputs beside the float reference's.

    ``agreement`` is the share of pixels (or pictures) of the same class, of a segmentation or classification;
    ``metrics`` and ``float_metrics`` (``edgemoe_models.evaluation.metrics``) are of held-out scenes; not
    for float32.
    """
    expected = workload.expected[:batch]
    session.feed(workload.images[:batch])
    session.step()
    rows = session.output()
    difference = float(np.abs(rows - expected).max())
    result: dict[str, Any] = {"max_abs_difference": difference, "largest_output": float(np.abs(expected).max())}
    task = workload.config.task(workload.task)
    if task.kind in ("segmentation", "classification"):
        same = [
            a.argmax(0) == b.argmax(0)
            for a, b in zip(_pictures(workload, rows), _pictures(workload, expected), strict=True)
        ]
        result["agreement"] = float(np.mean(same))
    if precision == "float32":
        result["equal"] = bool(difference <= TOLERANCE * result["largest_output"])
    elif workload.held_out is not None:
        result |= _metrics(workload, session, batch)
    return result


def _pictures(workload: Workload, rows: Rows) -> Iterator[npt.NDArray[Any]]:
    return (arrange(workload.config, workload.task, one) for one in rows)


def _metrics(workload: Workload, session: Session, batch: int) -> dict[str, Any]:
    assert workload.held_out is not None
    config = dataclasses.replace(workload.config, tasks=(workload.config.task(workload.task),))

    def outputs(task: str, images: Images) -> Iterator[npt.NDArray[Any]]:
        for start in range(0, len(images), batch):
            part = images[start : start + batch]
            session.feed(np.resize(part, (batch, *images.shape[1:])))  # the last one repeated where some are missing
            session.step()
            yield from _pictures(workload, session.output()[: len(part)])

    def reference(task: str, images: Images) -> Iterator[npt.NDArray[Any]]:
        yield from float_outputs(workload.state, workload.config, task, images)

    count = len(workload.held_out["image"])
    values = {
        name: evaluate(config, source, workload.held_out, count)[workload.task]
        for name, source in (("metrics", outputs), ("float_metrics", reference))
    }
    return {**values, "metrics_scenes": count}
