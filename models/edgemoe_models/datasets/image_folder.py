"""A folder of photographs with a folder for each class, as torchvision's ImageFolder and ImageNet have it.

The classes are the folders of ``train`` in the order of their names. Pictures give their middle (``crop``), turned as
their EXIF orientation says. Any number of them, from the first, has each class in its share.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np

from edgemoe_models import pictures
from edgemoe_models.datasets.base import Folder
from edgemoe_models.datasets.files import Array, Size

_NOTES = pictures.Notes()


def _folders(folder: Path) -> list[str]:
    """Names of a split's folders but hidden ones, sorted; FileNotFoundError where the split is missing."""
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))


def _with_classes(folder: Folder, root: Path) -> Folder:
    names = tuple(_folders(root / "train"))
    if len(names) < 2:
        found = f"only {names[0]!r}" if names else "none"
        raise ValueError(f"{root / 'train'}: it must have a folder for each class, at least two, but has {found}")
    for name in names:
        if not name.isprintable():
            raise ValueError(
                f"{root / 'train'}: the folder {name!r} must be renamed: a class is called like its folder"
            )
    readers = dict(folder.readers)

    def label(root: Path, split: str, name: str, size: Size) -> Array:
        return np.array(names.index(name.partition("/")[0]), np.uint16)

    def list_names(root: Path, split: str) -> list[str]:
        return _list_names(root, split, names)

    return dataclasses.replace(
        folder, class_names=names, list_names=list_names, readers=readers | {"classification": label}
    )


def _list_names(root: Path, split: str, classes: tuple[str, ...]) -> list[str]:
    """``CLASS/FILE`` of a split, the classes evenly mixed. A class may have no folder in a split but ``train``."""
    ranked = []
    for number, name in enumerate(_folders(root / split)):
        where = root / split / name
        if name not in classes:
            raise ValueError(f"{where}: it is no class, for {root / 'train'} has no folder of this name")
        try:
            found = pictures.picture_files(where, recursive=True)
        except pictures.PictureError as error:
            raise ValueError(f"{error}; add pictures, or remove the folder") from None
        for index, path in enumerate(found):
            ranked.append(((index + 0.5) / len(found), number, path.relative_to(root / split).as_posix()))
    return [name for _, _, name in sorted(ranked)]


def _image(root: Path, split: str, name: str, size: Size) -> Array:
    return pictures.read_picture(root / split / name, size, "crop", notes=_NOTES)


def _unbound(root: Path, split: str, *_: object) -> Array:
    raise AssertionError("its classes are known only in a folder: DataSet.at")


DATA_SET = Folder(
    name="imagefolder",
    class_names=(),
    far=10.0,
    home="your own photographs, or any data set of this form, as ImageNet's",
    tree="""\
  train/CLASS/*.jpg         a folder for each class, at least two
  val/CLASS/*.jpg           likewise, of the same classes; test/ too if it is to be measured""",
    list_names=_unbound,  # type: ignore[arg-type]
    readers={"image": _image, "classification": _unbound},
    bind=_with_classes,
)
