"""From which clock on a configuration is faster than what others published, and how far it is from its own limit.

No clock of this project has been confirmed by place and route, so a comparison of milliseconds is one of assumptions.
The clock at which a configuration is as fast as another system needs none: its cycles over that system's time.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgemoe.reports.tables import TextTable
from edgemoe.studies.published import PUBLISHED, PUBLISHED_GOPS_PER_DSP
from edgemoe_models.storage.json_text import JsonError, read_json

__all__ = [
    "break_even_markdown",
    "break_even_mhz",
    "break_even_tables",
    "dsp_counts",
    "efficiency",
    "efficiency_markdown",
    "efficiency_table",
    "expert_numbers",
    "system_name",
]

Row = Mapping[str, Any]
_WIDTH = 80
_CAPTION = (
    "*: at most the ASSUMED clock. Cycles are simulated with the DRAM's GB/s at that\n"
    "clock; above it fewer bytes come a cycle, and where memory is the limit it takes\n"
    "more than is said here."
)


def system_name(row: Row) -> str:
    """A published row's short and unique name: system, board where it is none, batch where it is not 1."""
    name = row["name"] if row["name"].startswith("Hailo") else f"{row['name']}, {row['config']}"
    return name if row["batch"] == 1 else f"{name}, batch {row['batch']}"


def break_even_mhz(cycles: int, model: str, published: Sequence[Row] = PUBLISHED) -> dict[str, float]:
    """Clock at which an inference of ``cycles`` takes as long as an image of each system that has the same workload.

    Args:
        cycles: of one inference
        model: this project's
        published: rows as ``PUBLISHED``

    Returns:
        MHz by ``system_name``; empty for a model that nobody has published
    """
    return {system_name(row): cycles / row["ms"] / 1000 for row in published if row["workload"] == model}


def dsp_counts(path: Path) -> dict[str, int]:
    """DSP slices by configuration's hash, from the file that ``make utilisation`` writes; none where there is none."""
    try:
        return {row["config_hash"]: int(row["used"]["dsp"]) for row in read_json(path)}
    except (OSError, JsonError, LookupError, TypeError, ValueError):
        return {}


def efficiency(row: Row, dsp: Mapping[str, int]) -> dict[str, Any]:
    """What a simulated row makes of its hardware.

    Args:
        row: of ``bench_row``
        dsp: ``dsp_counts``

    Returns:
        ``gops`` (two operations a multiplication of the model, without padding), ``dsp`` and ``gops_per_dsp`` (None
        where the configuration was not synthesised), ``limit_ms`` (the array's or the DRAM's, whichever is slower,
        with perfect prefetch) and ``share_of_limit``
    """
    gops = 2 * row["macs"] / row["ms"] / 1e6
    used = dsp.get(row.get("config_hash", ""))
    share = row["ideal_cycles"] / row["cycles"]
    return {
        "gops": gops,
        "dsp": used,
        "gops_per_dsp": gops / used if used else None,
        "limit_ms": row["ms"] * share,
        "share_of_limit": share,
    }


def _simulated(rows: Sequence[Row], key: str) -> list[Row]:
    """Rows of the RTL that have a figure; those of an older version of this program lack some."""
    return [row for row in rows if row.get("source") == "simulated" and key in row]


def expert_numbers(row: Row) -> str:
    """What a simulated row's experts are stored as."""
    return f"int{row['expert_bits']}" if row["expert_bits"] else "none"


def _comparisons(rows: Sequence[Row]) -> Iterator[tuple[str, list[Row], list[Row]]]:
    """Each workload that others have published and that was simulated, with their rows and with ours."""
    for workload in dict.fromkeys(row["workload"] for row in PUBLISHED):
        mine = [row for row in _simulated(rows, "cycles") if row["model"] == workload]
        if mine:
            yield workload, [row for row in PUBLISHED if row["workload"] == workload], mine


def break_even_tables(rows: Sequence[Row]) -> list[TextTable]:
    """A table for each workload that others have published, a line for each simulated row."""
    views = []
    for workload, systems, mine in _comparisons(rows):
        view = TextTable(
            f"Clock from which {workload} is faster than others, MHz",
            ["config", "exp.", ">cycles", ">MHz", *(f">{_column(row)}" for row in systems)],
            caption=_legend(systems) + "\n" + _CAPTION,
            gap=1,
        )
        for row in mine:
            clocks = break_even_mhz(row["cycles"], workload).values()
            assumed = row["assumed_clock_mhz"]
            cells = (f"{mhz:.0f}{'*' if mhz <= assumed else ''}" for mhz in clocks)
            view.add(row["config"], expert_numbers(row), f"{row['cycles']:,}", f"{assumed:.0f}", *cells)
        views.append(view)
    return views


