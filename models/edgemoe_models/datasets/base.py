"""What a data set is: its classes and labels, and a way to its arrays."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

import numpy as np

from edgemoe_models.datasets import files, scenes
from edgemoe_models.datasets.arrays import (
    IGNORE,
    MILLIMETRES,
    NORMAL_STEPS,
    Array,
    Arrays,
    Track,
    array_form,
    array_names,
    cached,
    is_labelled,
    load_split,
)

#: Reads one array of a picture: (root, split, the picture's name, (height, width)) -> [height, width, ...], as
#: uint8 RGB, uint8 classes, float metres (0: none), float vectors of any length (0: none), or booleans; the class of a
#: whole picture is one number [].
Reader = Callable[[Path, str, str, tuple[int, int]], Array]


class DataSet(Protocol):
    """Pictures with labels."""

    @property
    def name(self) -> str:
        """As ``--data`` wants it."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Classes of segmentation or classification, in the order of their numbers."""

    @property
    def kinds(self) -> tuple[str, ...]:
        """Which kinds of labels there are."""

    @property
    def far(self) -> float:
        """Metres at which depth ends: what lies there or beyond has this label and does not count in metrics."""

    @property
    def edges_of_classes(self) -> bool:
        """Whether edges are the borders of the classes of segmentation, so that they follow from these."""

    def at(self, root: str) -> DataSet:
        """This data set in a folder: the same, but for one whose classes only the folder knows.

        Raises:
            ValueError: the folder has no classes, or they are damaged
            FileNotFoundError: a missing file or folder, as ``load``
        """

    def load(
        self,
        root: str,
        cache: Path,
        split: str,
        count: int,
        size: tuple[int, int],
        labels: Iterable[str],
        track: Track | None = None,
    ) -> Arrays:
        """At most ``count`` pictures of a split as read-only arrays [n, height, width, ...].

        Splits are ``train`` and ``val``, and ``test`` where there is one.

        Raises:
            ValueError: labels that the data set does not have, or a file that does not fit.
            FileNotFoundError: a missing file, with where to get it and how the folder must look.
        """


@dataclasses.dataclass(frozen=True)
class Scenes:
    """Generated pictures (``edgemoe_models.datasets.scenes``); ``root`` is not used."""

    name: str = "scenes"
    class_names: tuple[str, ...] = scenes.CLASS_NAMES
    kinds: tuple[str, ...] = ("segmentation", "depth", "normals", "edges")
    far: float = scenes.MAX_DEPTH
    edges_of_classes: bool = False  # of instances

    def at(self, root: str) -> Scenes:
        return self

    def load(
        self,
        root: str,
        cache: Path,
        split: str,
        count: int,
        size: tuple[int, int],
        labels: Iterable[str],
        track: Track | None = None,
    ) -> Arrays:
        return load_split(cache, split, count, *size, labels, track)


