"""What the demo plays: endless frames."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from edgemoe.runtime.frames import frames
from edgemoe_models.config import ModelConfig
from edgemoe_models.datasets.scenes import SPLITS, generate_scene
from edgemoe_models.pictures import PICTURE_SUFFIXES, Notes, Resize, kind_of, picture_files, read_picture, shown

__all__ = ["Endless", "drifting_scenes", "endless"]

RGB = npt.NDArray[np.uint8]
#: Frames, and in place of a picture that cannot be read, why.
Endless = Generator[RGB | ValueError, None, None]
_STEPS = 75  # frames that one scene is shown for
_WINDOW = 0.86  # share of the scene that a frame shows


def endless(source: str, model: ModelConfig, resize: Resize = "crop", notes: Notes | None = None) -> Endless:
    """Frames uint8 [h, w, 3]; what ends begins again. Pictures come at the model's size, scenes and videos at theirs.

    A picture that cannot be read has its error in its place, and so has a folder that is empty meanwhile: neither ends
    the others.

    Args:
        source: ``scenes`` (generated ones), ``camera`` or ``camera:1``, an image, a folder of images, or a video
        resize: how pictures get the model's size
        notes: told how pictures were converted

    Raises:
        ValueError: there is no such source, at once; or, later, a video or a camera gives nothing any more
    """
    path, notes = Path(source), notes or Notes()
    size = (model.image_height, model.image_width)

    def read(file: Path) -> RGB:
        return read_picture(file, size, resize, notes=notes)

    if source == "scenes":
        return drifting_scenes(*size)
    if path.is_dir():
        picture_files(path)  # refuses a folder that has none
        return _pictures(lambda: picture_files(path), read)
    if path.is_file() and (kind_of(path) == "picture" or path.suffix.lower() in PICTURE_SUFFIXES):
        read(path)  # refuses what is none
        return _pictures(lambda: [path], read)
    return _looped(source, _open(source))


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


def _pictures(list_files: Callable[[], list[Path]], read: Callable[[Path], RGB]) -> Endless:
    while True:
        try:
            files = list_files()
        except ValueError as error:
            yield error
            continue
        for file in files:
            try:
                picture: RGB | ValueError = read(file)
            except ValueError as error:
                picture = error
            yield picture


def _looped(source: str, opened: Iterator[RGB]) -> Endless:
    while True:
        is_empty = True
        try:
            for frame in opened:
                is_empty = False
                yield frame
        finally:
            if hasattr(opened, "close"):
                opened.close()
        if is_empty:
            raise ValueError(f"{shown(source)}: it has no frames (any more)")
        opened = _open(source)


def _open(source: str) -> Iterator[RGB]:
    return frames("camera:0" if source == "camera" else source)
