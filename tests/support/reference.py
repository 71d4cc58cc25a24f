"""What the integer reference makes of a bundle and an image, for tests that compare a device with it."""

from typing import Any, NamedTuple

import numpy as np

from edgemoe.bundle import Bundle
from edgemoe_models.integer import reference

__all__ = ["Expected", "expect"]


class Expected(NamedTuple):
    """The head's raw outputs int16 [rows, channels], and every tensor on the way by name."""

    outputs: np.ndarray
    trace: dict[str, Any]


def expect(bundle: Bundle, image: np.ndarray, task: str) -> Expected:
    """One inference of a bundle's integer graph."""
    trace: dict[str, Any] = {}
    outputs = reference.run(bundle.graph(), image, task, trace)
    return Expected(outputs.astype(np.int16), trace)
