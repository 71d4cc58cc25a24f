"""What the page is told: once about bundle and device, then one message a frame with its pictures and figures."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from edgemoe.bundle import Bundle, Joined
from edgemoe.demo.figures import Figures
from edgemoe.reports.legends import colour, colours, legend
from edgemoe.runtime.accelerator import Accelerator
from edgemoe.runtime.predictions import Classification, Prediction, Stats
from edgemoe.runtime.stream import Frame
from edgemoe_models.config import TaskConfig
from edgemoe_models.datasets.scenes import MAX_DEPTH
from edgemoe_models.pictures import shown

__all__ = ["about", "decode", "encode", "together"]

RGB = npt.NDArray[np.uint8]


def about(accelerator: Accelerator, source: str, measures_power: bool = False) -> dict[str, Any]:
    """Bundle, device and legends.

    ``visits``: tokens that the experts of a block get in sum. ``tasks``: ``name``, ``kind``, ``legend`` (pairs of text
    and colour), ``ramp`` (the same for a continuous scale) and ``estimated_cycles``.
    """
    bundle, model = accelerator.bundle, accelerator.bundle.model
    return {
        "type": "about",
        "model": model.name,
        "device": accelerator.device,
        "config": bundle.config.name,
        "source": shown(source),
        "width": model.image_width,
        "height": model.image_height,
        "clock_mhz": accelerator.clock_mhz,
        "measures_power": measures_power,
        "experts": model.num_experts,
        "visits": model.num_tokens * model.top_k if model.num_experts else 0,
        "tasks": [_about_task(bundle, task) for task in model.tasks],
    }


def _about_task(bundle: Bundle, task: TaskConfig) -> dict[str, Any]:
    cycles = bundle.task(task.name).estimated_cycles
    names = [(name, _hex(rgb)) for name, rgb in legend(task.kind, task.channels, task.labels)]
    metres = np.linspace(0, MAX_DEPTH, 9 if task.kind == "depth" else 0)
    scale = [(f"{value:.0f} m", _hex(colour("depth", np.array(value)))) for value in metres]
    return {"name": task.name, "kind": task.kind, "legend": names, "ramp": scale, "estimated_cycles": cycles}


def _hex(rgb: Iterable[int]) -> str:
    return "#" + bytes(int(value) for value in rgb).hex()


def encode(frame: Frame, figures: Figures, bundle: Bundle) -> bytes:
    """A finished frame as one message: the header's length (4 bytes, little-endian), the header (JSON), the images.

    The header has the figures in milliseconds, watts and millijoules a frame (null: not measured), under ``runs`` each
    task's, under ``programs`` those of the programs that were run for it (``_program``), and under ``images`` name,
    type and size of each image, in their order.
    """
    assert frame.image is not None
    images = [("input", *_jpeg(frame.image))]
    images += [(name, *_png(rgb)) for name, rgb in colours(frame.predictions).items()]
    header = {
        "number": frame.number,
        "fps": figures.fps,
        "latency": 1e3 * figures.latency,
        "latency_p50": 1e3 * figures.latency_p50,
        "latency_p90": 1e3 * figures.latency_p90,
        "watts": figures.watts,
        "millijoules": None if figures.joules is None else 1e3 * figures.joules,
        "runs": {name: _run(prediction) for name, prediction in frame.predictions.items()},
        "programs": _programs(bundle, frame.predictions),
        "images": [(name, kind, len(content)) for name, kind, content in images],
    }
    text = json.dumps(header).encode()
    return b"".join([len(text).to_bytes(4, "little"), text, *(content for _, _, content in images)])


def decode(message: bytes) -> tuple[dict[str, Any], dict[str, RGB]]:
    """The header and the images [H, W, 3] of a message: what the page's script does, for checks."""
    start = 4 + int.from_bytes(message[:4], "little")
    header, images = json.loads(message[4:start]), {}
    for name, _, size in header["images"]:
        images[name] = np.asarray(Image.open(io.BytesIO(message[start : start + size])))
        start += size
    return header, images


def _run(prediction: Prediction) -> dict[str, Any]:
    stats = prediction.stats
    run: dict[str, Any] = {
        "cycles": stats.cycles,
        "device_ms": 1e3 * stats.device_seconds,
        "host_ms": 1e3 * stats.host_seconds,
        "experts": stats.expert_loads,
    }
    if isinstance(prediction, Classification):
        run["classes"] = [(best.name, best.probability) for best in prediction.topk()]
    return run


def _programs(bundle: Bundle, predictions: Mapping[str, Prediction]) -> list[dict[str, Any]]:
    """The programs that were run for a frame, each once."""
    stats = {prediction.stats.tasks: prediction.stats for prediction in predictions.values()}
    return [_program(bundle, each) for each in stats.values()]


def _program(bundle: Bundle, stats: Stats) -> dict[str, Any]:
    """One program: its ``tasks``, and how many ``images`` (frames) it was of at once.

    ``cycles`` are measured, null where there are none to count; ``estimated_cycles``: the compiler's; ``experts``: mean
    tokens of each expert for one task of one frame, by block; ``text``: what to say of a program of several.
    """
    joined = Joined(stats.tasks, stats.images)
    estimated = bundle.program(joined).estimated_cycles
    experts = {block: [tokens / stats.shared for tokens in loads] for block, loads in stats.expert_loads.items()}
    return {
        "tasks": stats.tasks,
        "images": stats.images,
        "cycles": stats.cycles,
        "estimated_cycles": estimated,
        "experts": experts,
        "text": together(bundle, joined, stats.cycles) if stats.shared > 1 else "",
    }


def together(bundle: Bundle, joined: Joined, cycles: int | None) -> str:
    """What a program of several tasks or frames takes, beside what they take one by one.

    ``cycles``: measured; None: the compiler's estimate is shown. What nobody has run, one by one, is estimated.
    """
    alone = joined.images * sum(bundle.task(task).estimated_cycles for task in joined.tasks)
    shown = bundle.program(joined).estimated_cycles if cycles is None else cycles
    tasks = f"{len(joined.tasks)} tasks" if len(joined.tasks) > 1 else joined.tasks[0]
    frames = f" of {joined.images} frames" if joined.images > 1 else ""
    estimated = "both estimated" if cycles is None else "measured, and estimated"
    return (
        f"{tasks}{frames} in one program: {shown:,} cycles, {shown / alone:.0%} of {alone:,} one by one ({estimated})"
    )


def _jpeg(image: RGB) -> tuple[str, bytes]:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=92, subsampling=0)
    return "image/jpeg", file.getvalue()


def _png(image: RGB) -> tuple[str, bytes]:
    """Lossless: a colour stands for a class."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG", compress_level=1)
    return "image/png", file.getvalue()
