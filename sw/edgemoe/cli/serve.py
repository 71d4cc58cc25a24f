"""``edgemoe serve``: opens the device with each bundle, and serves them."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from edgemoe.cli.options import load_bundle
from edgemoe.cli.output import note, say, working
from edgemoe.extras import require
from edgemoe.packaged_bundles import find_bundle
from edgemoe.runtime.opening import DEVICES
from edgemoe.runtime.opening import open as open_device

__all__ = ["command"]

_TOKEN = "EDGEMOE_TOKEN"
_LONGEST_TOKEN = 4096
#: Devices of which this machine has one, which holds one bundle.
_SINGLE = ("pynq", "serial")


def command(
    bundles: Annotated[list[Path], typer.Argument(metavar="BUNDLE...", help="bundles (.emoe) or packaged ones' names")],
    device: Annotated[str, typer.Option(help=", ".join(DEVICES))] = "reference",
    host: Annotated[
        str, typer.Option(help="address to listen on; 0.0.0.0: all of this machine's, which needs a token")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0: any free one")] = 8000,
    token_file: Annotated[
        Path | None, typer.Option(help=f"file with the token that requests must bear; default: the variable {_TOKEN}")
    ] = None,
    queue: Annotated[int, typer.Option(min=1, help="requests of a model that may wait for the device")] = 16,
    timeout: Annotated[float, typer.Option(min=0.01, help="seconds that a request may take")] = 30.0,
    max_batch: Annotated[int, typer.Option(min=1, max=1024, help="pictures that a request may have")] = 16,
    grace: Annotated[
        float, typer.Option(min=0.0, help="seconds of being not ready, before it listens no more, at the end")
    ] = 0.0,
    bitstream: Annotated[Path | None, typer.Option(help="overlay to load (pynq)")] = None,
    serial_port: Annotated[str | None, typer.Option(help="serial port of the board (serial)")] = None,
) -> None:
    """Serve bundles on a device over the Open Inference Protocol v2 (REST), as Triton and KServe speak it."""
    require("edgemoe serve", "serve")
    from edgemoe.serve.application import Limits, Served, Server
    from edgemoe.serve.server import serve
    from edgemoe.web.listening import is_local, listen, url_of

    if device in _SINGLE and len(bundles) > 1:
        raise ValueError(f"device {device} has one accelerator, which holds one bundle: name one, or start it as sim")
    given = {"bitstream": bitstream, "port": serial_port}
    options: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    token = _token(token_file)
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(listen(host, port))
        if token is None and not is_local(listening):
            raise ValueError(
                f"{host} can be reached from elsewhere, which needs a token: --token-file FILE, or {_TOKEN}; make one "
                f"with: openssl rand -hex 32"
            )
        served = []
        for path in bundles:
            loaded = load_bundle(path)
            with working(f"opening {device}"):  # the simulator may have to be built
                opened = stack.enter_context(open_device(device, loaded, **options))
            served.append(Served(opened, find_bundle(path).absolute()))
        limits = Limits(queue, timeout, max_batch)
        with Server(served, limits, token, host, note) as server:
            names = ", ".join(each.accelerator.bundle.model.name for each in served)
            text = f"{names} on {device}: {url_of(listening)}v2   (Ctrl+C ends it)"
            serve(server, listening, grace, timeout, lambda: say(text))


def _token(file: Path | None) -> str | None:
    """The token of a file or of the environment; ValueError where it cannot be one."""
    from edgemoe.web.access import check_token

    if file is not None:
        try:
            with file.open("rb") as opened:
                text = opened.read(_LONGEST_TOKEN).decode("ascii", "replace")
        except OSError as error:
            raise ValueError(f"{file}: the token cannot be read ({error.strerror})") from None
        return check_token(text.strip(), str(file))
    text = os.environ.get(_TOKEN, "")
    return check_token(text, _TOKEN) if text else None
