"""What each board's configuration takes of its FPGA, by Yosys, before any vendor tool runs."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from edgemoe.boards.board import Board, BoardError, configuration_names, load_board
from edgemoe.boards.synth import WIRE_PS, synthesize, yosys_tool
from edgemoe.errors import SynthesisError
from edgemoe.extras import needs
from edgemoe_hw.spec.config import AcceleratorConfig
from edgemoe_models.storage import checks
from edgemoe_models.storage.atomic import write_text
from edgemoe_models.storage.cache import cache_root, cached
from edgemoe_models.storage.json_text import read_json

__all__ = ["RESOURCES", "check_fits", "keep", "utilisation", "utilisation_row", "what_fits"]

RESOURCES = ("lut", "ff", "dsp", "bram36", "uram")
_LUT_ROWS = 64  # memories of at most so many rows lie in LUTs


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
    """Raise BoardError if a board's configuration does not fit its FPGA; it says by how much, and what fits."""
    check_used(board, utilisation_row(board, result)["used"])


def check_used(board: Board, used: Mapping[str, float]) -> None:
    """``check_fits``, from what is used of each resource."""
    capacity = board.device.capacity
    short = [
        f"{resource}: {used[resource]:,} of {capacity[resource]:,}"
        for resource in RESOURCES
        if used[resource] > capacity[resource]
    ]
    if short:
        raise BoardError(
            f"the configuration of {board.name} does not fit {board.device.name} ({'; '.join(short)}): "
            f"{what_fits(board)}"
        )


def what_fits(board: Board) -> str:
    """What to do where a board's configuration does not fit: its smallest one, if there is a smaller."""
    folder = board.file.parent.name
    others = f"edgemoe explore --board {folder} finds others"
    smallest = min(_of_the_same_board(board), key=lambda each: _block_ram_bits(each.config))
    if _block_ram_bits(smallest.config) < _block_ram_bits(board.config):
        return (
            f"make bitstream BOARD={smallest.name} has smaller memories (compile bundles with --config "
            f"{smallest.name}); {others}"
        )
    return f"make it smaller in boards/{folder}/{board.file.name}; {others}"


def _of_the_same_board(board: Board) -> list[Board]:
    folder = board.file.parents[1]
    boards = [load_board(name, folder) for name in configuration_names(folder)]
    return [each for each in boards if each.file == board.file]


def _block_ram_bits(config: AcceleratorConfig) -> int:
    """Of the memories that a configuration's fields decide; UltraRAM takes all of them but the weights."""
    weights = 8 * config.lanes_k * config.lanes_n * config.weight_depth
    if config.ultra_ram:
        return weights
    rows = 8 * config.lanes_k * (config.act_depth + config.residual_depth)
    parameters = 64 * config.epilogue_lanes * config.param_depth if config.param_depth > _LUT_ROWS else 0
    return weights + rows + 8 * config.lanes_n * config.score_depth + parameters
