"""CamVid's official form: 701 photographs of 960 x 720, labels in colours, 32 classes with Void.

Brostow, Fauqueur, Cipolla: *Semantic object classes in video*, Pattern Recognition Letters 2009. Colours are those of
the authors' ``label_colors.txt``. Two trees are known: the authors' two folders, whose pictures are shared out as
SegNet's tutorial does (a split by recording, which their names tell), and a folder for each split.
"""

from __future__ import annotations

import csv
import functools
import re
from pathlib import Path

import numpy as np

from edgemoe_models import pictures
from edgemoe_models.datasets import files
from edgemoe_models.datasets.files import Array, Size

__all__ = ["CLASSES", "PALETTE", "VOID", "find_pictures", "list_names", "read_classes", "read_image"]

_COLOURS = {
    "Animal": (64, 128, 64),
    "Archway": (192, 0, 128),
    "Bicyclist": (0, 128, 192),
    "Bridge": (0, 128, 64),
    "Building": (128, 0, 0),
    "Car": (64, 0, 128),
    "CartLuggagePram": (64, 0, 192),
    "Child": (192, 128, 64),
    "Column_Pole": (192, 192, 128),
    "Fence": (64, 64, 128),
    "LaneMkgsDriv": (128, 0, 192),
    "LaneMkgsNonDriv": (192, 0, 64),
    "Misc_Text": (128, 128, 64),
    "MotorcycleScooter": (192, 0, 192),
    "OtherMoving": (128, 64, 64),
    "ParkingBlock": (64, 192, 128),
    "Pedestrian": (64, 64, 0),
    "Road": (128, 64, 128),
    "RoadShoulder": (128, 128, 192),
    "Sidewalk": (0, 0, 192),
    "SignSymbol": (192, 128, 128),
    "Sky": (128, 128, 128),
    "SUVPickupTruck": (64, 128, 192),
    "TrafficCone": (0, 0, 64),
    "TrafficLight": (0, 64, 64),
    "Train": (192, 64, 128),
    "Tree": (128, 128, 0),
    "Truck_Bus": (192, 128, 192),
    "Tunnel": (64, 0, 64),
    "VegetationMisc": (192, 192, 0),
    "Wall": (64, 192, 0),
}
#: The classes that count, in the published order.
CLASSES = tuple(_COLOURS)
#: Their colours, uint8 [31, 3].
PALETTE = np.array(list(_COLOURS.values()), np.uint8)
#: The number of pixels without a class.
VOID = len(CLASSES)
_VOID_NAME, _VOID_COLOUR = "Void", (0, 0, 0)
_PICTURES, _LABELS = ("701_StillsRaw_full", "images"), ("LabeledApproved_full", "labels")
_NAME = re.compile(r"(0001TP|0006R0|0016E5|Seq05VD)_f?(\d+)")


def find_pictures(root: Path, split: str) -> tuple[Path, Path] | None:
    """Folders of a split's pictures and labels; None where the tree is of another form."""
    for one, other in ((split, f"{split}_labels"), *((a, b) for a in _PICTURES for b in _LABELS)):
        if (root / one).is_dir() and (root / other).is_dir():
            return root / one, root / other
    return None


def _folders(root: Path, split: str) -> tuple[Path, Path]:
    found = find_pictures(root, split)
    if found is None:
        raise FileNotFoundError(2, "no such folder", str(root / f"{_PICTURES[0]} (or {split} and {split}_labels)"))
    return found


def list_names(root: Path, split: str) -> list[str]:
    """File names of a split's pictures, sorted.

    Raises:
        ValueError: the tree is not shared out, and a picture's name is none of CamVid's
    """
    folder, _ = _folders(root, split)
    names = [path.name for path in pictures.picture_files(folder)]
    return names if folder.name == split else [name for name in names if _split_of(folder / name) == split]


