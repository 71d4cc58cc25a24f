"""``bench.json``: the accelerator's simulated cycles, baselines on CPU and GPU, and published figures, in one table.

A run replaces the sections that it measures and keeps the other ones:

    accelerator       {"rows": [...]}                     one inference each on the RTL; ms at an assumed clock
    baselines         {"machine": {...}, "rows": [...]}   measured on that machine
    published         [...]                               measured by their authors on boards
    host_overhead_ms  {model: {task: ...}}                the host API's time a frame outside the device, median;
                                                          measured with the baselines, else null
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgemoe.reports.tables import TextTable
from edgemoe.studies.published import PUBLISHED
from edgemoe_models.storage.atomic import write_text
from edgemoe_models.storage.json_text import JsonError, read_json

__all__ = ["PUBLISHED", "Entry", "comparison_table", "entries", "load_results", "save_results", "unavailable"]

Results = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Entry:
    """One inference time, whatever it comes from.

    Attributes:
        kind: simulated, measured or published
        ms, p90_ms, cpu_ms, millijoules: an image: median, 90th percentile, processor time; None where there is none
        check: how its output compares with the float model's
    """

    kind: str
    model: str
    where: str
    numbers: str
    experts: str
    batch: int
    ms: float
    p90_ms: float | None = None
    cpu_ms: float | None = None
    millijoules: float | None = None
    check: str = ""


def load_results(path: Path) -> Results:
    """The sections of an earlier run, or empty ones where there is no file or one of another format."""
    empty: Results = {"accelerator": None, "baselines": None, "published": PUBLISHED, "host_overhead_ms": None}
    try:
        found = read_json(path)
        if not isinstance(found, dict) or found.keys() != empty.keys():
            return empty
        found["published"] = PUBLISHED
        comparison_table(found)  # a damaged one cannot be shown
        unavailable(found)
    except (OSError, JsonError, LookupError, TypeError, ValueError, AttributeError):
        return empty
    return found


def save_results(results: Results, path: Path) -> None:
    """Write the sections."""
    write_text(path, json.dumps(results, indent=1) + "\n")


def entries(results: Results) -> Iterator[Entry]:
    """All inference times, a model after the other, published ones last."""
    simulated = (results["accelerator"] or {"rows": []})["rows"]
    measured = [row for row in (results["baselines"] or {"rows": []})["rows"] if row["status"] == "ok"]
    for model in dict.fromkeys(row["model"] for row in [*simulated, *measured]):
        for row in simulated:
            if row["model"] == model:
                bits = row.get("expert_bits")
                numbers = "int8" if bits in (None, 8) else f"int8, experts int{bits}"
                yield Entry(
                    "simulated",
                    model,
                    f"{row['config']}, {row['assumed_clock_mhz']:g} MHz assumed",
                    numbers,
                    "sparse" if bits else "none",
                    1,
                    row["ms"],
                    check="= integer",
                )
        for row in measured:
            if row["model"] == model:
                yield Entry(
                    "measured",
                    model,
                    row["runtime"],
                    row["precision"],
                    row["experts"],
                    row["batch"],
                    row["ms"],
                    row["p90_ms"],
                    row["cpu_ms"],
                    row["energy_mj"],
                    _check(row),
                )
    for row in results["published"]:
        yield Entry(
            "published",
            row["model"],
            f"{row['name']}, {row['config']}",
            row["numbers"],
            "",
            row["batch"],
            row["ms"],
            millijoules=row["ms"] * row["watts"] if row["watts"] else None,
            check=row["reference"] if row["reference"].startswith("arXiv") else "",
        )


def _check(row: dict[str, Any]) -> str:
    """The largest difference of float32; the change of the metric of other formats, or the share of equal classes."""
    if row["precision"] == "float32":
        return f"{row['max_abs_difference']:.0e}" + ("" if row["equal"] else " DIFFERS")
    if "metrics" in row:
        name = next(iter(row["metrics"]))
        return f"{name} {row['metrics'][name] - row['float_metrics'][name]:+.3f}"
    return f"{row['agreement']:.1%} same" if "agreement" in row else f"{row['max_abs_difference']:.1e}"


def comparison_table(results: Results) -> TextTable:
    """Milliseconds and millijoules an image, in 80 columns."""
    view = TextTable(
        "Time of one image, one task; of a batch divided by its size",
        ["", "numbers", ">batch", ">ms", ">p90", ">CPU", ">mJ", "vs float"],
        caption="MHz: cycles of the simulated RTL at an ASSUMED clock; published: on boards, with\n"
        "the authors' models; CPU: ms of processor time; mJ: empty where power was not\nmeasured",
        gap=1,
    )
    heading = ""
    for entry in entries(results):
        if heading != (heading := entry.model if entry.kind != "published" else "published (arXiv; Hailo)"):
            view.heading(heading)
        p90, cpu = ("" if value is None else _figure(value) for value in (entry.p90_ms, entry.cpu_ms))
        millijoules = "" if entry.millijoules is None else f"{entry.millijoules:.0f}"
        view.add(
            entry.where.removesuffix(" assumed"),
            f"{entry.numbers.replace(', experts ', '+')} {entry.experts}",
            str(entry.batch),
            _figure(entry.ms),
            p90,
            cpu,
            millijoules,
            entry.check.removeprefix("arXiv "),
        )
    return view


def _figure(value: float) -> str:
    """In five characters, up to ten thousand."""
    return f"{value:.2f}" if value < 99.995 else f"{value:.1f}" if value < 999.95 else f"{value:,.0f}"


def unavailable(results: Results) -> list[str]:
    """Baselines without figures, and why; energy's reason too."""
    rows = (results["baselines"] or {"rows": []})["rows"]
    lines = [f"{row['runtime']}, {row['precision']}: {row['status']}" for row in rows if row["status"] != "ok"]
    lines += [
        f"energy, {row['device']}: {row['energy']}"
        for row in rows
        if row["status"] == "ok" and row["energy_mj"] is None
    ]
    return list(dict.fromkeys(lines))