@dataclasses.dataclass(frozen=True)
class Folder:
    """Photographs in a folder of the user's.

    Attributes:
        home: where to get it
        tree: how the folder must look, for people
        list_names: (root, split) -> the pictures' names
        readers: how to read ``image`` and each label
        edges_of_classes: whether edges are the borders of the classes
        bind: this data set in a folder, where its classes are the folder's own
    """

    name: str
    class_names: tuple[str, ...]
    far: float
    home: str
    tree: str
    list_names: Callable[[Path, str], list[str]]
    readers: Mapping[str, Reader]
    edges_of_classes: bool = False
    bind: Callable[[Folder, Path], Folder] | None = None

    @property
    def kinds(self) -> tuple[str, ...]:
        return tuple(kind for kind in self.readers if kind != "image")

    def load(
        self,
        root: str,
        cache: Path,
        split: str,
        count: int,
        size: tuple[int, int],
        labels: Iterable[str],
        track: Track | None = None,
    ) -> Arrays:
        if self.bind is not None:
            return self.at(root).load(root, cache, split, count, size, labels, track)
        known = ["image", *self.kinds]
        if unknown := [name for name in labels if name not in known]:
            raise ValueError(f"tasks of {self.name} must be among {sorted(self.kinds)}, not {unknown!r}")
        names = array_names(labels, known)
        with self._explained(root) as folder:
            pictures = self.list_names(folder, split)[:count]
            if not pictures:
                raise FileNotFoundError(f"{folder} has no pictures of the split {split!r}")
            where = cache / self._key(folder, split, size, names, pictures, files.contents(folder, cache))
            arrays = cached(
                where,
                names,
                (len(pictures), *size),
                lambda index: {name: self._read(folder, split, pictures[index], size, name) for name in names},
                track,
            )
            for name, array in arrays.items():
                if not is_labelled(name, array):
                    raise ValueError(
                        f"{folder}: in the {len(pictures)} pictures of the split {split!r} no pixel has a label of "
                        f"{name}; are these the labels of {self.name}?"
                    )
            return arrays

    def at(self, root: str) -> Folder:
        if self.bind is None:
            return self
        with self._explained(root) as folder:
            return dataclasses.replace(self.bind(self, folder), bind=None)

    @contextlib.contextmanager
    def _explained(self, root: str) -> Iterator[Path]:
        """The folder; what is missing in it is told with where to get it and how it must look."""
        if not root:
            raise FileNotFoundError(f"--data {self.name} needs --data-root: {self._help()}")
        try:
            yield Path(root)
        except (FileNotFoundError, NotADirectoryError) as error:
            missing = f"{error.filename} is missing" if error.filename else str(error)
            raise FileNotFoundError(f"{self.name}: {missing}; {self._help()}") from error

    def _help(self) -> str:
        """One line, as a refusal is."""
        told = []
        for line in self.tree.splitlines():
            path, _, remark = line.strip().partition("  ")
            remark = remark.strip()
            if remark.startswith("("):
                remark = remark[1:-1]
            told.append(f"{path} ({remark})" if remark else path)
        tree = "; ".join(told).replace(":; ", ": ")
        return f"the data set is to be had from {self.home}, and --data-root must hold {tree}"

    def _key(
        self, root: Path, split: str, size: tuple[int, int], names: list[str], pictures: list[str], contents: list[str]
    ) -> str:
        """A cache folder's name; it changes with this package's source, the folder, its classes and all its files."""
        listed = [str(root.resolve()), *self.class_names, *pictures, *contents]
        digest = hashlib.sha256("\n".join(listed).encode(errors="surrogateescape"))
        for source in sorted(Path(__file__).parent.glob("*.py")):
            digest.update(source.read_bytes())
        shape = f"{size[0]}x{size[1]}-{len(pictures)}"
        return f"{self.name}-{split}-{shape}-{'-'.join(names[1:])}-{digest.hexdigest()[:10]}"

    def _read(self, root: Path, split: str, picture: str, size: tuple[int, int], name: str) -> Array:
        array = self.readers[name](root, split, picture, size)
        if array.shape != (wanted := array_form(name, (0, *size))[1][1:]):
            form = "a colour picture is no label" if array.ndim > len(wanted) else "one channel is too few"
            raise ValueError(
                f"{self.name}: {name} of {picture} must be {list(wanted)} at this size, not {list(array.shape)}: {form}"
            )
        if name == "segmentation":
            classes = len(self.class_names)
            wrong = (array >= classes) & (array != IGNORE)
            if wrong.any():
                found = int(array[wrong][0])
                raise ValueError(f"{self.name}: classes of {picture} must be below {classes} or {IGNORE}, not {found}")
        elif name == "classification" and array >= len(self.class_names):
            classes = len(self.class_names)
            raise ValueError(f"{self.name}: the class of {picture} must be below {classes}, not {int(array)}")
        elif name == "depth":
            metres = np.nan_to_num(array.astype(np.float64), nan=0.0, posinf=self.far, neginf=0.0)
            array = np.rint(metres.clip(0, self.far) * MILLIMETRES).astype(np.uint16)
        elif name == "normals":
            array = np.rint(files.unit_vectors(array) * NORMAL_STEPS).astype(np.int8)
        return array
