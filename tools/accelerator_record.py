"""Cycles and resources of all boards: ``docs/measurements``, and the tables of them in the documentation.

Usage: ``python tools/accelerator_record.py [--add bench.json ...] [--check]``

``--add`` takes rows of files that ``edgemoe bench --only accelerator --config BOARD --dram MODEL`` wrote; a row
replaces the one of the same model, experts, configuration, clock and DRAM model. Resources are those that ``edgemoe
boards --utilisation --json docs/measurements/boards.json`` wrote. Rows of a configuration that a board no longer has
are an error: they say nothing about it. A configuration called BOARD-at-MHZ is the board's at another clock. Rows of
an earlier ISA whose commands take the same cycles (``SAME_CYCLES``), or of other depths of memories
(``SAME_ARRAYS``), stay until they are measured again; the tables mark them. ``--frames`` takes files of
``edgemoe study frames``.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timing_record

from edgemoe.configs import find_config
from edgemoe.studies.break_even import break_even_markdown, efficiency_markdown, expert_numbers
from edgemoe_hw.spec.config import AcceleratorConfig
from edgemoe_models.storage.atomic import write_text
from edgemoe_models.storage.json_text import read_json

__all__ = [
    "PAGES",
    "SAME_ARRAYS",
    "SAME_CYCLES",
    "add",
    "add_frames",
    "blocks",
    "is_earlier",
    "load",
    "load_frames",
    "stale",
    "update",
]

_DOCS = Path(__file__).parents[1] / "docs"
RECORD = _DOCS / "measurements" / "accelerator.json"
RESOURCES = _DOCS / "measurements" / "boards.json"
FRAMES = _DOCS / "measurements" / "frames.json"
PAGES = {
    "benchmarks.md": ("accelerator", "frames", "dram", "efficiency", "break-even"),
    "boards.md": ("utilisation",),
    "timing.md": ("clock",),
}
_BOARDS = ("pynq-z2", "ultra96v2", "aup-zu3", "kv260", "zcu104", "zcu102")
_MODELS = ("m3vit-micro", "m3vit-tiny", "deit-tiny")
#: Earlier ISAs of which the same programs take the same cycles. ISA 4 moved the activation's shift from the command to
#: the parameters and changed no latency; ``test_rows_of_both_isas_agree`` compares rows that were measured with both.
SAME_CYCLES = (3,)
#: Memories that boards had when rows were measured that have not been measured again: fewer tokens of a program,
#: another number of queries at once. The same test compares what was measured with both.
SAME_ARRAYS: dict[str, dict[str, Any]] = {
    "pynq-z2": {"act_depth": 8192, "residual_depth": 4736, "score_depth": 3072, "max_tokens": 256},
    "zcu102": {"act_depth": 4096, "residual_depth": 4096, "score_depth": 1024, "max_tokens": 256},
}
_KEPT_NOT = ("seconds", "sim_cycles_per_second", "break_even_mhz")  # of the machine, or computed again
Row = dict[str, Any]


def _key(row: Row) -> tuple[Any, ...]:
    board, _, clock = row["config"].partition("-at-")
    places = (_MODELS.index(row["model"]), _BOARDS.index(board), clock, -(row["expert_bits"] or 0))
    return (*places, row["assumed_clock_mhz"], row["dram_model"] != "plain", row["dram_model"])


def add(rows: Sequence[Row], more: Sequence[Row]) -> list[Row]:
    """Rows in their order, ``more`` in place of those that they repeat; of earlier hardware the cycles are kept."""
    found = {_key(row): row for row in rows}
    for row in more:
        new, old = {name: value for name, value in row.items() if name not in _KEPT_NOT}, found.get(_key(row))
        if old is not None and is_earlier(old) and not is_earlier(new):
            new["earlier_cycles"] = old["cycles"]
        found[_key(row)] = new
    return [found[key] for key in sorted(found)]


def stale(rows: Sequence[Row]) -> list[str]:
    """What is of other hardware than its board's now, or of another clock."""
    wrong = []
    for row in rows:
        name = str(row.get("config") or row["board"])
        board, _, clock = name.partition("-at-")
        config = find_config(board)
        known = {config.content_hash, *_earlier(config)}
        other_clock = not clock and row.get("assumed_clock_mhz", config.assumed_clock_mhz) != config.assumed_clock_mhz
        if row["config_hash"] not in known or other_clock:
            wrong.append(f"{row.get('model', 'resources')} on {name}")
    return wrong


