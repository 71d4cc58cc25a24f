"""``edgemoe fit``: place and route with open tools."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from edgemoe.boards.fit import FitTarget, fit, load_target
from edgemoe.cli.options import RESULTS, write_json
from edgemoe.cli.output import say, show, working
from edgemoe.cli.outputs import output_file, output_folder
from edgemoe.errors import SynthesisError
from edgemoe.extras import require
from edgemoe.reports.tables import TextTable

__all__ = ["command"]


def command(
    target: Annotated[str, typer.Option(help="board with a target.toml")] = "ulx3s",
    seed: Annotated[int | None, typer.Option(help="of the placer, default: the target's")] = None,
    out: Annotated[Path, typer.Option(help="folder for bitstream, reports and logs")] = RESULTS / "fit",
    path: Annotated[Path, typer.Option("--json", help="file for the result")] = RESULTS / "fit.json",
) -> None:
    """Place and route the accelerator with open tools only; fails if the board's clock is not met."""
    chosen = load_target(target)
    require("edgemoe fit", "sim", "synth", "fit")
    output_folder(out)
    output_file(path)
    title = f"{chosen.config.name} on {chosen.device}"
    with working(title) as work:
        result = fit(chosen, out, seed=seed, on_step=lambda step: work.step(f"{title}: {step}"))
        write_json(path, result)
    _show(result, chosen)
    say(f"{out / result['bitstream']['name']}, {path}")
    if not result["meets_clock"]:
        raise SynthesisError(f"{result['fmax_mhz']} MHz is less than the board's clock of {chosen.clock_mhz:g} MHz")
    if result["fmax_mhz"] < chosen.least_mhz:
        raise SynthesisError(
            f"{result['fmax_mhz']} MHz is less than the {chosen.least_mhz:g} MHz of {chosen.name}'s target.toml "
            f"(least_mhz): a longer path, or another seed's luck (--seed)"
        )


def _show(result: dict[str, Any], target: FitTarget) -> None:
    table = TextTable(f"{target.config.name} on {target.title}", ["resource", ">used", ">available", ">%"])
    for resource, count in result["utilisation"].items():
        used, available = count["used"], count["available"]
        table.add(resource, f"{used:,}", f"{available:,}", f"{100 * used / available:.1f}")
    show(table)
    if slow := result["critical_path"]:
        say(f"slowest path: {slow['nanoseconds']} ns, {slow['routing']} of them routing, {slow['levels']} levels")
        say(f"  from {slow['begin']}")
        say(f"  to   {slow['end']}")
    say(f"placed and routed: {result['fmax_mhz']} MHz; the board's clock is {target.clock_mhz:g} MHz")
