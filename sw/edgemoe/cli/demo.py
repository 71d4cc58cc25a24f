"""``edgemoe demo``: opens device and source, and serves the page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from edgemoe.bundle import Bundle
from edgemoe.cli.options import BundleOption, load_bundle
from edgemoe.cli.output import hint, say, working
from edgemoe.demo.sources import endless
from edgemoe.extras import require
from edgemoe.runtime.opening import DEVICES
from edgemoe.runtime.opening import open as open_device
from edgemoe_models.pictures import Notes, check_resize

__all__ = ["command"]


def command(
    bundle: BundleOption = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="compiled where there is no --bundle; as edgemoe compile takes it; default: m3vit-micro, QAT W8A8"
        ),
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
    require("edgemoe demo", "demo")
    from edgemoe.demo.player import Player
    from edgemoe.demo.server import application, serve
    from edgemoe.demo.view import about
    from edgemoe.web.listening import listen, url_of

    if bundle is not None and model is not None:
        raise ValueError("--bundle and --model exclude each other: a bundle has its model")
    chosen = check_resize(resize) or "crop"
    options: dict[str, Any] = {} if bitstream is None else {"bitstream": bitstream}
    with listen(host, port) as listening:
        loaded = load_bundle(bundle) if bundle is not None else _compiled(model, config)
        pictures = endless(source, loaded.model, chosen, Notes(hint))
        with working(f"opening {device}"):  # the simulator may have to be built
            opened = open_device(device, loaded, resize=chosen, notes=hint, **options)
        with opened as accelerator, Player(accelerator, pictures, fps, task or accelerator.tasks) as player:
            say(f"{loaded.model.name} on {device}, {source}: {url_of(listening)}   (Ctrl+C ends it)")
            serve(application(player, about(accelerator, source, player.measures_power), host), listening)


def _compiled(model: str | None, config: str) -> Bundle:
    from edgemoe.compiler import CompilerOptions, build_bundle, joint_programs
    from edgemoe.configs import find_config
    from edgemoe.workloads import best_model, load_graph

    with working("quantizing and compiling"):
        accelerator = find_config(config)
        graph, options = load_graph(model or best_model(), target=accelerator), CompilerOptions()
        joint = joint_programs(graph.config, accelerator, options, graph.expert_bits, note=hint)
        return build_bundle(graph, accelerator, options, joint=joint)