def _earlier(config: AcceleratorConfig) -> set[str]:
    """Hashes of the hardware that a configuration was before, in time."""
    hashes = {config.content_hash_of(version) for version in SAME_CYCLES}
    if config.name in SAME_ARRAYS:
        before = dataclasses.replace(config, **SAME_ARRAYS[config.name])
        hashes |= {before.content_hash, *(before.content_hash_of(version) for version in SAME_CYCLES)}
    return hashes


def is_earlier(row: Row) -> bool:
    """Whether the row is of an earlier ISA's hardware, or of the board's with other memories."""
    board = str(row.get("config") or row["board"]).partition("-at-")[0]
    return row["config_hash"] in _earlier(find_config(board))


def blocks(rows: Sequence[Row], boards: Sequence[Row], frames: Sequence[Row] = ()) -> dict[str, str]:
    """The tables by the name in their comments."""
    plain = [row for row in rows if row["dram_model"] == "plain"]
    dsp: dict[str, int] = {}
    for row in boards:
        config = find_config(row["board"])
        dsp |= dict.fromkeys({config.content_hash, *_earlier(config)}, int(row["used"]["dsp"]))
    return {
        "accelerator": _cycles(plain),
        "frames": _frames(frames),
        "dram": _drams(rows),
        "efficiency": efficiency_markdown([row for row in plain if row["model"] != "m3vit-micro"], dsp).rstrip(),
        "break-even": break_even_markdown(plain).rstrip(),
        "utilisation": _utilisation(boards),
        "clock": timing_record.table(read_json(timing_record.RECORD)),
    }


def _utilisation(boards: Sequence[Row]) -> str:
    kinds = ("lut", "ff", "dsp", "bram36", "uram")
    lines = [
        "| board | FPGA | array | LUT | FF | DSP | block RAM (36 kbit) | UltraRAM | fits |",
        "|---|---|---|---:|---:|---:|---:|---:|---|",
    ]
    for row in boards:
        cells = []
        for kind in kinds:
            used, there = row["used"][kind], row["available"][kind]
            cells.append(f"{used:,g} ({used / there:.0%})" if there else "none")
        array = f"{row['lanes_k']} × {row['lanes_n']}"
        fits = "yes" if row["fits"] else "no"
        mark = " †" if is_earlier(row) else ""
        lines.append(f"| `{row['board']}`{mark} | {row['device'].upper()} | {array} | {' | '.join(cells)} | {fits} |")
    return "\n".join(lines)


def _cycles(rows: Sequence[Row]) -> str:
    lines = [
        "| model | experts | board | MHz, assumed | DRAM GB/s, assumed | cycles | ms | ideal / cycles | "
        "bound / cycles | DRAM bytes / least |",
        "|---|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        figures = [
            f"{row['assumed_clock_mhz']:g}",
            f"{row['dram_gb_per_second']:.2f}",
            f"{row['cycles']:,}",
            f"{row['ms']:.2f}",
            f"{row['ideal_efficiency']:.3f}",
            f"{row['roofline_efficiency']:.3f}",
            f"{row['dram_ratio']:.3f}",
        ]
        mark = " †" if is_earlier(row) else ""
        lines.append(f"| `{row['model']}` | {expert_numbers(row)} | `{row['config']}`{mark} | {' | '.join(figures)} |")
    return "\n".join(lines)


