"""``edgemoe run``: pictures through a bundle's tasks."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from edgemoe.cli.options import RESULTS, BundlePath, load_bundle
from edgemoe.cli.output import hint, say, working
from edgemoe.cli.outputs import output_file, output_folder
from edgemoe.errors import DeviceError
from edgemoe.extras import require
from edgemoe.jobs.picture_run import PictureResult, PictureRun, RunOptions, TaskResult
from edgemoe.jobs.video_run import PICTURES_A_SECOND, VideoOptions, VideoRun
from edgemoe.reports.findings import finding
from edgemoe.reports.legends import unlabelled
from edgemoe.reports.video_file import SUFFIXES
from edgemoe.runtime.frames import names_camera
from edgemoe.runtime.opening import DEVICES
from edgemoe.runtime.waves import LIMIT, Waves
from edgemoe_hw.spec.config import AcceleratorConfig
from edgemoe_models.pictures import RESIZES, PictureError, check_resize

__all__ = ["command"]

_WIDTH = 80
_STARTING = {"sim": "running on sim, after building the simulator (about a minute, once)"}


def command(
    bundle: BundlePath,
    images: Annotated[
        list[str],
        typer.Argument(help="pictures, and folders of pictures; for --video also videos, camera:0", show_default=False),
    ],
    device: Annotated[str, typer.Option(help=", ".join(DEVICES))] = "reference",
    task: Annotated[list[str] | None, typer.Option(help="task; several allowed; default: all")] = None,
    out: Annotated[Path, typer.Option(help="folder for raw outputs, pictures and the report")] = RESULTS / "run",
    resize: Annotated[
        str | None,
        typer.Option(help=f"pictures of another size: {' or '.join(RESIZES)} (crop: the middle); default: refuse them"),
    ] = None,
    video: Annotated[
        Path | None, typer.Option(help=f"only make this video of all tasks side by side ({', '.join(SUFFIXES)})")
    ] = None,
    fps: Annotated[
        float | None, typer.Option(help=f"frames a second of --video; default: the source's, or {PICTURES_A_SECOND:g}")
    ] = None,
    frames: Annotated[int | None, typer.Option(min=1, help="frames of --video, at most; default: all")] = None,
    trace: Annotated[bool, typer.Option(help="compare every tensor with the reference (sim)")] = True,
    waves: Annotated[Path | None, typer.Option(help="VCD file of the first inference (sim)")] = None,
    waves_from: Annotated[int, typer.Option(help="first command in it, as disasm numbers them")] = 0,
    waves_to: Annotated[int | None, typer.Option(help="last command in it, default: END")] = None,
    waves_limit: Annotated[float, typer.Option(min=0.001, help="GB at which it ends in any case")] = LIMIT / 1e9,
    bitstream: Annotated[Path | None, typer.Option(help="bitstream to load (pynq)")] = None,
    port: Annotated[str | None, typer.Option(help="serial port of the board (serial)")] = None,
) -> None:
    """Run pictures through a bundle's tasks and say what is found in each.

    The folder gets, for each picture and task, the raw outputs (.npy) and a picture, and of --device sim report.json.
    With --video there is one video in their place, in which nothing is compared.
    """
    if device not in DEVICES:
        raise ValueError(f"device must be one of {', '.join(DEVICES)}, not {device!r}")
    if waves is None and (waves_from or waves_to is not None or waves_limit != LIMIT / 1e9):
        raise ValueError("--waves-from, --waves-to and --waves-limit are of --waves FILE, which is missing")
    if waves is not None and device != "sim":
        raise ValueError(f"--waves needs --device sim, not {device}")
    if device == "sim":
        require("edgemoe run --device sim", "sim")
    if video is None and (fps is not None or frames is not None):
        raise ValueError("--fps and --frames are of --video FILE, which is missing")
    if video is not None and waves is not None:
        raise ValueError("--waves and --video exclude each other: waves are of a single inference")
    options: dict[str, Any] = {"bitstream": bitstream, "port": port}
    given = {name: value for name, value in options.items() if value is not None}
    if given and device == "sim":
        raise ValueError(f"--device sim has no use for --{next(iter(given))}")
    if video is not None:
        chosen = VideoOptions(video, device, task or [], check_resize(resize), fps, frames, given, hint)
        output_file(video)
        _make_video(bundle, images, chosen)
        return
    output_folder(out)
    paths = [_picture(image) for image in images]
    recorded = None
    if waves is not None:
        recorded = Waves(output_file(waves, paths), waves_from, waves_to, int(1e9 * waves_limit))
    with working("reading") as work:
        run = PictureRun(
            load_bundle(bundle),
            paths,
            RunOptions(
                device,
                out,
                task or [],
                check_resize(resize),
                trace,
                recorded,
                given,
                work.detail,
                hint,
            ),
        )
        work.step(_STARTING.get(device, f"running on {device}"))
        tensors = wrong = 0
        for number, result in enumerate(run.results(), 1):
            work.say(*_lines(result, run.bundle.config, device))
            work.detail(f"running on {device}", number / len(run.paths))
            tensors += sum(found.tensors for found in result.tasks.values())
            wrong += sum(found.mismatches for found in result.tasks.values())
    if tensors and not wrong:
        say(f"{tensors:,} tensors equal the integer reference, bit for bit")
    say(f"results are in {out}")
    if wrong:
        raise DeviceError(f"{wrong:,} values differ from the integer reference; edgemoe report {out / 'report.json'}")
    if run.skipped:
        raise PictureError(f"{len(run.skipped)} of {len(run.paths)} pictures could not be read; their names are above")


def _picture(given: str) -> Path:
    """A picture or a folder; what is a video or a camera needs ``--video``."""
    if Path(given).suffix.lower() in SUFFIXES or names_camera(given):
        raise ValueError(f"{given}: of a video or camera only a video can be made: --video FILE")
    return Path(given)


def _make_video(bundle: Path, sources: list[str], options: VideoOptions) -> None:
    """Every frame into one video."""
    with working("reading") as work:
        run = VideoRun(load_bundle(bundle), sources, options)
        work.step(_STARTING.get(options.device, f"running on {options.device}"))

        def done(count: int) -> None:
            share = (count + len(run.skipped)) / run.total if run.total else 0.0
            work.detail(f"running on {options.device}: {count} frames", share)

        count = run.run(done)
    say(f"{count} frames of {', '.join(run.tasks)} are in {options.path}, {run.fps:g} a second")
    if run.skipped:
        raise PictureError(f"{len(run.skipped)} pictures could not be read; their names are above")


def _lines(result: PictureResult, config: AcceleratorConfig, device: str) -> Iterator[str]:
    """What was found in one picture."""
    yield str(result.path)
    width = max(map(len, result.tasks))
    predictions = {name: found.prediction for name, found in result.tasks.items()}
    for name, found in result.tasks.items():
        first = f"  {name:{width}}  "
        text = finding(found.prediction, unlabelled(found.prediction.kind, predictions))
        for line in text.split("\n"):
            yield from textwrap.wrap(line, _WIDTH, initial_indent=first, subsequent_indent=" " * len(first))
            first = " " * len(first)
        if cost := _cost(found, config, device):
            yield " " * len(first) + cost


def _cost(found: TaskResult, config: AcceleratorConfig, device: str) -> str:
    """Cycles, time and equality, as far as they are known."""
    stats, parts = found.prediction.stats, []
    if device == "sim" and stats.cycles is not None:
        mhz = config.assumed_clock_mhz
        parts.append(f"{stats.cycles:,} cycles, {stats.cycles / mhz / 1e3:.2f} ms at an assumed {mhz:g} MHz")
    elif device != "reference":
        of_all = f", for {len(stats.tasks)} tasks together" if len(stats.tasks) > 1 else ""
        parts.append(f"{1e3 * stats.device_seconds:.2f} ms on the device{of_all}")
    if found.tensors:
        equal = f"{found.mismatches:,} values DIFFER" if found.mismatches else f"{found.tensors} tensors equal"
        parts.append(equal)
    return "; ".join(parts)
