"""The explorer's record, ``docs/measurements/explorer.json``, and what follows from it.

Usage: ``python tools/explorer_record.py [--add result.json ...] [--cycles] [--presets [BOARD ...]] [--check]``

``--add`` takes what ``edgemoe explore --verify`` wrote (``verified.json``): runs of Yosys and of the RTL, with their
configurations. ``--cycles`` estimates every row of ``accelerator.json`` again whose DRAM model is plain; ``--presets``
searches boards, by default all, for their reference workload. Then the linear model of LUTs and flip-flops is fitted
to all runs, its coefficients go to the package, and the tables of ``docs/explorer.md`` are written. ``--check`` writes
nothing and fails if anything would change.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import accelerator_record

from edgemoe.boards.board import board_names, load_board
from edgemoe.boards.synth import RESOURCES
from edgemoe.explorer import resources
from edgemoe.explorer.calibration import Run, errors, fit
from edgemoe.explorer.cycles import estimated_cycles, workload
from edgemoe.explorer.search import judge, search
from edgemoe_hw.spec.config import ISA_VERSION, AcceleratorConfig
from edgemoe_models.storage.atomic import write_text
from edgemoe_models.storage.json_text import read_json

__all__ = ["RECORD", "REFERENCE", "coefficients_text", "cycle_rows", "load", "preset_row", "runs_of", "tables"]

_DOCS = Path(__file__).parents[1] / "docs"
RECORD = _DOCS / "measurements" / "explorer.json"
PAGE = _DOCS / "explorer.md"
#: The workload for which the boards' own configurations were chosen.
REFERENCE = "m3vit-tiny"
Record = dict[str, Any]


def load(path: Path = RECORD) -> Record:
    """The record."""
    return dict(read_json(path))


def runs_of(record: Record) -> list[Run]:
    """The runs of Yosys."""
    return [
        Run(
            row["board"],
            load_board(row["board"]).device.family,
            AcceleratorConfig.from_dict(row["config"]),
            row["used"],
            row["units"],
        )
        for row in record["runs"]
    ]


def add(record: Record, rows: Iterable[Record]) -> None:
    """Put runs into the record, in place of those of the same board and configuration."""
    found = {(run["board"], run["config_hash"]): run for run in record["runs"]}
    for row in rows:
        config = AcceleratorConfig.from_dict(row["config"])
        units = {
            unit: {resource: used[resource] for resource in resources.FITTED}
            for unit, used in row.get("units", {}).items()
        }
        found[row["board"], config.content_hash] = {
            "board": row["board"],
            "config_hash": config.content_hash,
            "config": config.to_dict(),
            "used": {resource: row["used"][resource] for resource in RESOURCES},
            "units": units,
            "tool": row["tool"],
        }
    record["runs"] = [found[key] for key in sorted(found)]


def cycle_rows(record: Record) -> list[Record]:
    """Estimate and RTL of every row of ``accelerator.json`` with a plain DRAM, on a configuration of the record."""
    configs = {}
    for run in record["runs"]:
        config = AcceleratorConfig.from_dict(run["config"])
        for isa in (ISA_VERSION, *accelerator_record.SAME_CYCLES):
            configs[config.content_hash_of(isa)] = config
    return list(_cycle_rows(configs, read_json(_DOCS / "measurements" / "accelerator.json")["rows"]))


def _cycle_rows(configs: dict[str, AcceleratorConfig], rows: list[Record]) -> Iterator[Record]:
    for row in rows:
        config = configs.get(row["config_hash"])
        if row["dram_model"] != "plain" or config is None:
            continue
        clock, dram = row["assumed_clock_mhz"], row["dram_gb_per_second"]
        config = dataclasses.replace(config, assumed_clock_mhz=clock, dram_gb_per_second=dram)
        estimate = estimated_cycles(workload(row["model"], row["expert_bits"] or 8), config)
        yield {
            "model": row["model"],
            "expert_bits": row["expert_bits"],
            "board": row["config"].partition("-at-")[0],
            "clock_mhz": clock,
            "rtl": row["cycles"],
            "estimate": estimate,
            "error": round(estimate / row["cycles"] - 1, 4),
        }


def preset_row(name: str) -> Record:
    """What the explorer chooses for a board, beside the board's own configuration."""
    board, load = load_board(name), workload(REFERENCE)
    found, own = search(board, [load]), judge(board.config, board, [load])
    points = {"own": own, "chosen": found.chosen}
    return {
        "board": name,
        "candidates": {"legal": found.legal, "fitting": found.fitting, "judged": found.judged},
        **{
            kind: _array(point.config) | {"ms": round(point.score, 4), "share": round(point.share, 4)}
            for kind, point in points.items()
        },
    }


