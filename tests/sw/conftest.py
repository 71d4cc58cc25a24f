"""What the runtime's tests share: a small bundle with every kind of task, and every device that can run it."""

import contextlib
import dataclasses
import functools
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgemoe
from edgemoe.boards import load_board
from edgemoe.boards.simulated import simulated_overlay
from edgemoe.bundle import Bundle, BundleError, Joined
from edgemoe.compiler import build_bundle
from edgemoe.runtime.platforms.base import Platform
from edgemoe.runtime.platforms.sim import SimPlatform
from edgemoe_hw.spec.config import PRESETS, AcceleratorConfig
from edgemoe_models.config import TaskConfig
from edgemoe_models.graph.file import write_graph
from support import small_bundle
from support.animal_pictures import class_folders, trained_files
from support.bundles import sealed
from support.random_graphs import random_graph, small_model
from support.reference import expect

KINDS = (
    TaskConfig("segmentation", "segmentation", channels=5, head_hidden=20, cells=2),
    TaskConfig("depth", "depth", channels=1, cells=4),
    TaskConfig("normals", "normals", channels=3, cells=2),
    TaskConfig("edges", "edges", channels=1, cells=1),
    TaskConfig("scene", "classification", channels=11),
)

Open = Callable[..., edgemoe.Accelerator]
_folder = tempfile.TemporaryDirectory()


@functools.cache
def overlay(config: AcceleratorConfig, board: str = "pynq-z2") -> Path:
    """A board's overlay with another configuration."""
    return simulated_overlay(dataclasses.replace(load_board(board), config=config), Path(_folder.name))


def open_pynq(bundle: Bundle | Path | str, **options: Any) -> edgemoe.Accelerator:
    """PYNQ with a new simulated board; by its clock a busy machine may simulate little in a second."""
    from edgemoe_sim.pynq_device import SimulatedDevice

    SimulatedDevice(quiet=True)
    return edgemoe.open("pynq", bundle, **{"bitstream": overlay(PRESETS["tiny"]), "timeout": 60, **options})


@functools.cache
def served(sha256: str) -> str:
    """The address of a server of a bundle that was given before, in this process, until this ends."""
    from support.serving import TOKEN, serving

    return _servers.enter_context(serving(_bundles[sha256], token=TOKEN))


def open_remote(bundle: Bundle | Path | str, **options: Any) -> edgemoe.Accelerator:
    """A server of the bundle, or, of what cannot be served, of the last one that could."""
    from support.serving import TOKEN

    with contextlib.suppress(BundleError):
        loaded = bundle if isinstance(bundle, Bundle) else Bundle.load(bundle)
        _bundles[loaded.sha256] = _bundles.pop(loaded.sha256, loaded)
    if not _bundles:
        pytest.fail("nothing was served before")
    url = served(next(reversed(_bundles)))
    return edgemoe.open("remote", bundle, **{"url": url, "token": TOKEN, **options})


_bundles: dict[str, Bundle] = {}
_servers = contextlib.ExitStack()


@pytest.fixture(scope="session", autouse=True)
def servers_end() -> Iterator[None]:
    with _servers:
        yield
    served.cache_clear()


#: Every device that the contract tests run on: each opens a bundle, with the options of ``edgemoe.open``.
DEVICES: dict[str, Open] = {
    "reference": lambda bundle, **options: edgemoe.open("reference", bundle, **options),
    "sim": lambda bundle, **options: edgemoe.open("sim", bundle, **options),
    "pynq": open_pynq,
    "remote": open_remote,
}
needs_pynq = pytest.mark.skipif(sys.version_info >= (3, 13), reason="pynq has no release for numpy 2")


def _params(names: list[str]) -> list[Any]:
    return [pytest.param(name, marks=needs_pynq if name == "pynq" else ()) for name in names]


Simulation = Any  # SimPlatform or SimulatedDevice: with ``model`` and ``buffers``
Simulate = Callable[[Bundle], tuple[Platform, Simulation]]


