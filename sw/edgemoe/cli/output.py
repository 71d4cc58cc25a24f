"""What the verbs print: results to stdout, everything else to stderr.

Nothing is ever read as markup: names of files, models and tasks come from users and are printed as they are, control
characters, line breaks among them, as escapes. Only this module uses rich.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from edgemoe.reports.tables import TextTable

if TYPE_CHECKING:
    from rich.progress import Progress

__all__ = ["PATIENCE", "Work", "complain", "hint", "note", "say", "show", "use_any_encoding", "working"]

_BOLD, _PLAIN = "\x1b[1m", "\x1b[0m"
PATIENCE = 1.0  # seconds after which a step is named where no bar can be drawn
_AGAIN = 60.0  # seconds after which details of a long step are named there


def use_any_encoding() -> None:
    """Let stdout print names that its encoding has no characters for."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")


def _printable(line: str) -> str:
    """One line without anything that moves a cursor, hides or turns text: such characters as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


def say(*lines: str) -> None:
    """Lines of results, seen at once where a pipe or a file is written too: ``edgemoe demo`` runs on for hours."""
    for line in lines:
        sys.stdout.write(_printable(line) + "\n")
    sys.stdout.flush()


def show(table: TextTable) -> None:
    """A table; its title and header are bold on a terminal."""
    strong = {table.title, table.header()} if sys.stdout.isatty() and "NO_COLOR" not in os.environ else set()
    for line in map(_printable, table.lines()):
        sys.stdout.write(f"{_BOLD}{line}{_PLAIN}\n" if line in strong else f"{line}\n")


def note(text: str) -> None:
    """One line that is no result: what is being done, or was noticed. Of several processes only the first says it."""
    if os.environ.get("RANK", "0") == "0":
        sys.stderr.write(_printable(text) + "\n")
        sys.stderr.flush()


def hint(text: str) -> None:
    """A ``note`` about what was given, of whoever reads it."""
    note(f"note: {text}")


def complain(text: str) -> None:
    """The line that says why a command failed."""
    sys.stderr.write(f"edgemoe: {_printable(' '.join(text.split()))}\n")


class Work:
    """Says what is being done: a moving line with a bar on a terminal, elsewhere a line for each step that lasts."""

    def __init__(self, bar: Progress | None) -> None:
        self._bar, self._named, self._text = bar, time.monotonic(), ""
        self._task = None if bar is None else bar.add_task("", total=None)
        self._timer: threading.Timer | None = None

    def step(self, text: str, share: float | None = None) -> None:
        """A step begins, or goes on: ``share`` is what is done of all work, 0..1, where that is known."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, description=text, total=None if share is None else 1.0, completed=share or 0.0)
        elif text != self._text:
            self.stop()
            self._timer = threading.Timer(PATIENCE, note, [text])
            self._timer.daemon = True
            self._timer.start()
        self._text = text

    def detail(self, text: str, share: float) -> None:
        """How far a long step is; its text may change all the time."""
        if self._bar is not None:
            self.step(text, share)
        elif time.monotonic() - self._named > _AGAIN:
            self._named = time.monotonic()
            note(f"{share:.0%}: {text}")

    def say(self, *lines: str) -> None:
        """Lines of results before the work is over."""
        if self._bar is not None:
            self._bar.stop()
        say(*lines)
        sys.stdout.flush()
        if self._bar is not None:
            self._bar.start()

    def stop(self) -> None:
        """The last step is over."""
        if self._timer is not None:
            self._timer.cancel()


@contextmanager
def working(text: str) -> Iterator[Work]:
    """A ``Work`` that begins with the step ``text``."""
    if not sys.stderr.isatty():
        work = Work(None)
        work.step(text)
        try:
            yield work
        finally:
            work.stop()
        return
    from rich.console import Console  # a tenth of a second, which --help and short verbs need not wait
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True, markup=False, highlight=False, emoji=False)
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, redirect_stdout=False) as bar:
        work = Work(bar)
        work.step(text)
        yield work
