"""What each board's configuration takes of its FPGA, by Yosys, before any vendor tool runs."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

from edgemoe.boards.board import Board, BoardError
from edgemoe.boards.synth import WIRE_PS, synthesize, yosys_tool
from edgemoe.errors import SynthesisError
from edgemoe.extras import needs
from edgemoe_models.storage import checks
from edgemoe_models.storage.atomic import write_text
from edgemoe_models.storage.cache import cache_root, cached
from edgemoe_models.storage.json_text import read_json

__all__ = ["RESOURCES", "check_fits", "keep", "utilisation", "utilisation_row"]

RESOURCES = ("lut", "ff", "dsp", "bram36", "uram")


def utilisation(
    board: Board, cache: Path | None = None, on_step: Callable[[str], None] | None = None
) -> dict[str, Any]:
    """Result of ``synth.synthesize`` for the board's configuration.

    Minutes long, so it is kept under a hash of RTL, family and tool; boards of one family share a configuration's.

    Args:
        board: whose configuration and device
        cache: folder that keeps results; default: ``synth`` in the cache folder
        on_step: called with the title of each step

    Raises:
        SynthesisError: Yosys or Amaranth is missing, or Yosys failed
    """
    folder, key = cache_root() / "synth" if cache is None else cache, _key(board)

    def make() -> dict[str, Any]:
        folder.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f"{key}-", dir=folder))  # another process may be at it too
        result = synthesize(board.config, work / "yosys", device=board.device, on_step=on_step)
        shutil.rmtree(work, ignore_errors=True)  # a failure's log stays, it is named in the message
        return result

    return cached(folder / f"{key}.json", _read_result, make, lambda result: json.dumps(result, indent=1).encode())


def keep(board: Board, result: dict[str, Any], cache: Path | None = None) -> Path:
    """Keep for ``utilisation`` what ``synthesize`` returned of the board's configuration."""
    path = (cache_root() / "synth" if cache is None else cache) / f"{_key(board)}.json"
    write_text(path, json.dumps(result, indent=1))
    return path


def _read_result(path: Path) -> dict[str, Any]:
    """A kept result; ValueError if it is torn, or of something else."""
    return checks.record(read_json(path), path.name, (*RESOURCES[:-1], "cells", "tool", "seconds"), others=True)


def _key(board: Board) -> str:
    try:
        from edgemoe_sim.build import accelerator_verilog

        verilog = accelerator_verilog(board.config)
        tool = yosys_tool()
    except (ImportError, metadata.PackageNotFoundError) as error:
        raise SynthesisError(f"{needs('synthesis', 'sim', 'synth')} ({error})") from None
    return hashlib.sha256(f"{board.device.family} {tool} {WIRE_PS}\n{verilog}".encode()).hexdigest()[:16]


def utilisation_row(board: Board, result: dict[str, Any]) -> dict[str, Any]:
    """A board's line of the table: used and available of every resource, and whether it fits."""
    used = {
        resource: result["cells"].get("URAM288", 0) if resource == "uram" else result[resource]
        for resource in RESOURCES
    }
    available = {resource: getattr(board.device, resource) for resource in RESOURCES}
    return {
        "board": board.name,
        "device": board.device.name,
        "config_hash": board.config.content_hash,
        "lanes_k": board.config.lanes_k,
        "lanes_n": board.config.lanes_n,
        "used": used,
        "available": available,
        "capacity_source": board.device.source,
        "fits": all(used[resource] <= available[resource] for resource in RESOURCES),
        "tool": result["tool"],
        "seconds": result["seconds"],
    }


def check_fits(board: Board, result: dict[str, Any]) -> None:
    """Raise BoardError if a board's configuration does not fit its FPGA; the message says by how much."""
    row = utilisation_row(board, result)
    short = [
        f"{resource}: {row['used'][resource]:,} of {row['available'][resource]:,}"
        for resource in RESOURCES
        if row["used"][resource] > row["available"][resource]
    ]
    if short:
        raise BoardError(
            f"the configuration of {board.name} does not fit {board.device.name} ({'; '.join(short)}): "
            f"make it smaller in boards/{board.file.parent.name}/{board.file.name}"
        )