def _simulate_pynq(bundle: Bundle) -> tuple[Platform, Simulation]:
    from edgemoe.runtime.platforms.pynq import open_platform
    from edgemoe_sim.pynq_device import SimulatedDevice

    device = SimulatedDevice(quiet=True)
    return open_platform(bundle, bitstream=overlay(bundle.config)), device


def _simulate_sim(bundle: Bundle) -> tuple[Platform, Simulation]:
    platform = SimPlatform(bundle.config, quiet=True)
    return platform, platform


#: Platforms on simulated RTL, and the simulation below, for tests that break something there.
PLATFORMS: dict[str, Simulate] = {"sim": _simulate_sim, "pynq": _simulate_pynq}


@pytest.fixture(params=_params(list(PLATFORMS)))
def simulate(request: pytest.FixtureRequest) -> Simulate:
    return PLATFORMS[request.param]


@pytest.fixture(scope="session")
def runtime_bundle() -> Bundle:
    """13 tokens, 2 blocks, 5 experts, five tasks, for the preset ``tiny``."""
    return build_bundle(random_graph(small_model(tasks=KINDS)), PRESETS["tiny"])


@pytest.fixture(scope="session")
def joint_bundle() -> Bundle:
    """The same with programs of all tasks, of two tasks, and of 2 to 4 images of depth and of scene."""
    batches = [Joined((task,), images) for task in ("depth", "scene") for images in (2, 3, 4)]
    sets = [Joined(tuple(task.name for task in KINDS)), Joined(("segmentation", "depth"))]
    return build_bundle(random_graph(small_model(tasks=KINDS)), PRESETS["tiny"], joint=[*sets, *batches])


@pytest.fixture(params=_params(list(DEVICES)))
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
    return lambda image, task: expect(runtime_bundle, image, task).outputs


@pytest.fixture(scope="session")
def graph_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The integer graph of the command line's small model."""
    path = tmp_path_factory.mktemp("graph") / "small.safetensors"
    write_graph(random_graph(small_bundle.MODEL), path)
    return path


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command line's small model, compiled for ``tiny``."""
    path = tmp_path_factory.mktemp("bundle") / "small.emoe"
    build_bundle(random_graph(small_bundle.MODEL), PRESETS["tiny"]).save(path)
    return path


@pytest.fixture
def bundle(compiled: Path, tmp_path: Path) -> Path:
    """A copy of it, which may be damaged."""
    path = tmp_path / "small.emoe"
    path.write_bytes(compiled.read_bytes())
    return path


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A picture of the small model's size."""
    return small_bundle.picture(tmp_path / "scene.png")


@pytest.fixture
def device() -> Iterator[Any]:
    """A simulated board, which is PYNQ's."""
    from edgemoe_sim.pynq_device import SimulatedDevice

    device = SimulatedDevice(quiet=True)
    yield device
    device.close()


@pytest.fixture
def files(tmp_path: Path, runtime_bundle: Bundle) -> Path:
    """An overlay of one's own to break: its .bit."""
    for path in overlay(runtime_bundle.config).parent.glob(f"{overlay(runtime_bundle.config).stem}.*"):
        shutil.copy(path, tmp_path)
    return tmp_path / overlay(runtime_bundle.config).name


def open_here(bundle: Bundle, bitstream: Path | None, **options: Any) -> edgemoe.Accelerator:
    """PYNQ with the board of the fixture ``device``."""
    return edgemoe.open("pynq", bundle, bitstream=bitstream, timeout=60, **options)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A float checkpoint of animals and its bundle."""
    return trained_files(tmp_path_factory.mktemp("animals"))


@pytest.fixture(scope="module")
def animals(trained):
    return trained[1]


@pytest.fixture
def tree(tmp_path):
    return class_folders(tmp_path / "val")


@pytest.fixture
def refused(tmp_path):
    """Load a file of these parts; one line that names the file and says this."""

    def load(parts, message):
        path = tmp_path / "x.emoe"
        with pytest.raises(BundleError, match=message) as caught:
            sealed(path, parts)
        text = str(caught.value)
        assert text.startswith(f"{path}: ") and "\n" not in text and len(text) < 500

    return load