def _frames(rows: Sequence[Row]) -> str:
    lines = [
        "| model | experts | board | tasks | images | programs | cycles | one by one | ratio | least ratio "
        "| DRAM bytes |",
        "|---|---|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        figures = [
            *(str(row[name]) for name in ("tasks", "images", "programs")),
            *(f"{row[name]:,}" for name in ("cycles", "cycles_apart")),
            *(f"{row[name]:.3f}" for name in ("ratio", "ideal_ratio")),
            f"{row['bytes_read'] / row['bytes_read_apart']:.3f}",
        ]
        lines.append(f"| `{row['model']}` | {expert_numbers(row)} | `{row['config']}` | {' | '.join(figures)} |")
    return "\n".join(lines)


def add_frames(rows: Sequence[Row], more: Sequence[Row]) -> list[Row]:
    """As ``add``, of rows of several tasks or images in one program."""
    key = ("model", "config", "tasks", "images")
    found = {tuple(row[name] for name in key): row for row in (*rows, *more)}
    kept = ({name: value for name, value in row.items() if name != "sim_seconds"} for row in found.values())
    return sorted(kept, key=lambda row: (-_MODELS.index(row["model"]), _BOARDS.index(row["config"]), -row["images"]))


def _drams(rows: Sequence[Row]) -> str:
    """Cycles of other DRAM models over the plain one's."""
    kinds = ("axi3", "refresh", "worst")
    lines = [
        f"| model | experts | board | plain, cycles | {' | '.join(kinds)} |",
        f"|---|---|---|---:|{'---:|' * len(kinds)}",
    ]
    for row in rows:
        if row["dram_model"] != "plain":
            continue
        same = ("model", "expert_bits", "config", "assumed_clock_mhz")
        others = {other["dram_model"]: other for other in rows if all(other[name] == row[name] for name in same)}
        if len(others) == 1:
            continue
        cells = [f"{others[kind]['cycles'] / row['cycles']:.4f}" if kind in others else "" for kind in kinds]
        first = f"| `{row['model']}` | {expert_numbers(row)} | `{row['config']}` | {row['cycles']:,} |"
        lines.append(f"{first} {' | '.join(cells)} |")
    return "\n".join(lines)


def update(page: str, name: str, table: str) -> str:
    """The page with this table.

    Raises:
        ValueError: it has not exactly one place for it
    """
    place = re.compile(f"(<!-- {name} table -->\n).*?(\n<!-- end of {name} table -->)", re.DOTALL)
    page, found = place.subn(lambda match: match[1] + table + match[2], page)
    if found != 1:
        raise ValueError(f"the page must have one place '<!-- {name} table -->', not {found}")
    return page


def load() -> tuple[list[Row], list[Row]]:
    """The kept rows of cycles, and of resources."""
    return read_json(RECORD)["rows"] if RECORD.exists() else [], read_json(RESOURCES)


def load_frames() -> list[Row]:
    """The kept rows of several tasks or images in one program."""
    found: list[Row] = read_json(FRAMES) if FRAMES.exists() else []
    return found


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Cycles and resources of all boards, and their tables in docs.")
    parser.add_argument("--add", nargs="+", type=Path, default=[], metavar="FILE", help="bench.json of edgemoe bench")
    parser.add_argument("--frames", nargs="+", type=Path, default=[], metavar="FILE", help="of edgemoe study frames")
    parser.add_argument("--check", action="store_true", help="only compare; other pages are an error")
    options = parser.parse_args(arguments)
    rows, boards = load()
    for path in options.add:
        rows = add(rows, read_json(path)["accelerator"]["rows"])
    frames = load_frames()
    for path in options.frames:
        frames = add_frames(frames, read_json(path))
    if wrong := stale([*rows, *boards, *frames]):
        print(f"measure again: {', '.join(wrong)}", file=sys.stderr)
        return 1
    tables, differ = blocks(rows, boards, frames), False
    for name, names in PAGES.items():
        page = wanted = (_DOCS / name).read_text(encoding="utf-8")
        for table in names:
            wanted = update(wanted, table, tables[table])
        differ |= page != wanted
        if not options.check:
            write_text(_DOCS / name, wanted)
    if not options.check:
        write_text(RECORD, json.dumps({"rows": rows}, indent=1) + "\n")
        write_text(FRAMES, json.dumps(frames, indent=1) + "\n")
    return int(options.check and differ)


if __name__ == "__main__":
    sys.exit(main())
