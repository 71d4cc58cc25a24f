"""The picture of a front: time against the share of the FPGA."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from edgemoe.explorer.search import Point
from edgemoe.reports.canvas import COLOURS, GREY, INK, RULE, Canvas

__all__ = ["draw_front"]

_PAD, _LEFT, _TOP, _WIDTH, _HEIGHT, _BOTTOM, _RIGHT = 40, 110, 130, 860, 520, 90, 230
_TEXT, _DOT = 19, 7
_POINT, _CHOSEN, _OWN = COLOURS[0], COLOURS[1], COLOURS[2]


def draw_front(title: str, front: Sequence[Point], chosen: Point, own: Point | None, path: Path) -> None:
    """Write the picture as PNG.

    Args:
        title: a line above
        front: the Pareto front, the fastest first
        chosen: of these
        own: the board's own configuration, if it takes the models
        path: of the picture
    """
    canvas = Canvas(_LEFT + _WIDTH + _RIGHT, _TOP + _HEIGHT + _BOTTOM)
    canvas.text(_PAD, 30, title, 28)
    _legend(canvas, own is not None)
    points = [*front, *([own] if own is not None else [])]
    most = max(point.share for point in points)
    low, high = (f(math.log10(point.score) for point in points) for f in (min, max))
    margin = max(0.05, 0.08 * (high - low))
    low, high = low - margin, high + margin

    def place(point: Point) -> tuple[float, float]:
        x = _LEFT + point.share / max(most, 1.0) * _WIDTH
        return x, _TOP + (high - math.log10(point.score)) / (high - low) * _HEIGHT

    _axes(canvas, low, high, max(most, 1.0))
    line = [point for index, point in enumerate(front) if all(point.share < other.share for other in front[:index])]
    for first, second in zip(line, line[1:], strict=False):
        canvas.draw.line([*place(first), *place(second)], _POINT, 2)
    marked = [(point, _POINT) for point in front if point is not chosen] + [(chosen, _CHOSEN)]
    for point, colour in [*marked, *([(own, _OWN)] if own is not None else [])]:
        x, y = place(point)
        canvas.draw.ellipse((x - _DOT, y - _DOT, x + _DOT, y + _DOT), colour)
    _labels(canvas, [(place(point), f"{point.config.lanes_k} x {point.config.lanes_n}") for point in front])
    canvas.save(path)


def _labels(canvas: Canvas, labels: Sequence[tuple[tuple[float, float], str]]) -> None:
    """Right of the points; where one would lie on another, it is left out."""
    taken: list[tuple[float, float]] = []
    for (x, y), text in labels:
        if all(abs(y - other_y) > _TEXT or abs(x - other_x) > 90 for other_x, other_y in taken):
            canvas.text(x + _DOT + 5, y - 4, text, _TEXT, INK, "lm")
            taken.append((x, y))


def _legend(canvas: Canvas, with_own: bool) -> None:
    x = _PAD
    texts = [(_POINT, "front"), (_CHOSEN, "chosen"), *([(_OWN, "the board's own")] if with_own else [])]
    for colour, text in texts:
        canvas.draw.ellipse((x, 86, x + 2 * _DOT, 86 + 2 * _DOT), colour)
        canvas.text(x + 2 * _DOT + 8, 86 + _DOT, text, _TEXT, INK, "lm")
        x += 60 + 11 * len(text)


def _axes(canvas: Canvas, low: float, high: float, most: float) -> None:
    bottom = _TOP + _HEIGHT
    for percent in range(0, round(100 * most) + 1, 20):
        x = _LEFT + percent / 100 / most * _WIDTH
        canvas.box(x, _TOP, x + 1, bottom, RULE)
        canvas.text(x, bottom + 10, f"{percent} %", _TEXT, GREY, "ma")
    canvas.text(_LEFT + _WIDTH / 2, bottom + 42, "of the FPGA, of the resource that is scarcest", _TEXT, GREY, "ma")
    for power in range(math.floor(low), math.ceil(high) + 1):
        for digit in (1, 2, 5):
            value = math.log10(digit) + power
            if low <= value <= high:
                y = _TOP + (high - value) / (high - low) * _HEIGHT
                canvas.box(_LEFT, y, _LEFT + _WIDTH, y + 1, RULE)
                canvas.text(_LEFT - 12, y, f"{digit * 10.0**power:g} ms", _TEXT, GREY, "rm")