def _column(row: Row) -> str:
    """Of a narrow table: Hailo's chips by their numbers."""
    chip = row["name"].removeprefix("Hailo-")
    return chip if chip == row["name"] else f"{chip}/{row['batch']}"


def _legend(systems: Sequence[Row]) -> str:
    """Others' times."""
    return textwrap.fill("; ".join(f"{_column(row)}: {_what(row)}" for row in systems), _WIDTH)


def _what(row: Row) -> str:
    if row["name"].startswith("Hailo"):
        return f"{row['ms']:.2f} ms (Hailo, batch {row['batch']})"
    return f"{row['ms']:.2f} ms ({row['config']}, {row['clock_mhz']:g} MHz)"


def efficiency_table(rows: Sequence[Row], dsp: Mapping[str, int]) -> TextTable:
    """Operations a second, a DSP slice, and the share of the limit of array and DRAM."""
    view = TextTable(
        "What the hardware is used for, at the ASSUMED clock",
        ["model", "exp.", "config", ">MHz", ">GB/s", ">ms", ">limit", ">share", ">GOPS", ">GOPS/DSP"],
        caption="limit: ms with perfect prefetch, of the array or the DRAM; GOPS/DSP: with the\n"
        "DSPs that make utilisation counted, else empty",
        gap=1,
    )
    for row in _simulated(rows, "ideal_cycles"):
        view.add(row["model"], expert_numbers(row), row["config"], *_efficiency_cells(row, dsp))
    return view


def _efficiency_cells(row: Row, dsp: Mapping[str, int]) -> list[str]:
    """MHz, GB/s, ms, its limit, the share of that, GOPS, and GOPS a DSP."""
    found = efficiency(row, dsp)
    return [
        f"{row['assumed_clock_mhz']:g}",
        f"{row['dram_gb_per_second']:.2f}",
        f"{row['ms']:.2f}",
        f"{found['limit_ms']:.2f}",
        f"{found['share_of_limit']:.0%}",
        f"{found['gops']:.0f}",
        "" if found["gops_per_dsp"] is None else f"{found['gops_per_dsp']:.3f}",
    ]


def break_even_markdown(rows: Sequence[Row]) -> str:
    """``break_even_tables`` for docs/benchmarks.md; bold where the assumed clock is enough."""
    parts = []
    for workload, systems, mine in _comparisons(rows):
        heads = [f"{system_name(row)} ({row['ms']:.2f} ms)" for row in systems]
        lines = [
            f"| `{workload}`: experts | config | cycles | assumed MHz | {' | '.join(heads)} |",
            f"|---|---|---:|---:|{'---:|' * len(heads)}",
        ]
        for row in mine:
            assumed = row["assumed_clock_mhz"]
            cells = [
                f"**{mhz:.0f}**" if mhz <= assumed else f"{mhz:.0f}"
                for mhz in break_even_mhz(row["cycles"], workload).values()
            ]
            first = f"| {expert_numbers(row)} | `{row['config']}` | {row['cycles']:,} | {assumed:g} |"
            lines.append(f"{first} {' | '.join(cells)} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def efficiency_markdown(rows: Sequence[Row], dsp: Mapping[str, int]) -> str:
    """``efficiency_table`` for docs/benchmarks.md, others' GOPS a DSP slice below."""
    lines = [
        "| model | experts | config | assumed MHz | GB/s | ms | limit, ms | share of limit | GOPS | GOPS/DSP |",
        "|---|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in _simulated(rows, "ideal_cycles"):
        cells = [f"`{row['model']}`", expert_numbers(row), f"`{row['config']}`", *_efficiency_cells(row, dsp)]
        lines.append(f"| {' | '.join(cells)} |")
    others = [f"| DeiT-Tiny | | {name} | | | | | | | {value:.3f} |" for name, value in PUBLISHED_GOPS_PER_DSP.items()]
    return "\n".join([*lines, *others]) + "\n"
