"""``edgemoe synth``: a configuration's resources by Yosys."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from edgemoe.boards.board import configuration_names, load_board
from edgemoe.boards.synth import FpgaDevice, device_of, synthesize
from edgemoe.cli.options import RESULTS, Config
from edgemoe.cli.output import say, show, working
from edgemoe.cli.outputs import output_folder
from edgemoe.configs import find_config
from edgemoe.errors import SynthesisError
from edgemoe.extras import require
from edgemoe.reports.tables import TextTable

__all__ = ["command"]


def command(
    config: Config = "pynq-z2",
    out: Annotated[Path, typer.Option(help="folder for <config>.json")] = RESULTS / "synth",
) -> None:
    """Resources of a configuration by Yosys, mapped but not placed; fails if it does not fit its device."""
    accelerator = find_config(config)
    require("edgemoe synth", "sim", "synth")
    device = load_board(config).device if config in configuration_names() else device_of(accelerator)
    output_folder(out)
    title = f"synthesis of {accelerator.name} for {device.name}"
    with working(title) as work:
        result = synthesize(accelerator, out, device=device, on_step=lambda step: work.step(f"{title}: {step}"))
    _show(result, accelerator.name, device)
    path = out / f"{accelerator.name}.json"
    if not result["fits"]:
        raise SynthesisError(f"{accelerator.name} does not fit {device.name}; see {path}")
    say(f"fits, by {result['tool']} in {result['seconds']:.0f} s: {path}")


def _show(result: dict[str, Any], name: str, device: FpgaDevice) -> None:
    table = TextTable(f"{name} on {device.name}", ["resource", ">used", ">available", ">%"])
    rooms = {resource: room for resource, room in device.capacity.items() if room or result[resource]}
    for resource, room in rooms.items():
        used = result[resource]
        table.add(resource, f"{used:,}", f"{room:,}", f"{100 * used / room:.1f}" if room else "-")
    show(table)
    units = TextTable("by unit; logic counts where it leads", ["unit", *(f">{resource}" for resource in rooms)])
    for unit, found in result["units"].items():
        units.add(unit, *(f"{found[resource]:,}" for resource in rooms))
    say("")
    show(units)
