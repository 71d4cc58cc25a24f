"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009): 32 x 32 photographs of one thing each, in the official binary batches.

A record is the class (of CIFAR-100 two numbers, of which the second is the finer class), then 1024 bytes each of red,
green and blue, row by row. The official batches are 50,000 pictures to train on and 10,000 to test; of the former the
last tenth is held out as ``val``, as He et al. (2016) do. Pictures are squeezed to the model's size.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from edgemoe_models.datasets import files
from edgemoe_models.datasets.base import Folder
from edgemoe_models.datasets.files import Array, Size

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_SIDE = 32
_PIXELS = 3 * _SIDE * _SIDE
_HELD_OUT = 10  # one of so many training pictures, the last ones
_HOME = "www.cs.toronto.edu/~kriz/cifar.html (the binary version)"


@dataclasses.dataclass(frozen=True)
class _Batches:
    """Files of records.

    Attributes:
        folder: what the official archive's folder is called; its parent may be given, too
        train: names of the files to train on
        test: likewise, to test
        labels: bytes of a record before the pixels, of which the last is the class
    """

    folder: str
    train: tuple[str, ...]
    test: str
    labels: int = 1

    @property
    def record(self) -> int:
        """Bytes."""
        return self.labels + _PIXELS

    def inside(self, root: Path) -> Path:
        """The folder of the files."""
        return root / self.folder if (root / self.folder).is_dir() else root

    def list_names(self, root: Path, split: str) -> list[str]:
        """``FILE:NUMBER`` of each record of a split."""
        records = [
            f"{name}:{number}"
            for name in ((self.test,) if split == "test" else self.train)
            for number in range(self._count(self.inside(root) / name))
        ]
        if split == "test":
            return records
        held_out = -(-len(records) // _HELD_OUT)
        return records[-held_out:] if split == "val" else records[:-held_out]

    def _count(self, path: Path) -> int:
        size = path.stat().st_size
        if size == 0 or size % self.record:
            raise ValueError(
                f"{path}: it must have records of {self.record} bytes each, but its {size:,} bytes are "
                f"{size / self.record:.2f} of them; is it cut off? Unpack the binary version again"
            )
        return size // self.record

    def _read(self, root: Path, name: str) -> Array:
        file, _, number = name.partition(":")
        with (self.inside(root) / file).open("rb") as opened:
            opened.seek(int(number) * self.record)
            return np.frombuffer(opened.read(self.record), np.uint8)

    def image(self, root: Path, split: str, name: str, size: Size) -> Array:
        """A ``datasets.base.Reader``."""
        pixels = self._read(root, name)[self.labels :].reshape(3, _SIDE, _SIDE)
        return files.resize_picture(np.ascontiguousarray(pixels.transpose(1, 2, 0)), size)

    def label(self, root: Path, split: str, name: str, size: Size) -> Array:
        """A ``datasets.base.Reader``."""
        return np.array(self._read(root, name)[self.labels - 1], np.uint16)


_TEN = _Batches("cifar-10-batches-bin", tuple(f"data_batch_{n}.bin" for n in range(1, 6)), "test_batch.bin")
_HUNDRED = _Batches("cifar-100-binary", ("train.bin",), "test.bin", labels=2)
_NAMES = "fine_label_names.txt"


def _with_names(folder: Folder, root: Path) -> Folder:
    path = _HUNDRED.inside(root) / _NAMES
    names = files.read_names(path)
    if len(set(names)) != len(names) or len(names) != 100:
        raise ValueError(f"{path}: it must name 100 classes, one a line, not {len(set(names))}")
    return dataclasses.replace(folder, class_names=tuple(names))


TEN = Folder(
    name="cifar10",
    class_names=CLASSES,
    far=10.0,
    home=_HOME,
    tree="""\
  data_batch_{1..5}.bin     records of 3073 bytes: class, red, green, blue
  test_batch.bin            likewise""",
    list_names=_TEN.list_names,
    readers={"image": _TEN.image, "classification": _TEN.label},
)
HUNDRED = Folder(
    name="cifar100",
    class_names=(),
    far=10.0,
    home=_HOME,
    tree="""\
  train.bin, test.bin       records of 3074 bytes: coarse class, fine class, red, green, blue
  fine_label_names.txt      a class a line""",
    list_names=_HUNDRED.list_names,
    readers={"image": _HUNDRED.image, "classification": _HUNDRED.label},
    bind=_with_names,
)
