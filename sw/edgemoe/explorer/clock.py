"""Whether a board's assumed clock is reached: what static timing estimated for the board's own configuration."""

from __future__ import annotations

from typing import Any

from edgemoe.boards.board import Board
from edgemoe.explorer.resources import fitted

__all__ = ["clock_of", "clock_text"]


def clock_of(board: Board) -> dict[str, Any]:
    """``assumed_mhz``, and where it is known ``estimated_mhz`` and ``reached``.

    The estimate is of the netlist of the board's configuration when it was made (docs/timing.md). The pipeline is the
    same for any array, but larger ones have longer nets: for another configuration it is a hint, which ``--verify``
    replaces by an estimate of its own netlist.
    """
    estimated = fitted().clocks.get(board.file.parent.name)
    found: dict[str, Any] = {"assumed_mhz": board.clock_mhz, "estimated_mhz": estimated}
    return found | {"reached": None if estimated is None else estimated >= board.clock_mhz}


def clock_text(board: Board) -> str:
    """The same as a sentence."""
    found = clock_of(board)
    text = f"{found['assumed_mhz']:g} MHz is assumed"
    if found["estimated_mhz"] is None:
        return f"{text}; no estimate is known"
    verdict = "reached" if found["reached"] else "NOT reached"
    return (
        f"{text}; static timing of {board.file.parent.name}'s own netlist gives {found['estimated_mhz']:g}: {verdict}"
    )
