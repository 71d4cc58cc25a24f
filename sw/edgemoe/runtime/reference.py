"""The integer reference as an executor: the same bits as the accelerator's, in NumPy."""

from __future__ import annotations

import threading
import time

import numpy as np
import numpy.typing as npt

from edgemoe.bundle import Bundle
from edgemoe.errors import DeviceError
from edgemoe.runtime.executor import Executor, Measured
from edgemoe_models.graph.integer_graph import IntegerGraph
from edgemoe_models.integer import reference
from edgemoe_models.model_image import ModelImage

__all__ = ["ReferenceExecutor"]


class ReferenceExecutor(Executor):
    """Computes what the accelerator would, from the bundle's integer graph.

    Args:
        bundle: what to run
        depth: number of input and of output slots

    Raises:
        BundleError: the bundle's integer graph cannot be used
    """

    name = "reference"

    def __init__(self, bundle: Bundle, *, depth: int = 2) -> None:
        if depth < 1:
            raise ValueError(f"depth must be at least 1, not {depth!r}")
        self.bundle, self.depth = bundle, depth
        self._graph: IntegerGraph | None = bundle.graph()
        self._images: dict[int, ModelImage] = {}
        self._outputs: dict[int, npt.NDArray[np.int16]] = {}

    def pack(self, source: int, image: ModelImage) -> None:
        self._images[source] = ModelImage(image.copy())

    def execute(self, task: str, source: int, target: int, cancel: threading.Event | None = None) -> Measured:
        if self._graph is None:
            raise DeviceError("device reference is closed; open it again")
        self.bundle.task(task)
        begin = time.perf_counter()
        trace: reference.Trace = {}
        outputs = reference.run_batch(self._graph, self._images[source][None], task, trace)[0]
        self._outputs[target] = outputs.astype(np.int16)
        seconds = time.perf_counter() - begin
        model = self.bundle.model
        loads = {
            block: tuple(len(queue) for queue in trace[f"blocks.{block}.queues"])
            for block in range(model.depth)
            if model.is_moe(block)
        }
        return Measured(seconds, seconds, expert_loads=loads)

    def unpack(self, task: str, target: int) -> npt.NDArray[np.int16]:
        return self._outputs[target]

    def reset(self) -> None:
        """There is nothing that could hang."""

    def close(self) -> None:
        self._graph = None
        self._images.clear()
        self._outputs.clear()
