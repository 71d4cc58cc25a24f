"""The parser of a command line. It imports no more than typer, so that ``edgemoe --help`` is quick."""

from __future__ import annotations

from typing import Any

import typer

__all__ = ["new_application"]


def new_application(**options: Any) -> typer.Typer:
    """A Typer application whose help is plain text: names of options are never cut, and it fits a pipe."""
    return typer.Typer(add_completion=False, rich_markup_mode=None, **options)
