"""Tables of ``make scaling``, on a terminal and for docs/scaling.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgemoe.reports.tables import TextTable
from edgemoe.studies.scaling import pays
from edgemoe.studies.scaling_plot import AXIS_TITLES, on_axis
from edgemoe.studies.scaling_points import BASE
from edgemoe.studies.scaling_rtl import worst_error

__all__ = ["scaling_markdown", "scaling_tables"]

Row = Mapping[str, Any]
Results = Mapping[str, Sequence[Row]]


def _rtl_cells(row: Row, rtl: Sequence[Row]) -> tuple[str, str]:
    """Cycles of the RTL at an axis' value and the error of the estimate; empty where it was not run."""
    for found in rtl:
        if on_axis(found["changes"], row["axis"], getattr(BASE, row["axis"])) == row["value"]:
            return f"{found['cycles']:,}", _percent(found["error"])
    return "", ""


def _percent(error: float) -> str:
    return f"{100 * error:+.2f} %"


def _changes(row: Row) -> str:
    return ", ".join(f"{name} {value}" for name, value in row["changes"].items()) or "base"


def _axis_cells(row: Row, rtl: Sequence[Row]) -> list[str]:
    figures = [f"{row[key]:,}" for key in ("cycles", "array_cycles", "memory_cycles")]
    return [str(row["value"]), *figures, row["limit"], f"{row['efficiency']:.2f}", *_rtl_cells(row, rtl)]


def _ratios(row: Row) -> str:
    return ", ".join(f"{value}: {ratio:.3f}" for value, ratio in zip(row["values"], row["ratios"], strict=True))


def scaling_tables(results: Results) -> list[TextTable]:
    """The axes, the techniques, and what the RTL says of the estimates."""
    axes = TextTable(
        "Cycles along each axis, estimated",
        ["", ">cycles", ">array", ">memory", "limit", ">ideal/c.", ">RTL", ">error"],
        caption="array, memory: cycles if it never waits; ideal/c.: the larger over cycles",
        gap=1,
    )
    name = ""
    for row in results["axes"]:
        if name != (name := row["axis"]):
            axes.heading(AXIS_TITLES[name])
        axes.add(*_axis_cells(row, results["rtl"]))
    techniques = TextTable("Where techniques pay: cycles with over cycles without", ["technique", "axis", "pays"])
    for row in results["techniques"]:
        techniques.add(row["technique"], row["axis"], pays(row))
    if not results["rtl"]:
        return [axes, techniques]
    rtl = TextTable(
        "On the RTL",
        ["point", ">cycles", ">estimate", ">error", "exact"],
        caption=f"largest error: {100 * worst_error(results['rtl']):.2f} %",
    )
    for row in results["rtl"]:
        figures = f"{row['cycles']:,}", f"{row['estimate']:,}", _percent(row["error"])
        rtl.add(_changes(row), *figures, "yes" if row["bit_exact"] else "NO")
    return [axes, techniques, rtl]


def scaling_markdown(results: Results) -> dict[str, str]:
    """The tables of docs/scaling.md by the name in their comments."""
    heads = "| | cycles | array alone | memory alone | limit | ideal / cycles | on the RTL | estimate's error |"
    axes = []
    for axis in dict.fromkeys(row["axis"] for row in results["axes"]):
        found = [row for row in results["axes"] if row["axis"] == axis]
        lines = [heads.replace("| |", f"| {AXIS_TITLES[axis]} |", 1), "|---:|---:|---:|---:|---|---:|---:|---:|"]
        lines += [f"| {' | '.join(_axis_cells(row, results['rtl']))} |" for row in found]
        axes.append("\n".join(lines))
    techniques = ["| technique | along | pays | cycles with / without |", "|---|---|---|---|"]
    techniques += [
        f"| {row['technique']} | {AXIS_TITLES[row['axis']]} | {pays(row)} | {_ratios(row)} |"
        for row in results["techniques"]
    ]
    rtl = ["| point | array | RTL, cycles | estimate | error |", "|---|---|---:|---:|---:|"]
    rtl += [
        f"| {_changes(row)} | {row['config'].removeprefix('scaling-').replace('x', ' × ')} | {row['cycles']:,} | "
        f"{row['estimate']:,} | {_percent(row['error'])} |"
        for row in results["rtl"]
    ]
    worst = f"\n\n{len(results['rtl'])} points; the largest error is {100 * worst_error(results['rtl']):.2f} %."
    return {
        "scaling": "\n\n".join(axes),
        "techniques": "\n".join(techniques),
        "scaling RTL": "\n".join(rtl) + worst,
    }
