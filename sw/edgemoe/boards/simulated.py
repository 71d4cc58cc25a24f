"""An overlay for the simulated PYNQ device: the files of a bitstream without a bitstream."""

from __future__ import annotations

import tempfile
from pathlib import Path

from edgemoe.boards.bitstream import publish
from edgemoe.boards.board import Board
from edgemoe.boards.hwh import hwh_text
from edgemoe_hw.spec.constants import MODULE_VLNV
from edgemoe_models.storage.atomic import write_text
from edgemoe_models.storage.cache import results_root

__all__ = ["simulated_overlay"]

OUT = results_root() / "simulated"  # not where bitstreams are: this is nothing that could be flashed


def simulated_overlay(board: Board, out: Path = OUT, vlnv: str = MODULE_VLNV) -> Path:
    """Write ``<board>-<hash>.{bit,hwh,json}``; returns the ``.bit``, which says that it is none.

    Args:
        board: whose design and configuration; another configuration can be had by ``dataclasses.replace(board,
            config=…)``
        vlnv: of the accelerator
    """
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        write_text(work / "edgemoe.bit", f"no bitstream: {board.config.to_json()}\n")
        write_text(work / "edgemoe.hwh", hwh_text(board, vlnv))
        write_text(work / "result.json", '{"simulated": true}')
        return publish(board, work, out).with_suffix(".bit")
