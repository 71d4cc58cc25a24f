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
from PIL import Image

from edgemoe.bundle import Bundle, BundleError
from edgemoe.reports.panels import panels
from edgemoe.runtime.platforms.overlays import overlay_folders
from edgemoe.runtime.predictions import Prediction
from edgemoe_models.datasets.scenes import SPLITS, generate_scene

__all__ = ["bars", "find_bundle", "find_device", "scene", "show"]

RGB = npt.NDArray[np.uint8]


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
    folders = overlay_folders()
    found = [path for folder in folders for path in folder.glob("*/bundle.emoe")]
    if found:
        return Bundle.load(max(found, key=lambda path: path.stat().st_mtime))
    if find_device() == "pynq":
        raise BundleError(
            f"no bundle in {' or '.join(map(str, folders))}; copy overlay and bundle to this board with "
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
    """An image and what is found in it, side by side, with legends; of a classification the best five classes."""
    return panels(image, predictions or {})


def bars(values: Mapping[str, float], width: int = 40) -> str:
    """Text with a bar for each value."""
    most, names = max(max(values.values()), 1), max(map(len, values))
    return "\n".join(
        f"{name:{names}} {'█' * round(width * value / most):{width}} {value:,.0f}" for name, value in values.items()
    )
