"""The integer reference as an executor: the same bits as the accelerator's, in NumPy."""

from __future__ import annotations

import threading
import time

import numpy as np
import numpy.typing as npt

from edgemoe.bundle import Bundle, Joined
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
        self._images: dict[tuple[int, int], ModelImage] = {}
        self._outputs: dict[int, list[npt.NDArray[np.int16]]] = {}

    def pack(self, source: int, image: ModelImage, place: int = 0) -> None:
        self._images[source, place] = ModelImage(image.copy())

    def execute(
        self, program: str | Joined, source: int, target: int, cancel: threading.Event | None = None, *, first: int = 0
    ) -> Measured:
        if self._graph is None:
            raise DeviceError("device reference is closed; open it again")
        joined = self.bundle.program(program).joined
        begin = time.perf_counter()
        images = np.stack([self._images[source, first + number] for number in range(joined.images)])
        model = self.bundle.model
        blocks = [block for block in range(model.depth) if model.is_moe(block)]
        loads = {block: np.zeros(model.num_experts, int) for block in blocks}
        outputs: list[npt.NDArray[np.int16]] = []
        for task in joined.tasks:
            trace: reference.Trace = {}
            outputs += [*reference.run_batch(self._graph, images, task, trace).astype(np.int16)]
            for block in blocks:
                loads[block] += [len(queue) for queue in trace[f"blocks.{block}.queues"]]
        self._outputs[target] = outputs
        seconds = time.perf_counter() - begin
        return Measured(seconds, seconds, expert_loads={block: tuple(map(int, load)) for block, load in loads.items()})

    def unpack(self, program: str | Joined, target: int, sequence: int = 0) -> npt.NDArray[np.int16]:
        return self._outputs[target][sequence]

    def reset(self) -> None:
        """There is nothing that could hang."""

    def close(self) -> None:
        self._graph = None
        self._images.clear()
        self._outputs.clear()
