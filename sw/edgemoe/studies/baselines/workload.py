"""What every baseline computes: a model's weights, one task, pictures, and the float model's answer."""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edgemoe.workloads import float_weights, weights_path
from edgemoe_models import float_reference
from edgemoe_models.checkpoint import load_checkpoint
from edgemoe_models.config import PRESETS, ModelConfig, TaskConfig
from edgemoe_models.datasets import scenes
from edgemoe_models.datasets.arrays import load_split
from edgemoe_models.ptq.quantize import calibration_images
from edgemoe_models.random_weights import random_state
from edgemoe_models.storage.cache import cache_root

__all__ = ["Images", "Rows", "Session", "Unavailable", "Workload", "activation_ranges", "load_workload"]

Images = npt.NDArray[np.uint8]
Rows = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float32]
Arrays = dict[str, npt.NDArray[Any]]
HELD_OUT = 16  # scenes; enough to see that a quantized network works, not to compare two of them


class Unavailable(Exception):
    """A baseline cannot be measured here; the message says why."""


@dataclasses.dataclass(frozen=True)
class Workload:
    """One model and one of its tasks, the first; the pictures are the demonstration scenes, as the accelerator's are.

    Attributes:
        state: float state dict
        images: uint8 [count, H, W, 3]
        expected: the NumPy float reference's head outputs [count, rows, outputs]
        held_out: validation scenes, arrays of ``dataset.load_split``; None with random weights, whose metrics mean
            nothing
    """

    config: ModelConfig
    state: dict[str, Floats]
    task: str
    images: Images
    expected: Rows
    held_out: Arrays | None = None


class Session(Protocol):
    """A network loaded into a runtime for one batch size, with its input and output in that device's memory."""

    def feed(self, images: Images) -> None:
        """Take uint8 images [batch, H, W, 3]."""

    def step(self) -> None:
        """One inference of the batch, finished on return; the only part that is timed."""

    def output(self) -> Rows:
        """The last step's head outputs [batch, rows, outputs]."""


def load_workload(model: str, count: int) -> Workload:
    """A preset (random weights, seed 0, if it has no trained ones, as in ``load_graph``) or a float checkpoint.

    Raises:
        ValueError: there is no such model, or the file is refused
    """
    trained = model not in PRESETS or weights_path(model).is_file()
    if trained:
        state, config = load_checkpoint(float_weights(model))
    else:
        config = PRESETS[model]
        state = random_state(config)
    first = scenes.SPLITS["demo"].start
    images = np.stack(
        [scenes.generate_scene(first + i, config.image_height, config.image_width).image for i in range(count)]
    )
    task = config.tasks[0].name
    expected = float_reference.forward(state, config, images, task).astype(np.float32)
    held_out = _held_out(config, config.tasks[0]) if trained and config.tasks[0].is_dense else None
    return Workload(config, state, task, images, expected, held_out)


def _held_out(config: ModelConfig, task: TaskConfig) -> Arrays:
    return load_split(cache_root() / "scenes", "val", HELD_OUT, config.image_height, config.image_width, [task.kind])


def activation_ranges(workload: Workload) -> dict[str, tuple[float, float]]:
    """Least and largest value of every linear layer's input on the quantizer's calibration scenes, by trace name.

    The experts of a block share the range of their hidden values, since some may get no token at all.
    """
    observed: float_reference.Observed = {}
    config = workload.config
    float_reference.forward(workload.state, config, calibration_images(config), workload.task, observed)
    ranges: dict[str, tuple[float, float]] = {}
    for name, values in observed.items():
        if not isinstance(values, np.ndarray) or not values.size:
            continue
        name = name.partition(".experts.")[0] + ".moe.hidden" if ".experts." in name else name
        low, high = ranges.get(name, (0.0, 0.0))  # zero must be representable
        ranges[name] = min(low, float(values.min())), max(high, float(values.max()))
    return ranges
