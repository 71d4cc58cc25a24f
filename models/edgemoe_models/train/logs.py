"""Logs of a run: ``log.csv``, and TensorBoard's files where they are wanted."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Log:
    """Losses go to both, metrics to TensorBoard (they are printed, and stored with the weights).

    Args:
        folder: of ``log.csv``; a file that is there is continued
        tasks: whose losses are columns
        tensorboard: also write ``<folder>/tensorboard``

    Raises:
        ValueError: TensorBoard's files are wanted and tensorboardX is not installed.
    """

    def __init__(self, folder: Path, tasks: list[str], tensorboard: bool) -> None:
        self.path = folder / "log.csv"
        self.columns = ["step", "seconds", "balance", *tasks]
        self.writer: Any = None
        if tensorboard:
            try:
                from tensorboardX import SummaryWriter
            except ImportError as error:
                raise ValueError("tensorboard needs tensorboardX: pip install tensorboardX") from error
            self.writer = SummaryWriter(str(folder / "tensorboard"))

    def losses(self, step: int, seconds: float, losses: Mapping[str, float]) -> None:
        """One row; a task that the step did not train stays empty."""
        new = not self.path.exists()
        row = {"step": step, "seconds": round(seconds, 1)} | {name: round(value, 4) for name, value in losses.items()}
        with self.path.open("a", newline="") as file:
            writer = csv.DictWriter(file, self.columns)
            if new:
                writer.writeheader()
            writer.writerow(row)
        for name, value in losses.items():
            self._scalar(f"loss/{name}", value, step)

    def metrics(self, step: int, metrics: Mapping[str, Mapping[str, float]]) -> None:
        """Metrics by task."""
        for task, values in metrics.items():
            for name, value in values.items():
                self._scalar(f"{task}/{name}", value, step)

    def _scalar(self, name: str, value: float, step: int) -> None:
        if self.writer is not None:
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write what is left."""
        if self.writer is not None:
            self.writer.close()
