"""Cityscapes (Cordts et al., CVPR 2016): street photographs, 19 classes and depth from stereo.

Two layouts: the official tree, and the arrays of 128 x 256 with 7 classes that MTAN (Liu et al., CVPR 2019) published
and M3ViT trains on. Both code bases regress the disparity as "inverse depth"; here a depth head gives metres, so
disparities become metres first.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgemoe_models.datasets import files
from edgemoe_models.datasets.arrays import IGNORE
from edgemoe_models.datasets.base import Folder
from edgemoe_models.datasets.files import Array, Size
from edgemoe_models.storage import checks
from edgemoe_models.storage.json_text import read_json

CLASSES = (
    "road",
    "sidewalk",
    "building",
    "wall",
    "fence",
    "pole",
    "traffic light",
    "traffic sign",
    "vegetation",
    "terrain",
    "sky",
    "person",
    "rider",
    "car",
    "truck",
    "bus",
    "train",
    "motorcycle",
    "bicycle",
)
CATEGORIES = ("flat", "construction", "object", "nature", "sky", "human", "vehicle")
FAR = 65.0  # metres: a disparity of about 7 pixels

#: labelIds of the 19 classes, in their order; every other id is not evaluated.
_LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
_CLASS_OF_ID = np.full(256, IGNORE, np.uint8)
_CLASS_OF_ID[list(_LABEL_IDS)] = np.arange(len(_LABEL_IDS))

#: Metres of baseline, pixels of focal length where there is no camera file: those of most of the recordings.
_BASELINE, _FOCAL = 0.209313, 2262.52


def _list_names(root: Path, split: str) -> list[str]:
    """``city/city_000000_000019``; only pictures that lie in a city's folder."""
    if not (folder := root / "leftImg8bit" / split).is_dir():
        raise FileNotFoundError(2, "no such folder", str(folder))
    suffix = "_leftImg8bit.png"
    return sorted(str(path.relative_to(folder))[: -len(suffix)] for path in folder.glob(f"*/*{suffix}"))


def _image(root: Path, split: str, name: str, size: Size) -> Array:
    return files.read_picture(root / "leftImg8bit" / split / f"{name}_leftImg8bit.png", size)


def _segmentation(root: Path, split: str, name: str, size: Size) -> Array:
    ids = root / "gtFine" / split / f"{name}_gtFine_labelIds.png"
    classes = ids.with_name(ids.name.replace("labelIds", "labelTrainIds"))
    if not ids.is_file() and classes.is_file():
        return files.nearest(files.read_image_values(classes), size)
    return _CLASS_OF_ID[files.nearest(files.read_image_values(ids), size)]


def _metres(stored: Array, baseline: float = _BASELINE, focal: float = _FOCAL) -> Array:
    """Depth of 16-bit disparities: 0 has none, p stands for (p - 1) / 256 pixels (cityscapesScripts' README)."""
    pixels = (stored.astype(np.float64) - 1) / 256
    with np.errstate(divide="ignore"):
        return np.where(stored > 0, baseline * focal / np.maximum(pixels, 0), 0)


def _depth(root: Path, split: str, name: str, size: Size) -> Array:
    stored = files.nearest(files.read_image_values(root / "disparity" / split / f"{name}_disparity.png"), size)
    camera = root / "camera" / split / f"{name}_camera.json"
    if not camera.is_file():
        return _metres(stored)
    return _metres(stored, *_camera(camera))


def _camera(path: Path) -> tuple[float, float]:
    """Baseline and focal length of a camera's file."""
    try:
        values = checks.record(read_json(path), "it", ("extrinsic", "intrinsic"), others=True)
        extrinsic = checks.record(values["extrinsic"], "extrinsic", ("baseline",), others=True)
        intrinsic = checks.record(values["intrinsic"], "intrinsic", ("fx",), others=True)
        return (
            checks.number(extrinsic["baseline"], "extrinsic.baseline", 1e-3, 1e3),
            checks.number(intrinsic["fx"], "intrinsic.fx", 1.0, 1e6),
        )
    except checks.FieldError as error:
        raise ValueError(f"{path}: not a camera of Cityscapes: {error}") from None


OFFICIAL = Folder(
    name="cityscapes",
    class_names=CLASSES,
    far=FAR,
    home="www.cityscapes-dataset.com (leftImg8bit_trainvaltest, gtFine_trainvaltest, disparity_trainvaltest)",
    tree="""\
  leftImg8bit/{train,val}/CITY/NAME_leftImg8bit.png
  gtFine/{train,val}/CITY/NAME_gtFine_labelIds.png      (or ..._labelTrainIds.png)
  disparity/{train,val}/CITY/NAME_disparity.png         for depth
  camera/{train,val}/CITY/NAME_camera.json              optional""",
    list_names=_list_names,
    readers={"image": _image, "segmentation": _segmentation, "depth": _depth},
)


def _list_arrays(root: Path, split: str) -> list[str]:
    if not (folder := root / split / "image").is_dir():
        raise FileNotFoundError(2, "no such folder", str(folder))
    return sorted((path.stem for path in folder.glob("*.npy")), key=lambda name: (len(name), name))


def _array(root: Path, split: str, name: str, part: str) -> Array:
    """[H, W] or [H, W, channels]; a single channel is taken off."""
    array = files.read_array(root / split / part, name)
    return array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array


def _array_image(root: Path, split: str, name: str, size: Size) -> Array:
    image = np.rint(_array(root, split, name, "image").clip(0, 1) * 255).astype(np.uint8)
    return files.resize_picture(image, size)


def _array_segmentation(root: Path, split: str, name: str, size: Size) -> Array:
    categories = files.nearest(_array(root, split, name, "label_7"), size)
    return np.where(categories < 0, IGNORE, categories).astype(np.uint8)


def _array_depth(root: Path, split: str, name: str, size: Size) -> Array:
    """The arrays hold 16-bit disparities divided by 65535."""
    return _metres(np.rint(files.nearest(_array(root, split, name, "depth"), size) * 65535))


PREPROCESSED = Folder(
    name="cityscapes-npy",
    class_names=CATEGORIES,
    far=FAR,
    home="github.com/lorenmt/mtan (its preprocessed Cityscapes, 128 x 256)",
    tree="""\
  {train,val}/image/N.npy      float 0..1, [H, W, 3]
  {train,val}/label_7/N.npy    -1 or 0..6, [H, W]
  {train,val}/depth/N.npy      disparity, 0 where there is none, [H, W, 1]""",
    list_names=_list_arrays,
    readers={"image": _array_image, "segmentation": _array_segmentation, "depth": _array_depth},
)
