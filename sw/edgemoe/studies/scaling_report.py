"""Tables of ``make scaling``, on a terminal and for docs/scaling.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgemoe.reports.tables import TextTable
from edgemoe.studies.scaling import pays
from edgemoe.studies.scaling_plot import AXIS_TITLES
from edgemoe.studies.scaling_rtl import worst_error

__all__ = ["scaling_markdown", "scaling_tables"]

Row = Mapping[str, Any]
Results = Mapping[str, Sequence[Row]]


def _percent(error: float) -> str:
    return f"{100 * error:+.2f} %"


def _changes(row: Row) -> str:
    shown = {name: value for name, value in row["changes"].items() if name not in ("preset", "bandwidth")}
    return ", ".join(f"{name} {value}" for name, value in shown.items()) or "nothing"


def _axis_cells(row: Row) -> list[str]:
    figures = [f"{row[key]:,}" for key in ("cycles", "array_cycles", "memory_cycles")]
    return [str(row["value"]), *figures, row["limit"], f"{row['efficiency']:.2f}"]


def _ratios(row: Row) -> str:
    return ", ".join(f"{value}: {ratio:.3f}" for value, ratio in zip(row["values"], row["ratios"], strict=True))


def scaling_tables(results: Results) -> list[TextTable]:
    """The axes, the techniques, and what the RTL says of the estimates."""
    axes = TextTable(
        "Cycles along each axis, estimated",
        ["", ">cycles", ">array", ">memory", "limit", ">ideal / cycles"],
        caption="array, memory: cycles if it never waits; ideal: the larger of both",
    )
    name = ""
    for row in results["axes"]:
        if name != (name := row["axis"]):
            axes.heading(AXIS_TITLES[name])
        axes.add(*_axis_cells(row))
    techniques = TextTable("Where techniques pay: cycles with over cycles without", ["technique", "axis", "pays"])
    for row in results["techniques"]:
        techniques.add(row["technique"], row["axis"], pays(row))
    if not results["rtl"]:
        return [axes, techniques]
    rtl = TextTable(
        "On the RTL",
        ["changed", "config", ">B/cycle", ">cycles", ">estimate", ">error", "exact"],
        caption=f"largest error: {100 * worst_error(results['rtl']):.2f} %",
        gap=1,
    )
    for row in results["rtl"]:
        figures = f"{row['cycles']:,}", f"{row['estimate']:,}", _percent(row["error"])
        rtl.add(_changes(row), row["config"], str(row["bandwidth"]), *figures, "yes" if row["bit_exact"] else "NO")
    return [axes, techniques, rtl]


def scaling_markdown(results: Results) -> dict[str, str]:
    """The tables of docs/scaling.md by the name in their comments."""
    heads = "| | cycles | array alone | memory alone | limit | ideal / cycles |"
    axes = []
    for axis in dict.fromkeys(row["axis"] for row in results["axes"]):
        found = [row for row in results["axes"] if row["axis"] == axis]
        lines = [heads.replace("| |", f"| {AXIS_TITLES[axis]} |", 1), "|---:|---:|---:|---:|---|---:|"]
        lines += [f"| {' | '.join(_axis_cells(row))} |" for row in found]
        axes.append("\n".join(lines))
    techniques = ["| technique | along | pays | cycles with / without |", "|---|---|---|---|"]
    techniques += [
        f"| {row['technique']} | {AXIS_TITLES[row['axis']]} | {pays(row)} | {_ratios(row)} |"
        for row in results["techniques"]
    ]
    rtl = [
        "| other than the base | hardware | B a cycle | RTL, cycles | estimate | error |",
        "|---|---|---:|---:|---:|---:|",
    ]
    rtl += [
        f"| {_changes(row)} | `{row['config']}` | {row['bandwidth']} | {row['cycles']:,} | "
        f"{row['estimate']:,} | {_percent(row['error'])} |"
        for row in results["rtl"]
    ]
    worst = f"\n\n{len(results['rtl'])} points; the largest error is {100 * worst_error(results['rtl']):.2f} %."
    return {
        "scaling": "\n\n".join(axes),
        "techniques": "\n".join(techniques),
        "scaling RTL": "\n".join(rtl) + worst,
    }