def _array(config: AcceleratorConfig) -> Record:
    names = ("lanes_k", "lanes_n", "epilogue_lanes", "norm_lanes", "axi_masters", "ultra_ram")
    return {name: getattr(config, name) for name in names}


def coefficients_text(record: Record) -> str:
    """The package's file of coefficients."""
    summary = {"runs": record["errors"]["runs"], **record["errors"]["resources"]}
    timing = read_json(_DOCS / "measurements" / "timing.json")
    clocks = {board: row["fmax_mhz"] for board, row in timing.items() if "fmax_mhz" in row}
    values = {"coefficients": fit(runs_of(record)), "errors": summary, "clocks": clocks}
    return json.dumps(values, indent=1) + "\n"


def tables(record: Record) -> dict[str, str]:
    """The tables of the page, by name."""
    found = {"resources": _resource_table(record), "cycles": _cycle_table(record), "presets": _preset_table(record)}
    return {name: text for name, text in found.items() if text}


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:+.1f} %"


def _resource_table(record: Record) -> str:
    lines = [
        "| board | array | LUT | FF | DSP | BRAM | URAM | LUT, not seen | FF, not seen |",
        "|---|---|" + "---:|" * 7,
    ]
    for row in record["errors"]["rows"]:
        cells = [_percent(row["error"].get(resource)) for resource in RESOURCES]
        cells += [_percent(row["left_out"].get(resource)) for resource in resources.FITTED]
        lines.append(f"| `{row['board']}` | {row['array'].replace('x', ' × ')} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cycle_table(record: Record) -> str:
    lines = ["| model | experts | board | MHz | RTL | estimate | error |", "|---|---|---|---:|---:|---:|---:|"]
    for row in record["cycles"]:
        experts = f"int{row['expert_bits']}" if row["expert_bits"] else ""
        lines.append(
            f"| `{row['model']}` | {experts} | `{row['board']}` | {row['clock_mhz']:g} | {row['rtl']:,} | "
            f"{row['estimate']:,} | {_percent(row['error'])} |"
        )
    return "\n".join(lines)


def _preset_table(record: Record) -> str:
    if not record["presets"]:
        return ""
    lines = ["| board | own array | ms | chosen | ms | own / chosen |", "|---|---|---:|---|---:|---:|"]
    for row in record["presets"]:
        own, chosen = row["own"], row["chosen"]
        lines.append(
            f"| `{row['board']}` | {_shape(own)} | {own['ms']:.2f} | {_shape(chosen)} | {chosen['ms']:.2f} | "
            f"{own['ms'] / chosen['ms']:.3f} |"
        )
    return "\n".join(lines)


def _shape(array: Record) -> str:
    return f"{array['lanes_k']} × {array['lanes_n']}, {array['epilogue_lanes']} epilogue lanes"


def with_tables(page: str, record: Record) -> str:
    """The page with its tables between their marks."""
    for name, table in tables(record).items():
        begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
        before, _, rest = page.partition(begin)
        _, _, after = rest.partition(end)
        page = f"{before}{begin}\n\n{table}\n\n{end}{after}"
    return page


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--add", nargs="*", type=Path, default=[], metavar="FILE")
    parser.add_argument("--cycles", action="store_true")
    parser.add_argument("--presets", nargs="*", metavar="BOARD")
    parser.add_argument("--check", action="store_true")
    given = parser.parse_args(arguments)
    record = load() if RECORD.exists() else {"runs": [], "cycles": [], "presets": []}
    for path in given.add:
        add(record, read_json(path))
    record["errors"] = errors(runs_of(record))
    new = {resources.COEFFICIENTS: coefficients_text(record)}
    if not given.check:
        write_text(resources.COEFFICIENTS, new[resources.COEFFICIENTS])  # what the searches below take
        resources.fitted.cache_clear()
    if given.cycles:
        record["cycles"] = cycle_rows(record)
    if given.presets is not None:
        rows = {row["board"]: row for row in record["presets"]}
        rows |= {name: preset_row(name) for name in given.presets or board_names()}
        record["presets"] = [rows[name] for name in sorted(rows)]
    new[RECORD] = json.dumps(record, indent=1) + "\n"
    if PAGE.exists():
        new[PAGE] = with_tables(PAGE.read_text(encoding="utf-8"), record)
    changed = [path for path, text in new.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    if given.check:
        return int(bool(changed))
    for path in changed:
        write_text(path, new[path])
    return 0


if __name__ == "__main__":
    sys.exit(main())
