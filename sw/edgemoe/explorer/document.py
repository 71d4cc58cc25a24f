"""The explorer's files: ``front.json``, ``chosen.json`` (which ``--config`` takes) and ``verified.json``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgemoe.boards.board import Board
from edgemoe.explorer.clock import clock_of
from edgemoe.explorer.cycles import Workload
from edgemoe.explorer.resources import LIMITS, fitted
from edgemoe.explorer.search import TOLERANCE, Found, Point
from edgemoe.explorer.verify import Verified
from edgemoe_hw.spec.config import AcceleratorConfig
from edgemoe_models.storage.atomic import write_text

__all__ = ["CHOSEN", "FRONT", "VERIFIED", "front_document", "write_chosen", "write_front", "write_verified"]

FRONT, CHOSEN, VERIFIED = "front.json", "chosen.json", "verified.json"


def front_document(board: Board, loads: Sequence[Workload], depths: str, found: Found) -> dict[str, Any]:
    """All of a search: what was asked, the front, which point was chosen, and how far the models are from the tools."""
    return {
        "board": board.name,
        "device": board.device.name,
        "clock": clock_of(board),
        "models": [{"model": load.given, "expert_bits": load.expert_bits} for load in loads],
        "depths": depths,
        "limits": LIMITS,
        "tolerance": TOLERANCE,
        "candidates": {"legal": found.legal, "fitting": found.fitting, "judged": found.judged},
        "model_errors": fitted().errors,
        "chosen": found.chosen.config.name,
        "front": [_point(point) for point in found.front],
    }


def _point(point: Point) -> dict[str, Any]:
    return {
        "config": point.config.to_dict(),
        "config_hash": point.config.content_hash,
        "resources": point.resources,
        "share": round(point.share, 4),
        "cycles": point.cycles,
        "ms": {name: round(ms, 4) for name, ms in point.ms.items()},
    }


def write_front(folder: Path, document: dict[str, Any]) -> Path:
    """Write ``front.json``; returns its path."""
    return _write(folder / FRONT, document)


def write_chosen(folder: Path, config: AcceleratorConfig) -> Path:
    """Write ``chosen.json``, a configuration's file; returns its path."""
    write_text(folder / CHOSEN, config.to_json() + "\n")
    return folder / CHOSEN


def write_verified(folder: Path, verified: Sequence[Verified]) -> Path:
    """Write ``verified.json``, rows as ``tools/explorer_record.py --add`` takes them; returns its path."""
    return _write(folder / VERIFIED, [one.row for one in verified])


def _write(path: Path, values: Any) -> Path:
    write_text(path, json.dumps(values, indent=1) + "\n")
    return path
