"""A data set that lies on the device: a batch is drawn, gathered and changed there, and nothing waits for the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgemoe_models.datasets.arrays import Array, Arrays
from edgemoe_models.train.augmentation import Strong, class_borders
from edgemoe_models.train.data import LABEL_TYPES, Changes

_PIECE = 1024  # pictures copied at a time


class Resident:
    """Pictures and labels as tensors of a device.

    Args:
        arrays: by name, [count, height, width, ...]
        device: where they go
        strong: the changes; None for ``data.Changes``
        edges_of_classes: whether edges are made of changed classes, see ``datasets.DataSet``
        available: tells how many of the pictures, from the first, are there by now; None: all

    Raises:
        ValueError: ``strong`` with labels that do not follow from classes
    """

    def __init__(
        self,
        arrays: Arrays,
        device: torch.device,
        strong: Strong | None = None,
        edges_of_classes: bool = False,
        available: Callable[[], int] | None = None,
    ) -> None:
        self.strong, self.edges_of_classes = strong, edges_of_classes
        self._arrays, self._available = arrays, available
        self.ready = 0
        self._generator = torch.Generator(device)
        self._tensors = {
            name: torch.zeros(array.shape, dtype=_stored(name, array), device=device) for name, array in arrays.items()
        }
        self.refresh()

    def refresh(self) -> None:
        """Take over the pictures that came since the last call."""
        count = len(self._arrays["image"])
        there = count if self._available is None else self._available()
        for start in range(self.ready, there, _PIECE):
            rows = slice(start, min(start + _PIECE, there))
            for name, tensor in self._tensors.items():
                tensor[rows].copy_(torch.from_numpy(self._arrays[name][rows].astype(_numpy(name, self._arrays[name]))))
        self.ready = there

    def seed(self, number: int) -> None:
        """What follows depends on this number alone."""
        self._generator.manual_seed(number)

    def draw(self, kind: str, count: int, share: slice = slice(None)) -> tuple[Tensor, Tensor]:
        """Images [B, 3, H, W] and labels of one task as ``data.draw_batch`` gives them; B is ``share`` of ``count``.

        Classes that may be mixed are shares [B, classes].
        """
        device = self._generator.device
        picked = torch.randint(self.ready, (count,), generator=self._generator, device=device)[share]
        images = self._tensors["image"][picked].permute(0, 3, 1, 2).float() / 256
        if self.strong is None:
            mirrored = torch.rand(count, generator=self._generator, device=device)[share] < 0.5
            gain, shift = (torch.rand(2, count, generator=self._generator, device=device) * 0.4 - 0.2)[:, share]
            return Changes(mirrored, gain, shift).apply(images, self._tensors[kind][picked], kind)
        if kind == "classification":
            return self.strong.apply_whole(images, self._tensors[kind][picked], self._generator)
        images, classes = self.strong.apply(images, self._tensors["segmentation"][picked], self._generator)
        return images, class_borders(classes) if kind == "edges" else classes


def size_of(arrays: Arrays) -> int:
    """Bytes that they take on a device."""
    return sum(array.size * np.dtype(_numpy(name, array)).itemsize for name, array in arrays.items())


def _numpy(name: str, array: Array) -> np.dtype[Any]:
    """What torch computes with."""
    return np.dtype(LABEL_TYPES.get(name, array.dtype))


def _stored(name: str, array: Array) -> torch.dtype:
    return torch.from_numpy(np.empty(0, _numpy(name, array))).dtype
