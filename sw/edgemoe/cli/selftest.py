"""``edgemoe selftest``: every program of a bundle on a device, compared with the integer reference."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from edgemoe.cli.options import BundleOption, load_bundle
from edgemoe.cli.output import say, working
from edgemoe.errors import DeviceError
from edgemoe.runtime.opening import DEVICES
from edgemoe.runtime.selftest import selftest, verdict

__all__ = ["command"]

_DEFAULT = "m3vit-micro-w8a8-pynq-z2"


def command(
    bundle: BundleOption = None,
    device: Annotated[str, typer.Option(help=", ".join(DEVICES))] = "sim",
    bitstream: Annotated[Path | None, typer.Option(help="bitstream to load (pynq)")] = None,
    port: Annotated[str | None, typer.Option(help="serial port of the board (serial)")] = None,
    images: Annotated[int, typer.Option(min=1, help="images a task")] = 2,
) -> None:
    """Run every program of a bundle on fixed images and compare each output with the integer reference.

    Without --bundle it is the packaged m3vit-micro for pynq-z2. A board without this command line has the same test
    as a module: python3 -m edgemoe.runtime.selftest.
    """
    options: dict[str, Any] = {"bitstream": bitstream, "port": port}
    given = {name: value for name, value in options.items() if value is not None}
    with working(f"self-test on {device}"):
        rows = selftest(device, load_bundle(bundle or Path(_DEFAULT)), images, **given)
    for row in rows:
        say(verdict(row))
    if wrong := [row["task"] for row in rows if row["mismatches"]]:
        raise DeviceError(f"self-test failed: {', '.join(wrong)} on {device} differ from the integer reference")
    say("self-test passed")
