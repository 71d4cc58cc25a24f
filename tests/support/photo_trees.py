"""Miniatures of data sets of photographs: CamVid in its official form, CIFAR's batches, a folder for each class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

__all__ = ["assert_tells_tree", "make_camvid_official", "make_cifar", "make_image_folder", "save_image"]

#: Two pictures to train on, one to validate, two to test: by their names (SegNet's split).
FRAMES = ("0001TP_006690", "0006R0_f00930", "0016E5_07959", "0001TP_008550", "Seq05VD_f00000")
SKY, ROAD, VOID, LANE = (128, 128, 128), (128, 64, 128), (0, 0, 0), (128, 0, 192)


def save_image(path: Path, array: np.ndarray) -> None:
    """Write it, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def make_camvid_official(root: Path, height: int, width: int, by_split: bool = False) -> None:
    """Sky left, road right with a lane's marking at its right edge, Void in the first row."""
    labels = np.full((height, width, 3), SKY, np.uint8)
    labels[:, width // 2 :] = ROAD
    labels[:, -1] = LANE
    labels[0] = VOID
    for number, name in enumerate(FRAMES):
        split = ("train", "train", "val", "test", "test")[number]
        pictures = split if by_split else "701_StillsRaw_full"
        folder = f"{split}_labels" if by_split else "LabeledApproved_full"
        save_image(root / pictures / f"{name}.png", np.full((height, width, 3), 40 * number, np.uint8))
        save_image(root / folder / f"{name}_L.png", labels)


def make_cifar(root: Path, classes: int = 10, records: int = 4) -> None:
    """``records`` pictures a batch, of which picture i has the class i and is as red as 20 i."""
    for file in (*(f"data_batch_{n}.bin" for n in range(1, 6)), "test_batch.bin"):
        content = b""
        for i in range(records):
            pixels = np.zeros((3, 32, 32), np.uint8)
            pixels[0], pixels[1, :, 16:] = 20 * i, 200
            content += bytes([i % classes]) + pixels.tobytes()
        root.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(content)


def make_image_folder(root: Path, classes: tuple[str, ...] = ("cat", "dog", "newt"), count: int = 4) -> None:
    """``count`` pictures a class to train on, 2 to validate, each class of its own grey."""
    for split, most in (("train", count), ("val", 2)):
        for number, name in enumerate(classes):
            for i in range(most):
                save_image(root / split / name / f"{i}.png", np.full((20, 24, 3), 60 * number + i, np.uint8))


def assert_tells_tree(message, data):
    """A refusal, one line, that says where the data set ``data`` is to be had and which files it has."""
    assert data.home in message and "\n" not in message
    assert message.count("(") == message.count(")")
    paths = [line.split("  ")[0] for line in map(str.strip, data.tree.splitlines())]
    assert len(paths) > 1 and all(path in message for path in paths)
    assert f"{paths[0]}; " in message or f"{paths[0]} (" in message
