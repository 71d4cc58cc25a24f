"""The pictures of ``make scaling``: cycles along each axis, and what each technique saves along it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgemoe.reports.canvas import COLOURS, GREY, INK, RULE, Canvas, text_width

__all__ = ["AXIS_TITLES", "draw_axes", "draw_techniques"]

#: What each axis is called.
AXIS_TITLES = {
    "macs": "MACs of the array in a cycle",
    "tokens": "tokens of an image",
    "experts": "experts of a MoE block",
    "tasks": "tasks in one program",
    "images": "images in one program (batch)",
    "bandwidth": "DRAM bytes a cycle",
}

Row = Mapping[str, Any]
_PAD, _HEADER, _LEFT, _TITLE, _FOOT = 30, 100, 100, 54, 66
_WIDTH, _HEIGHT, _TEXT = 420, 300, 17
_CYCLE_TICKS = (50_000, 100_000, 200_000, 500_000, 1_000_000, 2_000_000, 5_000_000, 10_000_000)


@dataclass(frozen=True)
class _Plot:
    """One plot's place and scales: x by the values' logarithms, y from 0 at the bottom to 1."""

    canvas: Canvas
    left: int
    top: int
    values: Sequence[int]

    def x(self, value: float) -> float:
        low, high = math.log(self.values[0]), math.log(self.values[-1])
        return self.left + 12 + (math.log(value) - low) / (high - low) * (_WIDTH - 24)

    def y(self, share: float) -> float:
        return self.top + (1 - share) * _HEIGHT

    def frame(self, title: str, ticks: Mapping[str, float]) -> None:
        """Title, grid and the values below; ``ticks``: text of a line across and its height."""
        canvas = self.canvas
        canvas.text(self.left, self.top - 14, title, 20, INK, "ls")
        for text, share in ticks.items():
            canvas.box(self.left, self.y(share) - 1, self.left + _WIDTH, self.y(share), RULE)
            canvas.text(self.left - 8, self.y(share), text, _TEXT, GREY, "rm")
        end = 0.0
        for value in self.values:
            canvas.box(self.x(value), self.top + _HEIGHT, self.x(value) + 1, self.top + _HEIGHT + 6, GREY)
            half = text_width(str(value), _TEXT) / 2
            if self.x(value) - half > end:  # else there is no room beside the one before
                canvas.text(self.x(value), self.top + _HEIGHT + 10, str(value), _TEXT, GREY, "ma")
                end = self.x(value) + half + 4

    def line(self, points: Sequence[tuple[float, float]], colour: str, width: int = 3, dots: bool = True) -> None:
        """Through (value, height)."""
        places = [(self.x(value), self.y(share)) for value, share in points]
        self.canvas.draw.line(places, colour, width, "curve")
        for x, y in places if dots else ():
            self.canvas.draw.ellipse((x - 4, y - 4, x + 4, y + 4), colour)


def _grid(count: int, columns: int, foot: int, last: int = _FOOT) -> tuple[Canvas, list[tuple[int, int]]]:
    """A canvas for so many plots, and each one's place; ``foot`` is what is below a plot, in the last row ``last``."""
    wide, high = _LEFT + _WIDTH + _PAD, _TITLE + _HEIGHT + foot
    rows = -(-count // columns)
    places = [
        (_LEFT + number % columns * wide, _HEADER + number // columns * high + _TITLE - 10) for number in range(count)
    ]
    return Canvas(columns * wide, _HEADER + rows * high - foot + last), places


def _legend(canvas: Canvas, x: int, y: int, entries: Sequence[tuple[str, str]]) -> None:
    for text, colour in entries:
        canvas.box(x, y - 8, x + 18, y + 8, colour)
        canvas.text(x + 26, y, text, _TEXT, INK, "lm")
        x += 60 + text_width(text, _TEXT)


def draw_axes(rows: Sequence[Row], path: Path) -> None:
    """Cycles along each axis with the limits of array and memory, as PNG.

    Args:
        rows: of ``axis_rows``
        path: of the picture
    """
    axes = list(dict.fromkeys(row["axis"] for row in rows))
    canvas, places = _grid(len(axes), 3, _FOOT)
    canvas.text(_PAD, 18, "Cycles of a program along each axis, the others as the base has them (logarithmic)", 26)
    entries = [("estimate", COLOURS[0]), ("limit of the array", COLOURS[2]), ("limit of the memory", COLOURS[1])]
    _legend(canvas, _PAD, 70, entries)
    low, high = math.log(_CYCLE_TICKS[0]), math.log(_CYCLE_TICKS[-1])

    def share(cycles: float) -> float:
        return max((math.log(max(cycles, 1)) - low) / (high - low), 0.0)

    ticks = {f"{tick / 1e6:g} M": share(tick) for tick in _CYCLE_TICKS}
    for axis, place in zip(axes, places, strict=True):
        found = [row for row in rows if row["axis"] == axis]
        plot = _Plot(canvas, *place, [row["value"] for row in found])
        plot.frame(AXIS_TITLES[axis], ticks)
        for key, colour in (("array_cycles", COLOURS[2]), ("memory_cycles", COLOURS[1])):
            plot.line([(row["value"], share(row[key])) for row in found], colour, 2, dots=False)
        plot.line([(row["value"], share(row["cycles"])) for row in found], COLOURS[0])
    canvas.save(path)


def draw_techniques(rows: Sequence[Row], path: Path) -> None:
    """Cycles with each technique over those without it, along the axes, as PNG.

    Args:
        rows: of ``technique_rows``
        path: of the picture
    """
    axes = list(dict.fromkeys(row["axis"] for row in rows))
    most = max(sum(row["axis"] == axis for row in rows) for axis in axes)
    canvas, places = _grid(len(axes), 3, _FOOT + 24 * most, _FOOT + 24)
    canvas.text(_PAD, 18, "Cycles with a technique / cycles without it", 26)
    canvas.text(_PAD, 60, "below 1 it saves cycles", _TEXT, GREY)
    least = math.floor(10 * min(min(row["ratios"]) for row in rows)) / 10
    top = max(1.0, math.ceil(20 * max(max(row["ratios"]) for row in rows)) / 20)
    steps = round((1 - least) * 10)
    ticks = {f"{least + step / 10:.1f}": step / 10 / (top - least) for step in range(steps + 1)}
    for axis, place in zip(axes, places, strict=True):
        found = [row for row in rows if row["axis"] == axis]
        longest = max((row["values"] for row in found), key=len)
        plot = _Plot(canvas, *place, longest)
        plot.frame(AXIS_TITLES[axis], ticks)
        for number, (row, colour) in enumerate(zip(found, (*COLOURS, INK), strict=False)):
            points = zip(row["values"], row["ratios"], strict=True)
            plot.line([(value, (ratio - least) / (top - least)) for value, ratio in points], colour)
            y = place[1] + _HEIGHT + 50 + 24 * number
            _legend(canvas, place[0], y, [(row["technique"], colour)])
    canvas.save(path)
