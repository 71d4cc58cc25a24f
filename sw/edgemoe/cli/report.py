"""``edgemoe report``: print a report again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgemoe.cli.options import RESULTS
from edgemoe.cli.output import say, show
from edgemoe.reports.cycles import summary, table
from edgemoe.reports.files import load_report

__all__ = ["command"]


def command(
    path: Annotated[Path, typer.Argument(help="report.json of sim or run")] = RESULTS / "sim/report.json",
) -> None:
    """Print a report that sim or run wrote: cycles of each phase, equality, DRAM traffic, metrics."""
    report = load_report(path)
    show(table(report))
    for line in summary(report):
        say(line)
