"""A small model of animals and ground with class names, and folders of pictures for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import safetensors.numpy
from PIL import Image

from edgemoe.compiler import build_bundle
from edgemoe_hw.spec.config import PRESETS
from edgemoe_models.config import TaskConfig
from edgemoe_models.ptq.quantize import quantize
from edgemoe_models.random_weights import random_images, random_state
from support.random_graphs import small_model

NAMES = ("tabby cat, tabby", "dog", "crane", "crane", "fox", "owl", "bee", "ant", "elk", "cow", "pig")
TASKS = (
    TaskConfig("animal", "classification", channels=11, labels=NAMES),
    TaskConfig("ground", "segmentation", channels=3, cells=2, labels=("land", "water", "sky")),
)
MODEL = small_model("animals", tasks=TASKS)
SIZE = (MODEL.image_width, MODEL.image_height)
#: Classes by a part of a name, in other letters; by a number; by a name.
LABELS = {"Tabby_Cat": 0, "3": 3, "dog": 1}


def trained_files(folder: Path) -> tuple[Path, Path]:
    """A float checkpoint and its bundle."""
    state = random_state(MODEL, 0)
    safetensors.numpy.save_file(state, folder / "animals.safetensors", {"config": MODEL.to_json()})
    build_bundle(quantize(state, MODEL, random_images(MODEL, 8)), PRESETS["tiny"]).save(folder / "animals.emoe")
    return folder / "animals.safetensors", folder / "animals.emoe"


def blocks(path: Path, seed: int, size: tuple[int, int] = SIZE) -> Path:
    """Write a picture of blocks of colour, which the model tells apart better than noise."""
    values = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).resize(size, Image.Resampling.NEAREST).save(path)
    return path


def class_folders(folder: Path) -> Path:
    """Nine pictures of three classes, and what does not count."""
    for number in range(9):
        blocks(folder / list(LABELS)[number % 3] / "deep" / f"{number}.png", number)
    (folder / ".hidden").mkdir()
    (folder / "owl").mkdir()
    (folder / "owl" / "Thumbs.db").touch()
    (folder / "notes.txt").touch()
    return folder
