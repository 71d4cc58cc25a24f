"""PASCAL-Context (Chen et al., CVPR 2014; Mottaghi et al., CVPR 2014): photographs with 21 classes, normals and edges.

The layout ``PASCAL_MT`` of ASTMT (Maninis et al., CVPR 2019), Multi-Task-Learning-PyTorch and M3ViT. Its human parts
and its saliency are of no kind that this project has, and are not read.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgemoe_models.datasets import files
from edgemoe_models.datasets.base import Folder
from edgemoe_models.datasets.files import Array, Size

CLASSES = (
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)

#: Of PASCAL-Context's 459 classes those that NYUDv2 has too. The normals are another network's, trained on NYUDv2
#: (Maninis et al. 2019), and count only where that network knew what it saw.
_CLASSES_WITH_NORMALS = (
    3,
    4,
    6,
    9,
    10,
    11,
    13,
    15,
    17,
    18,
    22,
    23,
    29,
    30,
    33,
    34,
    36,
    37,
    38,
    39,
    41,
    43,
    46,
    49,
    50,
    51,
    53,
    55,
    56,
    59,
    61,
    62,
    65,
    66,
    68,
    69,
    72,
    73,
    78,
    83,
    84,
    85,
    87,
    88,
    95,
    96,
    101,
    104,
    105,
    107,
    111,
    113,
    115,
    122,
    124,
    135,
    141,
    142,
    143,
    146,
    150,
    154,
    157,
    158,
    159,
    165,
    172,
    174,
    181,
    183,
    184,
    191,
    193,
    195,
    197,
    199,
    202,
    213,
    215,
    216,
    219,
    220,
    223,
    225,
    228,
    230,
    232,
    233,
    238,
    239,
    242,
    243,
    246,
    250,
    251,
    252,
    255,
    260,
    261,
    263,
    269,
    272,
    273,
    275,
    281,
    283,
    284,
    285,
    286,
    287,
    288,
    290,
    291,
    292,
    293,
    295,
    304,
    307,
    309,
    310,
    314,
    315,
    319,
    323,
    329,
    330,
    331,
    336,
    342,
    345,
    349,
    350,
    351,
    352,
    355,
    357,
    368,
    370,
    371,
    374,
    379,
    380,
    383,
    384,
    397,
    401,
    403,
    405,
    407,
    408,
    411,
    412,
    413,
    414,
    417,
    419,
    421,
    423,
    427,
    429,
    430,
    432,
    440,
    441,
    442,
    443,
    444,
    446,
    454,
    457,
)


def _list_names(root: Path, split: str) -> list[str]:
    return files.read_names(root / "ImageSets" / "Context" / f"{split}.txt")


def _image(root: Path, split: str, name: str, size: Size) -> Array:
    return files.read_picture(root / "JPEGImages" / f"{name}.jpg", size)


def _segmentation(root: Path, split: str, name: str, size: Size) -> Array:
    """Labels of VOC 2012 where it has the picture, else PASCAL-Context's reduced to the same classes."""
    voc, context = (root / "semseg" / source / f"{name}.png" for source in ("VOC12", "pascal-context"))
    return files.nearest(files.read_image_values(voc if voc.is_file() else context), size)


def _context(root: Path, name: str, size: Size) -> Array:
    """The 459 classes."""
    return files.nearest(files.read_array(root / "pascal-context" / "trainval", name, "LabelMap"), size)


def _normals(root: Path, split: str, name: str, size: Size) -> Array:
    path = root / "normals_distill" / f"{name}.png"
    normals = files.signed(files.nearest(files.read_image_values(path), size))
    result: Array = normals * np.isin(_context(root, name, size), _CLASSES_WITH_NORMALS)[..., None]
    return result


def _edges(root: Path, split: str, name: str, size: Size) -> Array:
    """Boundaries of the 459 classes at the wanted size, so that an edge is one pixel wide there."""
    return files.boundaries(_context(root, name, size))


DATA_SET = Folder(
    name="pascal-context",
    class_names=CLASSES,
    far=10.0,
    home="github.com/SimonVandenhende/Multi-Task-Learning-PyTorch (PASCAL_MT)",
    tree="""\
  ImageSets/Context/{train,val}.txt         one NAME a line
  JPEGImages/NAME.jpg
  semseg/{VOC12,pascal-context}/NAME.png    0..20, 255: no label
  pascal-context/trainval/NAME.mat          for edges and normals (variable LabelMap; also as .npy or .png)
  normals_distill/NAME.png                  for normals""",
    list_names=_list_names,
    readers={"image": _image, "segmentation": _segmentation, "normals": _normals, "edges": _edges},
)
