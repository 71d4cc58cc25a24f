"""Cells and wires of a placed and routed design, as nextpnr's ``--sdf`` prints them, with the delays that it found."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

__all__ = ["CLOCK", "Arc", "Check", "Wire", "read_sdf"]

#: Names of clock pins.
CLOCK = re.compile(r"CLK[AB0-3]?|WCK")
_INSTANCE = re.compile(r"\(INSTANCE ?(.*?)\s*\)\s*$")
_PIN = r"((?:\\.|[^\s()\\])+)"
_EDGE = rf"(?:\((?:posedge|negedge) {_PIN}\)|{_PIN})"
_DELAY = r"\(([-\d.]+):([-\d.]+):([-\d.]+)\)"
_PATH = re.compile(rf"\(IOPATH {_EDGE} {_PIN} {_DELAY} ?{_DELAY}")
_WIRE = re.compile(rf"\(INTERCONNECT {_PIN} {_PIN} {_DELAY} ?{_DELAY}")
_CHECK = re.compile(rf"\((?:SETUPHOLD|SETUP) {_EDGE} {_EDGE} {_DELAY}")


@dataclass(frozen=True)
class Arc:
    """From a pin of a cell to another; ``clocked``: from its clock."""

    kind: str
    cell: str
    begin: str
    end: str
    ns: float
    clocked: bool


@dataclass(frozen=True)
class Check:
    """A pin that must be stable ``ns`` before the clock."""

    kind: str
    cell: str
    pin: str
    ns: float


@dataclass(frozen=True)
class Wire:
    """A routed connection between pins, as ``cell/pin``."""

    begin: str
    end: str
    ns: float


def read_sdf(lines: Iterable[str]) -> Iterator[Arc | Check | Wire]:
    """What is in an SDF file, in its order; times are in ps there."""
    kind = cell = ""
    for line in lines:
        text = line.strip()
        if text.startswith("(CELLTYPE"):
            kind = text.split('"')[1]
        elif text.startswith("(INSTANCE"):
            found = _INSTANCE.search(text)
            cell = found[1] if found else ""
        elif match := _WIRE.match(text):
            yield Wire(match[1], match[2], _worst(match.groups()[2:]))
        elif match := _PATH.match(text):
            begin = match[1] or match[2]
            yield Arc(kind, cell, begin, match[3], _worst(match.groups()[3:]), bool(CLOCK.fullmatch(begin)))
        elif match := _CHECK.match(text):
            yield Check(kind, cell, match[1] or match[2], _worst(match.groups()[4:]))


def _worst(numbers: Iterable[str]) -> float:
    return max(float(number) for number in numbers) / 1000
