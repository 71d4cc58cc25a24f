"""Estimated clocks of the boards: ``docs/measurements/timing.json``, which ``tests/board/test_clocks.py`` reads.

Usage: ``python tools/timing_record.py [BOARD ...] [--out FOLDER] [--netlist BOARD=FILE ...] [--table]``

Each board's configuration is synthesized (up to half an hour) and timed as ``make timing BOARD=...`` does it. Boards
with the same hardware in one run share the netlist, and ``make utilisation`` need not synthesize them again. A row
keeps the hash of its configuration: once that changes, the row counts no longer, and the run must be repeated.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgemoe.boards.board import Board, board_names, load_board
from edgemoe.boards.synth import yosys_tool
from edgemoe.boards.timing.estimate import estimate
from edgemoe.boards.utilisation import keep
from edgemoe_models.storage.atomic import write_text
from edgemoe_models.storage.json_text import read_json

__all__ = ["RECORD", "row_of", "table"]

RECORD = Path(__file__).parents[1] / "docs" / "measurements" / "timing.json"
_KEPT = ("config_hash", "device", "part", "fmax_mhz", "period_ns", "net_model", "estimate")


def row_of(result: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of an estimate: its figures, and where its slowest path is."""
    worst = {key: result["paths"][0][key] for key in ("from", "to", "from_source", "to_source", "levels", "nets_ns")}
    return {**{key: result[key] for key in _KEPT}, "worst": worst}


def table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """The rows in Markdown, beside the clocks that the boards' files assume."""
    lines = ["| board | part | estimated MHz | ns | assumed MHz | slowest path |", "|---|---|---:|---:|---:|---|"]
    for name, row in sorted(rows.items()):
        board, worst = load_board(name), row["worst"]
        fresh = "" if row["config_hash"] == board.config.content_hash else " (of an older configuration)"
        way = f"`{worst['from']}` to `{worst['to']}`"
        figures = f"{row['fmax_mhz']:g}{fresh} | {row['period_ns']:.2f} | {board.clock_mhz:g}"
        lines.append(f"| `{name}` | {row['part']} | {figures} | {way} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Estimate the boards' clocks and keep them in docs/measurements.")
    parser.add_argument("boards", nargs="*", metavar="BOARD", help="default: all")
    parser.add_argument("--out", type=Path, default=Path("build/timing"), help="folder for netlists and logs")
    parser.add_argument("--netlist", action="append", default=[], metavar="BOARD=FILE", help="mapped already")
    parser.add_argument("--table", action="store_true", help="print the rows that are there; measure nothing")
    options = parser.parse_args(arguments)
    rows: dict[str, Any] = read_json(RECORD) if RECORD.exists() else {}
    if options.table:
        print(table(rows))
        return 0
    given = {name: Path(file) for name, _, file in (text.partition("=") for text in options.netlist)}
    netlists: dict[tuple[str, str], Path] = {}
    for board in [load_board(name) for name in options.boards or board_names()]:
        hardware = (board.config.content_hash, board.device.family)
        netlist = given.get(board.name) or netlists.get(hardware)
        rows[board.name] = _measure(board, options.out, netlist)
        netlists[hardware] = netlist or options.out / "netlist" / f"{board.name}.il"
        write_text(RECORD, json.dumps(dict(sorted(rows.items())), indent=1) + "\n")
        print(f"{board.name}: {rows[board.name]['fmax_mhz']:g} MHz estimated, {board.clock_mhz:g} assumed", flush=True)
    return 0


def _measure(board: Board, out: Path, netlist: Path | None) -> dict[str, Any]:
    result = estimate(
        board.config, out, netlist=netlist, on_step=lambda step: print(f"{board.name}: {step}", flush=True)
    )
    write_text(out / f"{board.name}.json", json.dumps(result, indent=1) + "\n")
    if netlist is None:
        keep(board, read_json(out / "netlist" / f"{board.name}.json"))
    return {**row_of(result), "tool": yosys_tool()}


if __name__ == "__main__":
    sys.exit(main())
