"""What the demo plays: endless frames of the model's aspect ratio."""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from edgemoe.runtime.frames import IMAGE_SUFFIXES, frames
from edgemoe_models.config import ModelConfig
from edgemoe_models.datasets.scenes import SPLITS, generate_scene

__all__ = ["Endless", "crop", "drifting_scenes", "endless"]

RGB = npt.NDArray[np.uint8]
#: Frames, and in place of an image of a folder that cannot be read, why.
Endless = Generator[RGB | ValueError, None, None]
_STEPS = 75  # frames that one scene is shown for
_WINDOW = 0.86  # share of the scene that a frame shows


def endless(source: str, model: ModelConfig) -> Endless:
    """Frames uint8 [h, w, 3] of the model's aspect ratio; what ends begins again. An image of a folder that cannot be
    read does not end the others: its place has the error.

    Args:
        source: ``scenes`` (generated ones), ``camera`` or ``camera:1``, an image, a folder of images, or a video

    Raises:
        ValueError: there is no such source, at once; or, later, nothing of it can be read any more
    """
    if source == "scenes":
        return drifting_scenes(model.image_height, model.image_width)
    return _looped(source, _open(source), model)


def drifting_scenes(height: int, width: int) -> Generator[RGB, None, None]:
    """The demo scenes, one after the other, each through a window that drifts across it: uint8 [height, width, 3]."""
    for seed in itertools.cycle(SPLITS["demo"]):
        scene = Image.fromarray(generate_scene(seed, 2 * height, 2 * width).image)
        across, down = scene.width * (1 - _WINDOW), scene.height * (1 - _WINDOW)
        for step in range(_STEPS):
            share = step / (_STEPS - 1)
            left = across * (share if seed % 2 else 1 - share)
            top = down * (0.5 - 0.5 * np.cos(2 * np.pi * share))
            box = (left, top, left + scene.width * _WINDOW, top + scene.height * _WINDOW)
            yield np.asarray(scene.resize((width, height), Image.Resampling.BILINEAR, box))


def crop(frame: RGB, height: int, width: int) -> RGB:
    """The largest window in the middle with the aspect ratio of ``height`` x ``width``, at the frame's resolution."""
    rows = min(frame.shape[0], max(frame.shape[1] * height // width, 1))
    columns = min(frame.shape[1], max(frame.shape[0] * width // height, 1))
    top, left = (frame.shape[0] - rows) // 2, (frame.shape[1] - columns) // 2
    return frame[top : top + rows, left : left + columns]


def _looped(source: str, opened: Iterator[RGB | ValueError], model: ModelConfig) -> Endless:
    while True:
        is_empty, error = True, ValueError(f"{source}: it has no frames (any more)")
        try:
            for frame in opened:
                if isinstance(frame, ValueError):
                    error = frame
                    yield frame
                else:
                    is_empty = False
                    yield crop(frame, model.image_height, model.image_width)
        finally:
            if hasattr(opened, "close"):
                opened.close()
        if is_empty:
            raise error
        opened = _open(source)


def _open(source: str) -> Iterator[RGB | ValueError]:
    """One pass. Image files of any mode are welcome here: a demo shows what it is given."""
    path = Path(source)
    if path.is_dir():
        if files := sorted(file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES):
            return map(_rgb_or_error, files)
    elif path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES:
        return iter([_rgb(path)])
    return frames("camera:0" if source == "camera" else source)


def _rgb(path: Path) -> RGB:
    try:
        with Image.open(path) as image:
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path}: not a readable image ({error})") from None


def _rgb_or_error(path: Path) -> RGB | ValueError:
    try:
        return _rgb(path)
    except ValueError as error:
        return error
