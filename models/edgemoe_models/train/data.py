"""Batches: pictures and labels from memory-mapped arrays, augmented on the device that trains."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgemoe_models.config import ModelConfig
from edgemoe_models.datasets.arrays import Arrays
from edgemoe_models.train.config import CommonOptions

#: What torch computes with; it has no uint16.
LABEL_TYPES: dict[str, Any] = {
    "segmentation": np.uint8,
    "depth": np.int32,
    "normals": np.int8,
    "edges": np.bool_,
    "classification": np.int64,
}


def pixels(images: np.ndarray[Any, Any], device: torch.device | None = None) -> Tensor:
    """uint8 [B, H, W, 3] -> float32 [B, 3, H, W], k / 256."""
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).to(device).float() / 256


@dataclasses.dataclass(frozen=True)
class Changes:
    """How each picture of a batch is changed: ``mirrored`` bool [B], ``gain`` and ``shift`` [B]."""

    mirrored: Tensor
    gain: Tensor
    shift: Tensor

    @classmethod
    def draw(cls, count: int, generator: torch.Generator) -> Changes:
        """For ``count`` pictures."""
        mirrored = torch.rand(count, generator=generator) < 0.5
        gain, shift = torch.rand(2, count, generator=generator) * 0.4 - 0.2
        return cls(mirrored, gain, shift)

    def __getitem__(self, rows: slice) -> Changes:
        return Changes(self.mirrored[rows], self.gain[rows], self.shift[rows])

    def apply(self, images: Tensor, label: Tensor, kind: str) -> tuple[Tensor, Tensor]:
        """Changed images [B, 3, H, W] and label [B, H, W, ...]; a class [B] is a mirrored picture's, too."""
        changes = (self.mirrored, self.gain, self.shift)
        mirrored, gain, shift = (change.to(images.device).view(-1, 1, 1, 1) for change in changes)
        if kind != "edges":  # an edge is marked on the left of two pixels, so mirroring would shift it
            images = torch.where(mirrored, images.flip(3), images)
        if kind not in ("edges", "classification"):
            flipped = label.flip(2)
            if kind == "normals":
                flipped = torch.cat([-flipped[..., :1], flipped[..., 1:]], -1)
            label = torch.where(mirrored.view(-1, *[1] * (label.dim() - 1)), flipped, label)
        return (images * (1 + gain) + 0.5 * shift).clamp(0, 255 / 256), label


def augment(images: Tensor, label: Tensor, generator: torch.Generator, kind: str) -> tuple[Tensor, Tensor]:
    """Mirror half of the batch; change brightness and contrast. images: [B, 3, H, W] in 0..1."""
    return Changes.draw(len(images), generator).apply(images, label, kind)


def draw_batch(
    data: Arrays,
    kind: str,
    count: int,
    generator: torch.Generator,
    share: slice = slice(None),
    device: torch.device | None = None,
) -> tuple[Tensor, Tensor]:
    """Images and labels of one task: ``share`` of a batch of ``count`` pictures, so each process reads its own only.

    The draw depends on ``count`` and the generator alone, so all processes together have what one would have.
    """
    picked = torch.randint(len(data["image"]), (count,), generator=generator).sort().values[share].numpy()
    changes = Changes.draw(count, generator)[share]
    label = torch.from_numpy(data[kind][picked].astype(LABEL_TYPES[kind])).to(device)
    return changes.apply(pixels(data["image"][picked], device), label, kind)


def _quiet(text: str, share: float) -> None:
    pass


def load_data(
    options: CommonOptions,
    model: ModelConfig,
    cache: Path,
    split: str,
    count: int,
    show: Callable[[str, float], None] = _quiet,
    label_shape: tuple[int, int] | None = None,
) -> Arrays:
    """The first ``count`` pictures of a split of the chosen data set, with the labels of the model's tasks.

    ``show`` is told how far their preparation is. Labels have ``label_shape``, height and width; None: the picture's.

    Raises:
        ValueError, FileNotFoundError: see ``edgemoe_models.datasets.DataSet.load``.
    """
    size = (model.image_height, model.image_width)
    labels = [task.kind for task in model.tasks]

    def load(size: tuple[int, int], labels: list[str]) -> Arrays:
        shown = _shown(split, options.data_set.name, show)
        return options.data_set.load(options.data_root, cache, split, count, size, labels, shown)

    if label_shape is None or label_shape == size:
        return load(size, labels)
    return load(label_shape, labels) | {"image": load(size, [])["image"]}


def _shown(split: str, name: str, show: Callable[[str, float], None]) -> Callable[[range], Iterable[int]]:
    def shown(indices: range) -> Iterator[int]:
        for done, index in enumerate(indices):
            show(f"preparing {split} {name}", done / len(indices))
            yield index

    return shown
