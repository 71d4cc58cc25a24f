"""Calibration images from a folder of pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from edgemoe_models.config import ModelConfig
from edgemoe_models.datasets.files import read_picture
from edgemoe_models.ptq.search import QuantizeError


def calibration_folder(path: Path | str, config: ModelConfig, count: int = 16) -> npt.NDArray[np.uint8]:
    """Pictures of a folder and of its subfolders, squeezed to the model's size, uint8 [B, H, W, 3].

    Args:
        count: of more pictures than these, so many are taken, evenly spaced in the order of their names

    Raises:
        QuantizeError: there is no such folder, no picture in it, or a file that cannot be read.
    """
    folder = Path(path)
    if count < 1:
        raise QuantizeError(f"at least 1 calibration image is needed, not {count}")
    if not folder.is_dir():
        raise QuantizeError(f"{folder}: no such folder of calibration images")
    suffixes = set(Image.registered_extensions())
    files = sorted(file for file in folder.rglob("*") if file.is_file() and file.suffix.lower() in suffixes)
    if not files:
        raise QuantizeError(f"{folder}: no pictures in this folder (files like *.png or *.jpg); give another one")
    chosen = [files[len(files) * i // count] for i in range(count)] if len(files) > count else files
    return np.stack([_read(file, config) for file in chosen])


def _read(file: Path, config: ModelConfig) -> npt.NDArray[np.uint8]:
    try:
        return read_picture(file, (config.image_height, config.image_width)).astype(np.uint8)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise QuantizeError(f"{file}: not a readable picture ({error}); remove it from the folder") from None
