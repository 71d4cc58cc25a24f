"""The picture of ``bench.json``: milliseconds an image at batch 1, on a logarithmic axis."""

from __future__ import annotations

import math
from pathlib import Path

from edgemoe.reports.canvas import COLOURS, GREY, INK, RULE, Canvas, text_width
from edgemoe.studies.comparison import Entry, Results, entries

__all__ = ["draw_comparison"]

_KINDS = {
    "simulated": "simulated cycles at an ASSUMED clock",
    "measured": "measured",
    "published": "published, on a board, with the authors' model",
}
_PAD, _HEADER, _BAR, _ROW, _GROUP, _AXIS, _VALUE, _FOOTER = 40, 150, 22, 32, 56, 900, 130, 60
_TEXT = 19


def draw_comparison(results: Results, path: Path) -> None:
    """Write the picture as PNG.

    Raises:
        ValueError: there is nothing to show
    """
    shown = [entry for entry in entries(results) if entry.batch == 1]
    if all(entry.kind == "published" for entry in shown):
        raise ValueError("nothing was measured at batch 1, so there is no picture to draw")
    groups: dict[str, list[Entry]] = {}
    for entry in shown:
        groups.setdefault("published" if entry.kind == "published" else entry.model, []).append(entry)
    low, high = (function(math.log10(entry.ms) for entry in shown) for function in (min, max))
    low, high = math.floor(low), math.ceil(high)
    left = _PAD + max(text_width(_label(entry), _TEXT) for entry in shown) + 16
    canvas = Canvas(left + _AXIS + _VALUE + _PAD, _HEADER + len(groups) * _GROUP + len(shown) * _ROW + _FOOTER)
    _header(canvas, _computer(results))
    bottom = canvas.image.height - _FOOTER
    for power in range(low, high + 1):
        x = left + (power - low) / (high - low) * _AXIS
        canvas.box(x, _HEADER, x + 1, bottom, RULE)
        canvas.text(x, bottom + 10, f"{10.0**power:g} ms", _TEXT, GREY, "ma")
    y = _HEADER
    for name, group in groups.items():
        canvas.text(_PAD, y + _GROUP - 14, name, 24, INK, "ls")
        y += _GROUP
        for entry in group:
            end = left + (math.log10(entry.ms) - low) / (high - low) * _AXIS
            canvas.text(left - 12, y + _BAR / 2, _label(entry), _TEXT, INK, "rm")
            canvas.box(left, y, end, y + _BAR, COLOURS[list(_KINDS).index(entry.kind)])
            canvas.text(end + 8, y + _BAR / 2, f"{entry.ms:.2f} ms", _TEXT, INK, "lm")
            y += _ROW
    canvas.save(path)


def _label(entry: Entry) -> str:
    experts = f"{entry.experts} experts" if entry.experts in ("sparse", "dense") else ""
    where = f"edgemoe {entry.where}" if entry.kind == "simulated" else entry.where
    return ", ".join(part for part in (where, entry.numbers, experts) if part)


def _computer(results: Results) -> str:
    """Where baselines were measured, and how busy it was."""
    if not results["baselines"]:
        return ""
    threads = sorted({row["threads"] for row in results["baselines"]["rows"]})
    computer = results["baselines"]["machine"]
    return f" on {computer['cpu']}, CPU threads: {', '.join(map(str, threads))}, load {computer['load_average']:.1f}"


def _header(canvas: Canvas, computer: str) -> None:
    canvas.text(_PAD, 30, "Milliseconds for one image, one task (batch 1, logarithmic axis)", 30)
    x = _PAD
    for colour, (kind, text) in zip(COLOURS, _KINDS.items(), strict=False):
        text += computer if kind == "measured" else ""
        canvas.box(x, 92, x + 22, 114, colour)
        canvas.text(x + 32, 103, text, _TEXT, INK, "lm")
        x += 72 + text_width(text, _TEXT)
