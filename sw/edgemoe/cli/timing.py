"""``edgemoe timing``: an estimate of a configuration's clock."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from edgemoe.boards.timing.estimate import estimate
from edgemoe.boards.timing.nets import NetModel
from edgemoe.cli.options import RESULTS, Config, write_json
from edgemoe.cli.output import say, working
from edgemoe.cli.outputs import output_folder
from edgemoe.configs import find_config
from edgemoe.extras import require

__all__ = ["command"]

_MODEL = NetModel()


def command(
    config: Config = "pynq-z2",
    out: Annotated[Path, typer.Option(help="folder for <config>.json, netlist and logs")] = RESULTS / "timing",
    netlist: Annotated[Path | None, typer.Option(help="RTLIL of the same, mapped already: synthesizes nothing")] = None,
    net: Annotated[float, typer.Option(help="ns of a short net on a 7 series FPGA of grade -1")] = _MODEL.base,
    growth: Annotated[float, typer.Option(help="of that, more for each doubling of loads beyond 4")] = _MODEL.growth,
    paths: Annotated[int, typer.Option(min=1, help="how many of the slowest are named")] = 10,
) -> None:
    """Estimate a configuration's clock: static timing of Yosys' netlist, which is not placed."""
    accelerator = find_config(config)
    if netlist is None:
        require("edgemoe timing", "sim", "synth")
    elif not netlist.is_file():
        raise ValueError(f"no netlist {netlist}")
    output_folder(out)
    title = f"timing of {accelerator.name}"
    path = out / f"{accelerator.name}.json"
    with working(title) as work:
        result = estimate(
            accelerator,
            out,
            model=NetModel(net, growth),
            netlist=netlist,
            paths=paths,
            on_step=lambda step: work.step(f"{title}: {step}"),
        )
        write_json(path, result)
    _show(result)
    say(f"{path}")


def _show(result: dict[str, Any]) -> None:
    say(f"slowest paths of {result['config']} on {result['part']}, estimated:")
    for number, path in enumerate(result["paths"], 1):
        levels = f"{path['levels']} levels, {path['nets_ns']:.2f} ns in nets of up to {path['most_loads']} loads"
        say(f"{number:2}. {path['ns']:.2f} ns: {levels}")
        for end, pin in (("from", ""), ("to", f".{path['pin']}")):
            say(f"    {end:4} {path[end]}{pin} {_line(path[end + '_source'])}".rstrip())
    grade, model = result["grade"], result["net_model"]
    say("", f"delays: 7 series -1 x {grade['factor']:g} for {grade['family']} {grade['name']}")
    say(f"nets: {model['text']}, x {model['factor']:g}")
    say(f"estimated: {result['fmax_mhz']:g} MHz ({result['period_ns']:.2f} ns)")
    say(result["estimate"])


def _line(source: str) -> str:
    return f"({source.removeprefix('edgemoe_hw/')})" if source else ""
