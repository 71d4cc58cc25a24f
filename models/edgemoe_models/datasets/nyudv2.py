"""NYUDv2 (Silberman et al., ECCV 2012): indoor photographs, 40 classes, depth, normals and edges.

The layout ``NYUD_MT`` of Multi-Task-Learning-PyTorch (Vandenhende et al., TPAMI 2021), MTI-Net and M3ViT.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgemoe_models.datasets import files
from edgemoe_models.datasets.base import Folder
from edgemoe_models.datasets.files import Array, Size

CLASSES = (
    "wall",
    "floor",
    "cabinet",
    "bed",
    "chair",
    "sofa",
    "table",
    "door",
    "window",
    "bookshelf",
    "picture",
    "counter",
    "blinds",
    "desk",
    "shelves",
    "curtain",
    "dresser",
    "pillow",
    "mirror",
    "floor mat",
    "clothes",
    "ceiling",
    "books",
    "refrigerator",
    "television",
    "paper",
    "towel",
    "shower curtain",
    "box",
    "whiteboard",
    "person",
    "night stand",
    "toilet",
    "sink",
    "lamp",
    "bathtub",
    "bag",
    "other structure",
    "other furniture",
    "other prop",
)


def _list_names(root: Path, split: str) -> list[str]:
    return files.read_names(root / "gt_sets" / f"{split}.txt")


def _image(root: Path, split: str, name: str, size: Size) -> Array:
    return files.read_picture(root / "images" / f"{name}.jpg", size)


def _segmentation(root: Path, split: str, name: str, size: Size) -> Array:
    """In the files 0 is "no label" and 1..40 are the classes."""
    stored = files.read_array(root / "segmentation", name, "segmentation")
    return files.nearest(stored, size).astype(np.uint8) - np.uint8(1)  # 0 becomes 255


def _depth(root: Path, split: str, name: str, size: Size) -> Array:
    return files.nearest(files.read_array(root / "depth", name, "depth"), size)


def _normals(root: Path, split: str, name: str, size: Size) -> Array:
    return files.signed(files.nearest(files.read_array(root / "normals", name, "normals"), size))


def _edges(root: Path, split: str, name: str, size: Size) -> Array:
    return files.any_in_cell(files.read_array(root / "edge", name, "edge") >= 0.5, size)


DATA_SET = Folder(
    name="nyudv2",
    class_names=CLASSES,
    far=10.0,
    home="github.com/SimonVandenhende/Multi-Task-Learning-PyTorch (NYUD_MT)",
    tree="""\
  gt_sets/{train,val}.txt      one NAME a line
  images/NAME.jpg
  segmentation/NAME.png        0: no label, 1..40
  depth/NAME.npy               metres, 0: none
  normals/NAME.npy             [H, W, 3], 0: none
  edge/NAME.npy                0 or 1
  (labels also as .png or .mat)""",
    list_names=_list_names,
    readers={
        "image": _image,
        "segmentation": _segmentation,
        "depth": _depth,
        "normals": _normals,
        "edges": _edges,
    },
)