def _split_of(path: Path) -> str:
    """SegNet's: test is the recording Seq05VD and the second half of 0001TP, val 101 frames in a row of 0016E5."""
    match = _NAME.fullmatch(path.stem)
    if match is None:
        raise ValueError(
            f"{path}: its name is none of CamVid's (0001TP_006690, ...), by which pictures are shared out; make "
            f"folders train, train_labels, val, val_labels, ..."
        )
    recording, frame = match[1], int(match[2])
    if recording == "Seq05VD" or (recording == "0001TP" and frame >= 8550):
        return "test"
    return "val" if recording == "0016E5" and 7959 <= frame <= 8159 else "train"


def read_image(root: Path, split: str, name: str, size: Size) -> Array:
    """A ``datasets.base.Reader``."""
    return files.read_picture(_folders(root, split)[0] / name, size)


def read_classes(root: Path, split: str, name: str, size: Size) -> Array:
    """Numbers of classes [height, width] as ``CLASSES`` counts them, or ``VOID``.

    Raises:
        FileNotFoundError: the picture has no label
        ValueError: it has another size than the picture, or a colour that is no class's
    """
    picture, labels = (folder / name for folder in _folders(root, split))
    path = labels.with_name(f"{labels.stem}_L.png")
    files.require_same_size(picture, path)
    colours = files.read_colours(path)
    codes = colours.astype(np.int64) @ (1 << 16, 1 << 8, 1)
    source = _class_file(root)
    known, numbers = _codes(source, "" if source is None else files.read_text(source))
    at = np.searchsorted(known, codes).clip(max=len(known) - 1)
    if (strange := known[at] != codes).any():
        row, column = np.argwhere(strange)[0].tolist()
        raise ValueError(
            f"{path}: the colour {tuple(colours[row, column].tolist())} in row {row}, column {column} is of no class; "
            f"labels have the colours of {source or 'the published label_colors.txt'}"
        )
    return files.nearest(numbers[at], size)


def _class_file(root: Path) -> Path | None:
    return next((path for path in (root / "class_dict.csv", root / "label_colors.txt") if path.is_file()), None)


@functools.cache
def _codes(path: Path | None, text: str) -> tuple[Array, Array]:
    """Colours as numbers, sorted, and the class of each: those of a file of classes, or the published ones."""
    colours = {**_COLOURS, _VOID_NAME: _VOID_COLOUR} if path is None else _read_colours(path, text)
    pairs = sorted(
        ((red << 16) + (green << 8) + blue, VOID if name == _VOID_NAME else CLASSES.index(name))
        for name, (red, green, blue) in colours.items()
    )
    known, numbers = np.array(pairs, np.int64).T
    return known, numbers.astype(np.uint8)


def _cells(path: Path, line: str) -> list[str]:
    """Of a line; none where it is longer than ``csv`` reads, which is then no class."""
    if path.suffix != ".csv":
        return line.split()
    try:
        return [cell.strip() for cell in next(csv.reader([line]), [])]
    except csv.Error:
        return ["?"]


def _read_colours(path: Path, text: str) -> dict[str, tuple[int, int, int]]:
    """Of ``class_dict.csv`` (name,r,g,b) or ``label_colors.txt`` (r g b name)."""
    colours: dict[str, tuple[int, int, int]] = {}
    for number, line in enumerate(text.splitlines(), 1):
        cells = _cells(path, line)
        if not any(cells) or [cell.casefold() for cell in cells] == ["name", "r", "g", "b"]:
            continue
        name, numbers = (cells[0], cells[1:]) if path.suffix == ".csv" else (cells[-1], cells[:-1])
        if len(numbers) != 3 or not all(cell.isdecimal() and len(cell) < 4 and int(cell) < 256 for cell in numbers):
            raise ValueError(f"{path}, line {number}: it must be a class and its colour's red, green and blue, 0..255")
        if name not in CLASSES and name != _VOID_NAME:
            raise ValueError(f"{path}, line {number}: {name!r} is none of CamVid's 32 classes")
        colour = (int(numbers[0]), int(numbers[1]), int(numbers[2]))
        if name in colours or colour in colours.values():
            raise ValueError(f"{path}, line {number}: the class or its colour has a line already")
        colours[name] = colour
    if not colours:
        raise ValueError(f"{path}: it lists no classes")
    return colours
