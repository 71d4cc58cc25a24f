"""The bit-exact integer reference as a device. NumPy only."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from edgemoe.bundle import Bundle
from edgemoe.runtime.base import Device, Image, Progress, Result, check_image
from edgemoe_models.graph.integer_graph import IntegerGraph
from edgemoe_models.integer import reference

__all__ = ["ReferenceDevice"]


class ReferenceDevice(Device):
    """Computes what the accelerator computes, in NumPy, from the bundle's integer graph."""

    name = "reference"

    def __init__(self) -> None:
        self._graphs: dict[int, tuple[Bundle, IntegerGraph]] = {}

    def graph(self, bundle: Bundle) -> IntegerGraph:
        """The bundle's integer graph, read once."""
        if id(bundle) not in self._graphs:
            self._graphs[id(bundle)] = (bundle, bundle.graph())
        return self._graphs[id(bundle)][1]

    def run(self, bundle: Bundle, image: Image, task: str, progress: Progress | None = None) -> Result:
        """One inference; ``stats`` has ``seconds`` and every intermediate tensor under ``trace``."""
        bundle.task(task)
        check_image(bundle, image)
        trace: dict[str, Any] = {}
        start = time.perf_counter()
        outputs = reference.run(self.graph(bundle), image, task, trace)
        if progress is not None:
            progress(1.0)
        return Result(outputs.astype(np.int16), {"seconds": time.perf_counter() - start, "trace": trace})
