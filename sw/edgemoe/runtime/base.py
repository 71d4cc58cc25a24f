"""What every device offers."""

from __future__ import annotations

import abc
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from edgemoe.bundle import Bundle

__all__ = ["Device", "Result", "check_image", "patchify"]

Image = npt.NDArray[np.uint8]
Progress = Callable[[float], None]


@dataclass(frozen=True)
class Result:
    """Outputs of one inference.

    ``outputs``: the head's raw int16 outputs [rows, channels]; ``stats``: what the device measured (reports only).
    """

    outputs: npt.NDArray[np.int16]
    stats: dict[str, Any] = field(default_factory=dict)


def check_image(bundle: Bundle, image: Image) -> None:
    """Raise ValueError unless an image is uint8 [H, W, 3] of the model's size."""
    wanted = (bundle.model.image_height, bundle.model.image_width, 3)
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.shape != wanted:
        found = f"{image.dtype.name} {list(image.shape)}" if isinstance(image, np.ndarray) else type(image).__name__
        raise ValueError(f"image must be uint8 {list(wanted)} (height, width, RGB), not {found}")


def patchify(image: Image, patch: int) -> Image:
    """An image [H, W, 3] as patches [P, 3 * patch * patch], row by row, pixels in (channel, y, x) order."""
    height, width, channels = image.shape
    grid = image.reshape(height // patch, patch, width // patch, patch, channels)
    return np.ascontiguousarray(grid.transpose(0, 2, 4, 1, 3)).reshape(-1, channels * patch * patch)


class Device(abc.ABC):
    """Where programs run. A device may be used as a context manager; ``close`` frees what it holds."""

    name: str

    @abc.abstractmethod
    def run(self, bundle: Bundle, image: Image, task: str, progress: Progress | None = None) -> Result:
        """One inference of one task.

        Args:
            image: uint8 [H, W, 3] of the model's size
            progress: called with the finished share, 0..1

        Raises:
            BundleError: the bundle is for another device, or has no such task
            ValueError: the image does not fit
            DeviceError: the run failed
        """

    def close(self) -> None:  # noqa: B027 (nothing to free is a valid device)
        """Free the device."""

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
