"""``edgemoe verilog``: the accelerator as Verilog, and its configuration as a file to change."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgemoe.cli.options import RESULTS, Config
from edgemoe.cli.output import say, working
from edgemoe.cli.outputs import output_file
from edgemoe.configs import find_config
from edgemoe.extras import require
from edgemoe_models.storage.atomic import write_text

__all__ = ["command"]


def command(
    config: Config = "pynq-z2",
    out: Annotated[
        Path | None, typer.Option(help=f"Verilog to write (default: {RESULTS}/<config>.v)", show_default=False)
    ] = None,
    json: Annotated[
        Path | None, typer.Option(help="write the configuration to this file; without --out, nothing else")
    ] = None,
) -> None:
    """Write the accelerator as one file of plain Verilog, module edgemoe, without vendor primitives."""
    accelerator = find_config(config)
    inputs = [Path(config)]
    description = None if json is None else output_file(json, inputs)
    text_path = None if out is None and json is not None else out or RESULTS / f"{accelerator.name}.v"
    if text_path is not None:
        require("edgemoe verilog", "sim")
        output_file(text_path, inputs)
        if description is not None and text_path.absolute() == description.absolute():
            raise ValueError(f"--out and --json are both {text_path}; give them different names")
    if description is not None:
        write_text(description, accelerator.to_json() + "\n")
        say(f"{description}: configuration {accelerator.name}, hash {accelerator.content_hash[:16]}")
    if text_path is not None:
        from edgemoe_sim.build import accelerator_verilog

        with working(f"writing the Verilog of {accelerator.name}"):
            text = accelerator_verilog(accelerator)
            write_text(text_path, text)
        say(f"{text_path}: module edgemoe of {accelerator.name}, {len(text):,} bytes")
