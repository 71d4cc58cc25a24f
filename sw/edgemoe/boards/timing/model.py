"""What the timing of a cell is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["ALL", "Arc", "CellTiming", "Parameters", "number"]

#: A pin's every bit.
ALL = -1
Arc = tuple[tuple[str, int], tuple[str, int], float]
Parameters = Mapping[str, str]


@dataclass(frozen=True)
class CellTiming:
    """Delays of one cell, ns; pins that it does not have, and constants, simply do not count.

    Attributes:
        launches: output pins that follow the clock, and how long after it
        captures: input pins that must be stable before the clock, and how long
        arcs: from a pin's bit to another's, and the delay; a pin whose name begins with ``@`` is a point inside
        inside: the shortest period that the cell's own registers allow
    """

    launches: Sequence[tuple[str, float]] = ()
    captures: Sequence[tuple[str, float]] = ()
    arcs: Sequence[Arc] = ()
    inside: float = 0.0


def number(parameters: Parameters, name: str, default: int) -> int:
    """A parameter as RTLIL prints numbers: decimal, or a width and binary digits."""
    text = parameters.get(name)
    if text is None:
        return default
    return int(text.partition("'")[2].lstrip("s") or "0", 2) if "'" in text else int(text)
