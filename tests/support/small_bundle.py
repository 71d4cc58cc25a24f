"""A small model with three kinds of tasks, for the tests of the command line, and pictures of its size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from edgemoe_models.config import TaskConfig
from support.random_graphs import small_model

TASKS = (
    TaskConfig("segmentation", "segmentation", channels=8, head_hidden=20, cells=2),
    TaskConfig("depth", "depth", channels=1, cells=2),
    TaskConfig("scene", "classification", channels=11),
)
MODEL = small_model(tasks=TASKS)
SIZE = (MODEL.image_width, MODEL.image_height)


def picture(path: Path, mode: str = "RGB", size: tuple[int, int] = SIZE) -> Path:
    """Write a picture of noise; its folders are made."""
    values = np.random.default_rng(1).integers(0, 256, (*size[::-1], len(mode)), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.squeeze(), mode).save(path)
    return path
