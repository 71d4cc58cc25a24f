"""The integer reference as an executor: the same bits as the accelerator's, in NumPy."""

from __future__ import annotations

import threading
import time

import numpy as np
import numpy.typing as npt

from edgemoe.bundle import Bundle
from edgemoe.errors import DeviceError
from edgemoe.runtime.base import check_image
from edgemoe.runtime.executor import Executor, Image, Measured
from edgemoe.runtime.reference_device import ReferenceDevice

__all__ = ["ReferenceExecutor"]


class ReferenceExecutor(Executor):
    """Computes what the accelerator would. ``depth``: number of input and of output slots."""

    name = "reference"

    def __init__(self, bundle: Bundle, *, depth: int = 2) -> None:
        if depth < 1:
            raise ValueError(f"depth must be at least 1, not {depth!r}")
        self.bundle, self.depth = bundle, depth
        self._device: ReferenceDevice | None = ReferenceDevice()
        self._images: dict[int, Image] = {}
        self._outputs: dict[int, npt.NDArray[np.int16]] = {}

    def pack(self, source: int, image: Image) -> None:
        check_image(self.bundle, image)
        self._images[source] = image.copy()

    def execute(self, task: str, source: int, target: int, cancel: threading.Event | None = None) -> Measured:
        if self._device is None:
            raise DeviceError("device reference is closed; open it again")
        begin = time.perf_counter()
        result = self._device.run(self.bundle, self._images[source], task)
        self._outputs[target] = result.outputs
        seconds = time.perf_counter() - begin
        model = self.bundle.model
        loads = {
            block: tuple(len(queue) for queue in result.stats["trace"][f"blocks.{block}.queues"])
            for block in range(model.depth)
            if model.is_moe(block)
        }
        return Measured(seconds, seconds, expert_loads=loads)

    def unpack(self, task: str, target: int) -> npt.NDArray[np.int16]:
        return self._outputs[target]

    def reset(self) -> None:
        """There is nothing that could hang."""

    def close(self) -> None:
        self._device = None
        self._images.clear()
        self._outputs.clear()
