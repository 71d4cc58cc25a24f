"""``edgemoe run``: pictures through a bundle's tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgemoe.bundle import Bundle
from edgemoe.cli.options import BundlePath
from edgemoe.cli.output import hint, say, working
from edgemoe.cli.outputs import output_file, output_folder
from edgemoe.errors import DeviceError
from edgemoe.extras import require
from edgemoe.runtime.opening import DEVICES
from edgemoe_models.pictures import check_resize

__all__ = ["command"]


def command(
    bundle: BundlePath,
    images: Annotated[list[Path], typer.Argument(help="image files", show_default=False)],
    device: Annotated[str, typer.Option(help=", ".join(DEVICES))] = "reference",
    task: Annotated[list[str] | None, typer.Option(help="task, default: all")] = None,
    out: Annotated[Path, typer.Option(help="folder for pictures and the report")] = Path("build/run"),
    resize: Annotated[str | None, typer.Option(help="images of another size: crop (the middle) or squeeze")] = None,
    trace: Annotated[bool, typer.Option(help="compare every tensor with the reference (sim)")] = True,
    waves: Annotated[Path | None, typer.Option(help="VCD file of the first inference (sim)")] = None,
    waves_from: Annotated[int, typer.Option(help="first command in it, as disasm numbers them")] = 0,
    waves_to: Annotated[int | None, typer.Option(help="last command in it, default: END")] = None,
) -> None:
    """Run images through a bundle's tasks."""
    if device not in DEVICES:
        raise ValueError(f"device must be one of {', '.join(DEVICES)}, not {device!r}")
    if waves is None and (waves_from or waves_to is not None):
        raise ValueError("--waves-from and --waves-to choose a part of --waves FILE, which is missing")
    if waves is not None and device != "sim":
        raise ValueError(f"--waves needs --device sim, not {device}")
    if waves is not None:
        output_file(waves, images)
    if device == "sim":
        require("edgemoe run --device sim", "sim")
    output_folder(out)
    from edgemoe.cli.runner import RunOptions, run_images

    with working(f"running on {device}") as work:
        options = RunOptions(
            device,
            out,
            task or [],
            check_resize(resize),
            trace,
            None if waves is None else (waves, waves_from, waves_to),
            work.detail,
            hint,
        )
        exact = run_images(
            Bundle.load(bundle), images, options, lambda share: work.detail(f"running on {device}", share)
        )
    say(f"results are in {out}")
    if not exact:
        raise DeviceError("tensors differ from the integer reference; see the report")
