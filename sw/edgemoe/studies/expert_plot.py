"""The picture of expert loads: for every MoE block the experts' shares by task, and how far the tasks agree."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

from edgemoe.reports.canvas import COLOURS, GREY, INK, RULE, Canvas, text_width

__all__ = ["draw_expert_load"]

_NONE, _ALL = (247, 251, 255), (8, 81, 156)  # cells of the agreement: nothing in common, everything
_HEADER, _ROW, _PLOT, _PAD = 150, 400, 260, 48
_AXIS, _BARS, _TABLE, _CELL = 90, 960, 470, 62


def draw_expert_load(statistics: dict[str, Any], path: Path) -> None:
    """Write the picture of ``expert_load.measure_expert_load``'s statistics as PNG."""
    blocks, tasks = statistics["blocks"], statistics["tasks"]
    matrix = _matrix_width(tasks)
    width = _PAD + _AXIS + _BARS + _PAD + _TABLE + _PAD + matrix + _PAD
    canvas = Canvas(width, _HEADER + len(blocks) * _ROW)
    _header(canvas, statistics)
    top = max(max(load["share"]) for block in blocks for load in block["tasks"].values())
    limit = math.ceil(top * 10) / 10
    for number, block in enumerate(blocks):
        y = _HEADER + number * _ROW
        canvas.text(_PAD, y, f"block {block['block']}", 26)
        _bars(canvas, block, tasks, statistics["experts"], limit, y + 50)
        _table(canvas, block, tasks, _PAD + _AXIS + _BARS + _PAD, y + 50)
        if len(tasks) > 1:
            _agreement(canvas, block, tasks, width - _PAD - matrix, y + 50)
    canvas.save(path)


def _header(canvas: Canvas, statistics: dict[str, Any]) -> None:
    name = " ".join(str(statistics[key]) for key in ("model", "precision") if key in statistics)
    canvas.text(_PAD, 34, f"{name}: which experts the tasks use", 34)
    pictures = "pictures" if "pictures" in statistics else "scenes"
    canvas.text(
        _PAD,
        82,
        f"share of the visits, {statistics['images']} held-out {pictures}, {statistics['tokens']} tokens "
        f"each, top {statistics['top_k']} of {statistics['experts']} experts; dashed: an even load",
        22,
        GREY,
    )


def _bars(canvas: Canvas, block: dict[str, Any], tasks: list[str], experts: int, limit: float, top: int) -> None:
    left, bottom = _PAD + _AXIS, top + _PLOT
    step = 0.1 if limit > 0.2 else 0.05
    for tick in range(round(limit / step) + 1):
        y = bottom - tick * step / limit * _PLOT
        canvas.box(left, y - 1, left + _BARS, y, RULE)
        canvas.text(left - 12, y, f"{100 * tick * step:.0f} %", 20, GREY, "rm")
    slot = _BARS / experts
    bar = slot * 0.8 / len(tasks)
    for expert, (index, task) in itertools.product(range(experts), enumerate(tasks)):
        x = left + expert * slot + slot * 0.1 + index * bar
        height = block["tasks"][task]["share"][expert] / limit * _PLOT
        canvas.box(x, bottom - height, x + bar - 1, bottom, COLOURS[index % len(COLOURS)])
    for expert in range(experts):
        canvas.text(left + (expert + 0.5) * slot, bottom + 10, str(expert), 20, GREY, "ma")
    canvas.text(left + _BARS / 2, bottom + 40, "expert", 20, GREY, "ma")
    canvas.dashes(left, left + _BARS, bottom - _PLOT / experts / limit)


def _table(canvas: Canvas, block: dict[str, Any], tasks: list[str], left: int, top: int) -> None:
    """The legend, and beside it the figures of evenness."""
    columns = ((290, "busiest", "/ mean"), (380, "entropy", "bits"), (470, "unused", "an image"))
    for x, first, second in columns:
        canvas.text(left + x, top, first, 18, GREY, "ra")
        canvas.text(left + x, top + 21, second, 18, GREY, "ra")
    for index, task in enumerate(tasks):
        load, y = block["tasks"][task], top + 76 + index * 44
        canvas.box(left, y - 10, left + 20, y + 10, COLOURS[index % len(COLOURS)])
        canvas.text(left + 32, y, task, 22, anchor="lm")
        for (x, *_), value in zip(columns, ("busiest_over_mean", "entropy_bits", "image_unused"), strict=True):
            canvas.text(left + x, y, f"{load[value]:.2f}", 22, anchor="rm")


def _matrix_width(tasks: list[str]) -> int:
    return 0 if len(tasks) < 2 else max(text_width(task, 20) for task in tasks) + 44 + len(tasks[1:]) * _CELL


def _agreement(canvas: Canvas, block: dict[str, Any], tasks: list[str], left: int, top: int) -> None:
    """Lower triangle of task pairs: the share of a token's experts that both choose."""
    canvas.text(left, top, "same expert for a token", 18, GREY)
    canvas.text(left, top + 21, "(by chance), %", 18, GREY)
    first = left + _matrix_width(tasks) - len(tasks[1:]) * _CELL
    for row, task in enumerate(tasks[1:]):
        y = top + 54 + row * _CELL
        canvas.text(first - 42, y + _CELL / 2, task, 20, anchor="rm")
        canvas.box(first - 32, y + _CELL / 2 - 10, first - 12, y + _CELL / 2 + 10, COLOURS[(row + 1) % len(COLOURS)])
        for column, other in enumerate(tasks[: row + 1]):
            pair, x = block["pairs"][f"{other}/{task}"], first + column * _CELL
            share = pair["same_experts"]
            low, high = _NONE, _ALL
            canvas.box(
                x,
                y,
                x + _CELL - 2,
                y + _CELL - 2,
                tuple(round(a + (b - a) * share) for a, b in zip(low, high, strict=True)),
            )
            ink = "white" if share > 0.5 else INK
            canvas.text(x + _CELL / 2 - 1, y + 22, f"{100 * share:.0f}", 22, ink, "mm")
            canvas.text(x + _CELL / 2 - 1, y + 45, f"({100 * pair['by_chance']:.0f})", 16, ink, "mm")
    for column in range(len(tasks) - 1):
        centre, below = first + (column + 0.5) * _CELL - 1, top + 70 + len(tasks[1:]) * _CELL
        canvas.box(centre - 10, below - 10, centre + 10, below + 10, COLOURS[column % len(COLOURS)])
