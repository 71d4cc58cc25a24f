"""Calibration images from a folder of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from edgemoe_models.config import ModelConfig
from edgemoe_models.pictures import Notes, PictureError, Resize, picture_files, read_picture
from edgemoe_models.ptq.options import QuantizeError

Images = npt.NDArray[np.uint8]
_Item = TypeVar("_Item")


def calibration_folder(
    path: Path | str, config: ModelConfig, count: int = 16, resize: Resize = "squeeze", notes: Notes | None = None
) -> Images:
    """Pictures of a folder and of its subfolders at the model's size, uint8 [B, H, W, 3].

    Args:
        count: of more pictures than these, so many are taken, evenly spaced in the order of their names
        resize: how they get the model's size
        notes: told how they were converted

    Raises:
        QuantizeError: there is no such folder, no picture in it, or a file that cannot be read.
    """
    return calibration_pictures(path, config, count, resize, notes)[0]


def calibration_pictures(
    path: Path | str,
    config: ModelConfig,
    count: int = 16,
    resize: Resize = "squeeze",
    notes: Notes | None = None,
    held_out: int = 0,
) -> tuple[Images, Images]:
    """``calibration_folder``, and at most ``held_out`` other pictures of the folder, evenly spaced too; maybe none."""
    folder = Path(path)
    if count < 1:
        raise QuantizeError(f"at least 1 calibration image is needed, not {count}")
    if not folder.is_dir():
        raise QuantizeError(f"{folder}: no such folder of calibration images")
    size, notes = (config.image_height, config.image_width), notes or Notes()
    try:
        files = picture_files(folder, recursive=True)
        chosen = spread(files, count)
        others = spread([file for file in files if file not in set(chosen)], held_out)
        known, unknown = ([read_picture(file, size, resize, notes=notes) for file in part] for part in (chosen, others))
    except PictureError as error:
        raise QuantizeError(f"{error}; remove it from the folder, or give another one") from None
    return np.stack(known), np.stack(unknown) if unknown else np.zeros((0, *size, 3), np.uint8)


def spread(items: Sequence[_Item], count: int) -> Sequence[_Item]:
    """At most ``count`` of them, evenly spaced."""
    return [items[len(items) * i // count] for i in range(count)] if len(items) > count else items
