"""``edgemoe demo``: opens device and source, and serves the page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from edgemoe.bundle import Bundle
from edgemoe.demo.sources import endless
from edgemoe.errors import DeviceError
from edgemoe.extras import install_command
from edgemoe.runtime.opening import DEVICES
from edgemoe.runtime.opening import open as open_device
from edgemoe_models.pictures import Notes, check_resize

__all__ = ["demo"]

console = Console()


def demo(
    bundle: Annotated[Path | None, typer.Option(help="bundle (.emoe); default: compile --model")] = None,
    model: Annotated[
        str | None, typer.Option(help="as `edgemoe compile` takes it; default: m3vit-micro, QAT W8A8 if there")
    ] = None,
    config: Annotated[str, typer.Option(help="configuration to compile for")] = "pynq-z2",
    device: Annotated[str, typer.Option(help=", ".join(DEVICES))] = "reference",
    source: Annotated[
        str, typer.Option(help="scenes (generated), camera, camera:1, an image, a folder of images, or a video")
    ] = "scenes",
    resize: Annotated[str, typer.Option(help="what is of another size: crop (the middle) or squeeze")] = "crop",
    task: Annotated[list[str] | None, typer.Option(help="shown at first; several allowed; default: all")] = None,
    fps: Annotated[float, typer.Option(min=0.01, help="frames a second at most")] = 25.0,
    host: Annotated[str, typer.Option(help="address to listen on; 0.0.0.0: all of this machine's")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0: any free one")] = 8000,
    bitstream: Annotated[Path | None, typer.Option(help="overlay to load (pynq)")] = None,
) -> None:
    """Show a stream live on a local web page: predictions, speed and expert loads."""
    try:
        from edgemoe.demo.server import application, listen, serve, url_of
    except ImportError as error:
        raise DeviceError(
            f"the demo needs a web server; install it with: {install_command('demo')} ({error})"
        ) from None
    from edgemoe.demo.player import Player
    from edgemoe.demo.view import about

    if bundle is not None and model is not None:
        raise ValueError("--bundle and --model exclude each other: a bundle has its model")
    chosen = check_resize(resize) or "crop"
    options: dict[str, Any] = {} if bitstream is None else {"bitstream": bitstream}
    with listen(host, port) as listening:
        loaded = Bundle.load(bundle) if bundle is not None else _compiled(model, config)
        pictures = endless(source, loaded.model, chosen, Notes(_note))
        with (
            open_device(device, loaded, resize=chosen, notes=_note, **options) as accelerator,
            Player(accelerator, pictures, fps, task or accelerator.tasks) as player,
        ):
            console.print(
                f"{loaded.model.name} on {device}, {source}: {url_of(listening)}   (Ctrl+C ends it)",
                highlight=False,
                soft_wrap=True,
            )
            serve(application(player, about(accelerator, source, player.measures_power), host), listening)


def _note(text: str) -> None:
    console.print(f"note: {text}", markup=False, highlight=False, soft_wrap=True)


def _compiled(model: str | None, config: str) -> Bundle:
    try:
        from edgemoe.cli.main import find_config
        from edgemoe.compiler import build_bundle
        from edgemoe.workloads import best_model, load_graph
    except ImportError as error:
        raise DeviceError(
            f"models are compiled where the compiler is installed ({error}); give --bundle FILE"
        ) from None
    with console.status("quantizing and compiling"):
        return build_bundle(load_graph(model or best_model()), find_config(config))
