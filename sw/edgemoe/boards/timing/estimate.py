"""The estimate of a configuration's clock: synthesis by Yosys, then static timing of its netlist."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgemoe.boards.board import configuration_names, load_board
from edgemoe.boards.synth import FpgaDevice, device_of, synthesize
from edgemoe.boards.timing.nets import Grade, NetModel, grade_of
from edgemoe.boards.timing.report import timing_of_file
from edgemoe_hw.spec.config import AcceleratorConfig

__all__ = ["estimate", "target_of"]

#: A preset that is no board's, and a configuration of one's own, are mapped to this part.
_PART = "xc7z020clg400-1"


def target_of(config: AcceleratorConfig) -> tuple[FpgaDevice, str]:
    """Device and part of the board that ``config`` is named after; otherwise an XC7Z020 of speed grade -1."""
    if config.name in configuration_names():
        board = load_board(config.name)
        return board.device, board.part
    return device_of(config), _PART


def estimate(
    config: AcceleratorConfig,
    out: Path,
    *,
    model: NetModel | None = None,
    netlist: Path | None = None,
    paths: int = 10,
    on_step: Callable[[str], None] = lambda step: None,
) -> dict[str, Any]:
    """Estimate the clock of a configuration on its board's FPGA.

    Args:
        out: a folder ``netlist`` in it receives what ``synthesize`` writes
        model: of the nets
        netlist: an RTLIL file of the configuration, mapped already for the same family: nothing is synthesized
        paths: how many to name
        on_step: called with the title of each step

    Returns:
        ``config``, ``config_hash``, ``device``, ``part``, and what ``timing_of`` returns

    Raises:
        SynthesisError: Yosys or Amaranth is missing or failed, or the netlist cannot be timed
    """
    device, part = target_of(config)
    grade: Grade = grade_of(device.family, part)
    if netlist is None:
        folder = out / "netlist"
        synthesize(config, folder, device=device, on_step=on_step)
        netlist = folder / f"{config.name}.il"
    on_step("static timing")
    return {
        "config": config.name,
        "config_hash": config.content_hash,
        "device": device.name,
        "part": part,
        **timing_of_file(netlist, grade, model, paths=paths),
    }
