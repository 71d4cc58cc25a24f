"""Scenes of a split as memory-mapped arrays, generated once and cached. NumPy only."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgemoe_models import raycast, scenes

#: Name, dtype and trailing shape of each stored array; depth is in millimetres, normals are in 1/127.
_LABELS: dict[str, tuple[type, tuple[int, ...]]] = {
    "image": (np.uint8, (3,)),
    "segmentation": (np.uint8, ()),
    "depth": (np.uint16, ()),
    "normals": (np.int8, (3,)),
    "edges": (np.bool_, ()),
}
MILLIMETRES = 1000.0
NORMAL_STEPS = 127.0


def _version() -> str:
    """Changes whenever the generator's source does, so a stale cache is never read."""
    digest = hashlib.sha256()
    for module in (raycast, scenes):
        digest.update(Path(str(module.__file__)).read_bytes())
    return digest.hexdigest()[:10]


def _label(scene: scenes.Scene, name: str) -> npt.NDArray[np.generic]:
    if name == "depth":
        return np.rint(scene.depth * MILLIMETRES).astype(np.uint16)
    if name == "normals":
        return np.rint(scene.normals * NORMAL_STEPS).astype(np.int8)
    value: npt.NDArray[np.generic] = getattr(scene, name)
    return value


def load_split(
    cache: Path,
    split: str,
    count: int,
    height: int,
    width: int,
    labels: Iterable[str],
    track: Callable[[range], Iterable[int]] | None = None,
) -> dict[str, npt.NDArray[np.generic]]:
    """The first ``count`` scenes of a split: read-only arrays [count, height, width, ...] by name.

    Parameters
    ----------
    cache: folder that keeps generated scenes
    labels: which arrays besides ``image``
    track: wraps the loop over scenes, to show its progress

    Raises
    ------
    ValueError: an unknown split or label, or more scenes than the split has.
    """
    if split not in scenes.SPLITS:
        raise ValueError(f"split must be one of {sorted(scenes.SPLITS)}, not {split!r}")
    seeds = scenes.SPLITS[split]
    if not 1 <= count <= len(seeds):
        raise ValueError(f"count of {split} must be in 1..{len(seeds)}, not {count!r}")
    names = ["image", *sorted(set(labels))]
    if unknown := [name for name in names if name not in _LABELS]:
        raise ValueError(f"labels must be among {sorted(_LABELS)}, not {unknown!r}")
    folder = cache / f"{split}-{height}x{width}-{count}-{'-'.join(names[1:])}-{_version()}"
    if not folder.is_dir():
        _generate(folder, seeds, count, height, width, names, track)
    return {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in names}


def _generate(
    folder: Path,
    seeds: range,
    count: int,
    height: int,
    width: int,
    names: list[str],
    track: Callable[[range], Iterable[int]] | None,
) -> None:
    partial = folder.with_name(f"{folder.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    arrays = {}
    for name in names:
        dtype, tail = _LABELS[name]
        shape = (count, height, width, *tail)
        arrays[name] = np.lib.format.open_memmap(partial / f"{name}.npy", "w+", dtype=dtype, shape=shape)
    indices = range(count)
    for index in track(indices) if track else indices:
        scene = scenes.generate_scene(seeds[index], height, width)
        for name, array in arrays.items():
            array[index] = _label(scene, name)
    for array in arrays.values():
        array.flush()
    try:
        partial.rename(folder)
    except OSError:  # another process was faster
        shutil.rmtree(partial)
