"""Tasks on Dask: processes of this machine, or the workers of a scheduler that is there already.

A worker that dies takes no result with it: its tasks are run again elsewhere. Tasks are functions of the package with
plain values for arguments and results, so workers need nothing but the package.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from edgemoe.errors import DeviceError
from edgemoe.extras import require

__all__ = ["PATIENCE", "Task", "run_tasks"]

#: A module's function: plain values in, plain values out.
Task = Callable[[dict[str, Any]], dict[str, Any]]

_LOST_WORKERS = 4  # that one task may have had before it is taken to be what kills them
_RETRIES = 1  # of a task that failed by itself: a full disk, a compiler that was killed
_HERE = "127.0.0.1"  # nobody else can reach a cluster of one's own
#: To reach a scheduler.
PATIENCE = "15s"


def run_tasks(
    task: Task,
    jobs: Sequence[dict[str, Any]],
    *,
    scheduler: str | None = None,
    workers: int | None = None,
    on_done: Callable[[int, dict[str, Any]], None] = lambda index, result: None,
) -> list[dict[str, Any]]:
    """Run ``task`` on every job, in parallel; one result a job, in the jobs' order.

    Args:
        task: a function of a module that workers can import
        jobs: its arguments
        scheduler: address of a Dask scheduler, ``tcp://host:port``; None: worker processes of this machine
        workers: how many of these; default: one a core, at most one a job
        on_done: told the job's index and its result as soon as there is one

    Raises:
        MissingExtraError: Dask is not installed
        DeviceError: the scheduler cannot be reached, a task failed, or its workers died again and again
    """
    require("edgemoe explore --verify", "explore")
    if not jobs:
        return []
    import distributed

    with _client(scheduler, workers or min(os.cpu_count() or 1, len(jobs))) as client:
        futures = {client.submit(task, job, pure=False, retries=_RETRIES): index for index, job in enumerate(jobs)}
        results: dict[int, dict[str, Any]] = {}
        for future in distributed.as_completed(futures, loop=client.loop):
            index = futures[future]
            try:
                results[index] = future.result()
            except distributed.KilledWorker:
                raise DeviceError(
                    f"{_LOST_WORKERS} workers died of the same task (out of memory?): {jobs[index]}"
                ) from None
            except (ValueError, OSError, RuntimeError) as error:
                raise DeviceError(f"a task failed: {error}") from error
            on_done(index, results[index])
        return [results[index] for index in range(len(jobs))]


@contextmanager
def _client(scheduler: str | None, workers: int) -> Iterator[Any]:
    """A client of the scheduler, or of a cluster of processes that ends with it."""
    import dask
    import distributed

    logging.getLogger("distributed").setLevel(logging.ERROR)  # a worker that is lost is no news for the user
    settings = {
        "distributed.scheduler.allowed-failures": _LOST_WORKERS,
        "distributed.worker.daemon": False,  # tasks start processes of their own: Yosys, Verilator
    }
    with dask.config.set(settings):
        if scheduler is not None:
            try:
                client = distributed.Client(scheduler, timeout=PATIENCE, set_as_default=False)
            except (OSError, ValueError) as error:
                raise DeviceError(f"no Dask scheduler answers at {scheduler}: {error}") from None
            with client:
                yield client
            return
        cluster = distributed.LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            host=_HERE,
            dashboard_address=f"{_HERE}:0",
            memory_limit=0,
        )
        with cluster, distributed.Client(cluster, set_as_default=False) as client:
            yield client
