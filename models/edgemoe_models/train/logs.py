"""Logs of a run: ``log.csv``, ``metrics.csv``, and TensorBoard's files where they are wanted."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_METRIC_COLUMNS = ("step", "seconds", "task", "metric", "value")


class Log:
    """Losses go to ``log.csv``, metrics during the run to ``metrics.csv``, both to TensorBoard.

    The last metrics are with the weights.

    Args:
        folder: of the files; one that is there is continued
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
        row = {"step": step, "seconds": round(seconds, 1)} | {name: round(value, 4) for name, value in losses.items()}
        self._append(self.path, self.columns, [row])
        for name, value in losses.items():
            self._scalar(f"loss/{name}", value, step)

    def metrics(self, step: int, seconds: float, metrics: Mapping[str, Mapping[str, float]]) -> None:
        """Metrics by task, a row each."""
        rows = [
            {"step": step, "seconds": round(seconds, 1), "task": task, "metric": name, "value": round(value, 6)}
            for task, values in metrics.items()
            for name, value in values.items()
        ]
        self._append(self.path.with_name("metrics.csv"), list(_METRIC_COLUMNS), rows)
        self.last_metrics(step, metrics)

    def last_metrics(self, step: int, metrics: Mapping[str, Mapping[str, float]]) -> None:
        """Metrics by task, for TensorBoard alone."""
        for task, values in metrics.items():
            for name, value in values.items():
                self._scalar(f"{task}/{name}", value, step)

    def _append(self, path: Path, columns: list[str], rows: list[dict[str, Any]]) -> None:
        new = not path.exists()
        with path.open("a", newline="") as file:
            writer = csv.DictWriter(file, columns)
            if new:
                writer.writeheader()
            writer.writerows(rows)

    def _scalar(self, name: str, value: float, step: int) -> None:
        if self.writer is not None:
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write what is left."""
        if self.writer is not None:
            self.writer.close()
