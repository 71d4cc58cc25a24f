"""An image straight into the INPUT memory, in one pass whose order is computed once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgemoe.bundle import Bundle
from edgemoe.layout import pack_patches
from edgemoe_models.model_image import ModelImage, patchify

__all__ = ["ImagePacker"]


class ImagePacker:
    """Copies images uint8 [H, W, 3] into buffers as the accelerator's LOADs expect them.

    The order of the bytes is what ``pack_patches`` does to the pixels' own numbers, one byte of them at a time, so that
    the layout is declared there alone. Number 0 is padding, so the pixels count from 1.
    """

    def __init__(self, bundle: Bundle) -> None:
        model = bundle.model
        shape = (model.image_height, model.image_width, 3)
        numbers = np.arange(1, np.prod(shape) + 1).reshape(shape)
        planes = [
            pack_patches(bundle.config, patchify((numbers >> 8 * byte).astype(np.uint8), model.patch))
            for byte in range(4)
        ]
        self._order = np.zeros(len(planes[0]), np.intp)
        for byte, plane in enumerate(planes):
            self._order |= np.frombuffer(plane, np.uint8).astype(np.intp) << 8 * byte
        self._pixels = np.zeros(numbers.size + 1, np.uint8)

    def pack(self, image: ModelImage, memory: npt.NDArray[np.uint8]) -> None:
        """Write an image of the model's size to the beginning of ``memory``; not for two threads at a time."""
        self._pixels[1:] = image.reshape(-1)
        np.take(self._pixels, self._order, out=memory[: self._order.size], mode="clip")
