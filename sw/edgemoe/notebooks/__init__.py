"""Notebooks: quickstart, streaming, inside the accelerator; and what they share.

``pynq get-notebooks`` copies them to a board's Jupyter folder. They run on the board's accelerator where there is one,
elsewhere on the simulated RTL; ``EDGEMOE_DEVICE`` and ``EDGEMOE_BUNDLE`` choose otherwise.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from edgemoe.bundle import Bundle, BundleError
from edgemoe.reports.legends import colours
from edgemoe.runtime.platforms.overlays import FOLDERS
from edgemoe.runtime.predictions import Classification, Prediction
from edgemoe_models.datasets.scenes import SPLITS, generate_scene

__all__ = ["bars", "find_bundle", "find_device", "scene", "show"]

RGB = npt.NDArray[np.uint8]
_WIDTH, _MARGIN, _TITLE = 320, 8, 16


def find_device() -> str:
    """``pynq`` on a board (PYNQ's images name theirs in ``BOARD``), else ``sim``."""
    is_board = "BOARD" in os.environ and importlib.util.find_spec("pynq") is not None
    return os.environ.get("EDGEMOE_DEVICE") or ("pynq" if is_board else "sim")


def find_bundle() -> Bundle:
    """What ``make flash`` has copied to this board; elsewhere m3vit-micro, compiled for ``pynq-z2``.

    Raises:
        BundleError: this is a board, and no bundle is on it
    """
    if path := os.environ.get("EDGEMOE_BUNDLE"):
        return Bundle.load(path)
    found = [path for folder in FOLDERS for path in folder.expanduser().glob("*/bundle.emoe")]
    if found:
        return Bundle.load(max(found, key=lambda path: path.stat().st_mtime))
    if find_device() == "pynq":
        raise BundleError(
            f"no bundle in {' or '.join(map(str, FOLDERS))}; copy overlay and bundle to this board with "
            f"make flash, or name one: os.environ['EDGEMOE_BUNDLE'] = 'file.emoe'"
        )
    from edgemoe.compiler import build_bundle
    from edgemoe.workloads import best_model, load_graph
    from edgemoe_hw.spec.config import PRESETS

    return build_bundle(load_graph(best_model()), PRESETS["pynq-z2"])


def scene(bundle: Bundle, number: int = 0) -> RGB:
    """A generated scene of the model's size, uint8 [H, W, 3]."""
    model = bundle.model
    return generate_scene(SPLITS["demo"][number], model.image_height, model.image_width).image


def show(image: RGB, predictions: Mapping[str, Prediction] | None = None) -> Image.Image:
    """An image and what is predicted of it, side by side; classes as text."""
    panels = {"input": image} | colours(predictions or {})
    classes = [
        f"{name}: class {prediction.label}"
        for name, prediction in (predictions or {}).items()
        if isinstance(prediction, Classification)
    ]
    height = _WIDTH * image.shape[0] // image.shape[1]
    sheet = Image.new("RGB", (len(panels) * (_WIDTH + _MARGIN) - _MARGIN, height + _TITLE), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (title, pixels) in enumerate(panels.items()):
        left = number * (_WIDTH + _MARGIN)
        sheet.paste(Image.fromarray(pixels).resize((_WIDTH, height), Image.Resampling.NEAREST), (left, _TITLE))
        draw.text((left, 0), "  ".join([title, *classes]) if title == "input" else title, "black")
    return sheet


def bars(values: Mapping[str, float], width: int = 40) -> str:
    """Text with a bar for each value."""
    most, names = max(max(values.values()), 1), max(map(len, values))
    return "\n".join(
        f"{name:{names}} {'█' * round(width * value / most):{width}} {value:,.0f}" for name, value in values.items()
    )
