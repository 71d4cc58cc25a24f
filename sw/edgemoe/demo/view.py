"""What the page is told: once about bundle and device, then one message a frame with its pictures and figures."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from edgemoe.bundle import Bundle
from edgemoe.demo.figures import Figures
from edgemoe.reports.pictures import colour
from edgemoe.runtime.accelerator import Accelerator
from edgemoe.runtime.predictions import Classification, Prediction
from edgemoe.runtime.stream import Frame
from edgemoe_models.config import TaskConfig
from edgemoe_models.datasets.scenes import CLASS_NAMES, MAX_DEPTH

__all__ = ["about", "decode", "encode"]

RGB = npt.NDArray[np.uint8]
#: Unit vectors in the camera frame (x right, y down, z forward) that the legend of normals explains.
_FACING = {"right": (1, 0, 0), "left": (-1, 0, 0), "up": (0, -1, 0), "the camera": (0, 0, -1)}
_LEGEND_CLASSES, _BEST_CLASSES = 24, 5


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
        "source": source,
        "width": model.image_width,
        "height": model.image_height,
        "clock_mhz": accelerator.clock_mhz,
        "measures_power": measures_power,
        "experts": model.num_experts,
        "visits": model.num_tokens * model.top_k if model.num_experts else 0,
        "tasks": [_about_task(bundle, task) for task in model.tasks],
    }


def _about_task(bundle: Bundle, task: TaskConfig) -> dict[str, Any]:
    cycles = sum(phase.estimated_cycles for phase in bundle.task(task.name).phases)
    legend, ramp = [], []
    if task.kind == "segmentation":
        known = task.channels == len(CLASS_NAMES)
        names = CLASS_NAMES if known else [f"class {number}" for number in range(min(task.channels, _LEGEND_CLASSES))]
        legend = [(name, _hex(colour("segmentation", np.array(number)))) for number, name in enumerate(names)]
    elif task.kind == "depth":
        ramp = [(f"{metres:.0f} m", _hex(colour("depth", np.array(metres)))) for metres in np.linspace(0, MAX_DEPTH, 9)]
    elif task.kind == "normals":
        legend = [(name, _hex(colour("normals", np.array(vector)))) for name, vector in _FACING.items()]
    elif task.kind == "edges":
        legend = [("edge", "#ffffff")]
    return {"name": task.name, "kind": task.kind, "legend": legend, "ramp": ramp, "estimated_cycles": cycles}


def _hex(rgb: RGB) -> str:
    return "#" + bytes(rgb.reshape(3)).hex()


def encode(frame: Frame, figures: Figures) -> bytes:
    """A finished frame as one message: the header's length (4 bytes, little-endian), the header (JSON), the images.

    The header has the figures in milliseconds, watts and millijoules a frame (null: not measured), under ``runs`` each
    task's, and under ``images`` name, type and size of each image, in their order.
    """
    assert frame.image is not None
    images = [("input", *_jpeg(frame.image))]
    images += [
        (name, *_png(colour(prediction.kind, prediction.values)))
        for name, prediction in frame.predictions.items()
        if not isinstance(prediction, Classification)
    ]
    header = {
        "number": frame.number,
        "fps": figures.fps,
        "latency": 1e3 * figures.latency,
        "latency_p50": 1e3 * figures.latency_p50,
        "latency_p90": 1e3 * figures.latency_p90,
        "watts": figures.watts,
        "millijoules": None if figures.joules is None else 1e3 * figures.joules,
        "runs": {name: _run(prediction) for name, prediction in frame.predictions.items()},
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
        best = prediction.scores.argsort()[::-1][:_BEST_CLASSES]
        run["classes"] = [(f"class {number}", float(prediction.scores[number])) for number in best]
    return run


def _jpeg(image: RGB) -> tuple[str, bytes]:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=92, subsampling=0)
    return "image/jpeg", file.getvalue()


def _png(image: RGB) -> tuple[str, bytes]:
    """Lossless: a colour stands for a class."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG", compress_level=1)
    return "image/png", file.getvalue()
