"""Pictures and labels of a split as memory-mapped arrays, made once and cached; the generated scenes. NumPy only."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgemoe_models.datasets import raycast, scenes
from edgemoe_models.storage.array_file import read_array
from edgemoe_models.storage.cache import cached_folder

Array = npt.NDArray[Any]
Arrays = dict[str, Array]
Track = Callable[[range], Iterable[int]]

#: Name, dtype and trailing shape of each stored array; depth is in millimetres, normals are in 1/127. A pixel
#: without a label has the class ``IGNORE``, depth 0, normal (0, 0, 0). None: one value a picture, not a pixel.
_LABELS: dict[str, tuple[type, tuple[int, ...] | None]] = {
    "image": (np.uint8, (3,)),
    "segmentation": (np.uint8, ()),
    "depth": (np.uint16, ()),
    "normals": (np.int8, (3,)),
    "edges": (np.bool_, ()),
    "classification": (np.uint16, None),
}
#: Those that a generated scene has.
SCENE_ARRAYS = tuple(name for name, (_, tail) in _LABELS.items() if tail is not None)
MILLIMETRES = 1000.0
NORMAL_STEPS = 127.0
IGNORE = 255


def _version() -> str:
    """Changes whenever the generator's source does, so a stale cache is never read."""
    digest = hashlib.sha256()
    for module in (raycast, scenes):
        digest.update(Path(str(module.__file__)).read_bytes())
    return digest.hexdigest()[:10]


def _label(scene: scenes.Scene, name: str) -> Array:
    label: Array = getattr(scene, name)
    if name == "depth":
        label = np.rint(label * MILLIMETRES).astype(np.uint16)
    if name == "normals":
        label = np.rint(label * NORMAL_STEPS).astype(np.int8)
    return label


def array_form(name: str, shape: tuple[int, int, int]) -> tuple[type, tuple[int, ...]]:
    """Type and shape of the array called ``name`` of pictures (count, height, width); KeyError for another."""
    dtype, tail = _LABELS[name]
    return dtype, shape[:1] if tail is None else (*shape, *tail)


def scene_labels(seed: int, height: int, width: int, names: Iterable[str]) -> Arrays:
    """The scene of a seed: its arrays of these names, [height, width, ...], in the stored types."""
    scene = scenes.generate_scene(seed, height, width)
    return {name: _label(scene, name) for name in names}


def is_labelled(name: str, array: Array) -> bool:
    """Whether any pixel of any picture has a label, of those that may be without; quick where the first picture has."""
    without = {"segmentation": IGNORE, "depth": 0, "normals": 0}
    return name not in without or any((picture != without[name]).any() for picture in array)


def array_names(labels: Iterable[str], known: Collection[str] = SCENE_ARRAYS) -> list[str]:
    """``image`` and the labels, sorted; ValueError for one that is not known."""
    names = ["image", *sorted(set(labels))]
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"labels must be among {sorted(known)}, not {unknown!r}")
    return names


def load_split(
    cache: Path,
    split: str,
    count: int,
    height: int,
    width: int,
    labels: Iterable[str],
    track: Track | None = None,
) -> Arrays:
    """The first ``count`` scenes of a split: read-only arrays [count, height, width, ...] by name.

    Args:
        cache: folder that keeps generated scenes
        labels: which arrays besides ``image``
        track: wraps the loop over scenes, to show its progress

    Raises:
        ValueError: an unknown split or label, or more scenes than the split has.
    """
    if split not in scenes.SPLITS:
        raise ValueError(f"split must be one of {sorted(scenes.SPLITS)}, not {split!r}")
    seeds = scenes.SPLITS[split]
    if not 1 <= count <= len(seeds):
        raise ValueError(f"count of {split} must be in 1..{len(seeds)}, not {count!r}")
    names = array_names(labels)

    def make(index: int) -> Arrays:
        return scene_labels(seeds[index], height, width, names)

    folder = cache / f"{split}-{height}x{width}-{count}-{'-'.join(names[1:])}-{_version()}"
    return cached(folder, names, (count, height, width), make, track)


def cached(
    folder: Path,
    names: Sequence[str],
    shape: tuple[int, int, int],
    make: Callable[[int], Arrays],
    track: Track | None = None,
) -> Arrays:
    """The arrays of a folder; where it does not exist, made first: ``make(index)`` gives one picture and its labels.

    ``shape`` is (count, height, width). What is torn is made again; processes that make the same folder at once do no
    harm.
    """

    def read(folder: Path) -> Arrays:
        arrays = {name: read_array(folder / f"{name}.npy", mapped=True) for name in names}
        for name, array in arrays.items():
            if (array.dtype.type, array.shape) != array_form(name, shape):
                raise ValueError(f"{folder} is of something else")
        return arrays

    return cached_folder(folder, read, lambda partial: _fill(partial, names, shape, make, track))


def _fill(
    folder: Path,
    names: Sequence[str],
    shape: tuple[int, int, int],
    make: Callable[[int], Arrays],
    track: Track | None,
) -> None:
    arrays = {}
    for name in names:
        dtype, whole = array_form(name, shape)
        # NumPy does not say what it returns.
        arrays[name] = np.lib.format.open_memmap(  # type: ignore[no-untyped-call]
            folder / f"{name}.npy", "w+", dtype=dtype, shape=whole
        )
    indices = range(shape[0])
    for index in track(indices) if track else indices:
        made = make(index)
        for name, array in arrays.items():
            array[index] = made[name]
    for array in arrays.values():
        array.flush()
