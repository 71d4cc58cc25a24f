"""Tasks for Dask's workers, which import them by name."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any


def slow_task(job: dict[str, Any]) -> dict[str, Any]:
    """Note in a file that it began, wait, and return the job's number."""
    with Path(job["log"]).open("a", encoding="utf-8") as log:
        log.write(f"{job['number']} {os.getpid()}\n")
    time.sleep(job["seconds"])
    return {"number": job["number"], "process": os.getpid()}


def failing_task(job: dict[str, Any]) -> dict[str, Any]:
    """Refuse every job."""
    raise ValueError(f"job {job['number']} is refused")
