"""What the runtime's tests share: a small bundle with every kind of task, and every device that can run it."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import edgemoe
from edgemoe.bundle import Bundle
from edgemoe.compiler import build_bundle
from edgemoe.devices.reference import ReferenceDevice
from edgemoe_hw.config import PRESETS
from edgemoe_models.config import TaskConfig
from edgemoe_sim.graphs import random_graph, small_model

KINDS = (TaskConfig("segmentation", "segmentation", channels=5, head_hidden=20, cells=2),
         TaskConfig("depth", "depth", channels=1, cells=4), TaskConfig("normals", "normals", channels=3, cells=2),
         TaskConfig("edges", "edges", channels=1, cells=1),
         TaskConfig("scene", "classification", channels=11))

Open = Callable[..., edgemoe.Accelerator]
#: Every device that the contract tests run on: each opens a bundle, with the options of ``edgemoe.open``.
DEVICES: dict[str, Open] = {
    "reference": lambda bundle, **options: edgemoe.open("reference", bundle, **options),
    "sim": lambda bundle, **options: edgemoe.open("sim", bundle, **options),
}


@pytest.fixture(scope="session")
def runtime_bundle() -> Bundle:
    """13 tokens, 2 blocks, 5 experts, five tasks, for the preset ``tiny``."""
    return build_bundle(random_graph(small_model(tasks=KINDS)), PRESETS["tiny"])


@pytest.fixture(params=DEVICES)
def open_device(request: pytest.FixtureRequest) -> Open:
    return DEVICES[request.param]


@pytest.fixture
def accelerator(open_device: Open, runtime_bundle: Bundle) -> Iterator[edgemoe.Accelerator]:
    with open_device(runtime_bundle) as opened:
        yield opened


@pytest.fixture
def pictures(rng: np.random.Generator, runtime_bundle: Bundle) -> np.ndarray:
    """uint8 [8, H, W, 3]."""
    model = runtime_bundle.model
    return rng.integers(0, 256, (8, model.image_height, model.image_width, 3), np.uint8)


@pytest.fixture(scope="session")
def expected(runtime_bundle: Bundle) -> Callable[[Any, str], np.ndarray]:
    """The integer reference's raw outputs of an image and a task."""
    reference = ReferenceDevice()
    return lambda image, task: reference.run(runtime_bundle, image, task).outputs
