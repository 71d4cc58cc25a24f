"""What ``import edgemoe`` offers: names, from a checkpoint to predictions, packaged bundles, typed options."""

import inspect
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import get_type_hints

import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

import edgemoe
from edgemoe.packaged_bundles import bundle_names, find_bundle
from edgemoe.runtime.driver import Driver
from edgemoe.runtime.options import (
    DriverOptions,
    PynqOptions,
    ReferenceOptions,
    RemoteOptions,
    SerialOptions,
    SimOptions,
)
from edgemoe.runtime.platforms import serial, sim
from edgemoe.runtime.platforms.null import NullPlatform
from edgemoe.runtime.reference import ReferenceExecutor
from edgemoe.runtime.remote import open_executor
from edgemoe.workloads import CalibrationWarning
from edgemoe_models.graph.file import graph_bytes, write_graph
from edgemoe_models.random_weights import random_state
from support.random_graphs import small_model

from .conftest import KINDS, needs_pynq

ROOT = Path(__file__).parents[2]
MODEL = small_model(tasks=KINDS)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "float.safetensors"
    safetensors.numpy.save_file(random_state(MODEL, 0), path, {"config": MODEL.to_json()})
    return path


def test_names():
    """All there, and nothing heavy is imported for them."""
    assert all(hasattr(edgemoe, name) for name in edgemoe.__all__) and len(set(edgemoe.__all__)) == len(edgemoe.__all__)
    code = "import sys, edgemoe; print(*{n for n in sys.modules if n.startswith('edgemoe') or '.' not in n})"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    loaded = set(subprocess.check_output([sys.executable, "-c", code], env=environment, text=True).split())
    assert not loaded & {"amaranth", "edgemoe_sim", "safetensors", "PIL", "rich", "typer", "tomli", "tomllib"}
    late = ("edgemoe.compiler", "edgemoe.boards", "edgemoe.cli", "edgemoe_models.ptq", "edgemoe_models.datasets")
    assert not [name for name in loaded if name.startswith(late)]


def test_from_a_checkpoint_to_a_prediction(checkpoint, tmp_path, pictures):
    """A folder of pictures, an array of them, or generated scenes calibrate."""
    (tmp_path / "pictures").mkdir()
    for number, picture in enumerate(pictures):
        Image.fromarray(picture).save(tmp_path / "pictures" / f"{number}.png")
    graph = edgemoe.quantize(checkpoint, tmp_path / "pictures")
    assert graph_bytes(graph) == graph_bytes(edgemoe.quantize(str(checkpoint), pictures))
    with pytest.warns(CalibrationWarning, match=r"float.safetensors is calibrated on 2 generated scenes, not on "):
        assert edgemoe.quantize(checkpoint, count=2, expert_bits=4).expert_bits == 4
    bundle = edgemoe.compile(graph, "tiny")
    assert bundle.config == edgemoe.CONFIGS["tiny"]
    write_graph(graph, tmp_path / "graph.safetensors")
    bundle.save(tmp_path / "x.emoe")
    edgemoe.compile(tmp_path / "graph.safetensors", edgemoe.CONFIGS["tiny"]).save(tmp_path / "y.emoe")
    assert (tmp_path / "x.emoe").read_bytes() == (tmp_path / "y.emoe").read_bytes()
    with edgemoe.open("reference", bundle) as accelerator:
        assert accelerator.run(pictures[0], "depth").metres.shape == pictures[0].shape[:2]


def test_what_cannot_be_compiled(checkpoint, tmp_path):
    for model, config, message in (
        (checkpoint, "small", "config must be one of pynq-z2, .* or a JSON file, not 'small'"),
        (
            tmp_path / "none",
            "tiny",
            "model must be one of .*, m3vit-micro-w8a8, m3vit-tiny-camvid-w4a8, .*m3vit-tiny-camvid, or .*none",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            edgemoe.compile(model, config)
    with pytest.raises(ValueError, match="no such folder of calibration images"):
        edgemoe.quantize(checkpoint, tmp_path / "none")


def test_what_cannot_fit_is_said_before_it_is_quantized(tmp_path, monkeypatch):
    wide = small_model(name="wide", dim=320, heads=5)
    safetensors.numpy.save_file(random_state(wide, 0), tmp_path / "wide", {"config": wide.to_json()})
    monkeypatch.setattr("edgemoe_models.ptq.quantize.quantize_checkpoint", pytest.fail)
    with pytest.raises(ValueError, match="wide does not fit tiny: .*dim.* It fits "):
        edgemoe.compile(tmp_path / "wide", "tiny")


def test_packaged_bundles(monkeypatch, tmp_path):
    """Opened by name; a file of that name comes first; what is neither is said with what there is."""
    monkeypatch.chdir(tmp_path)
    assert "m3vit-micro-w8a8-pynq-z2" in bundle_names()
    with edgemoe.open("reference", "m3vit-micro-w8a8-pynq-z2") as accelerator:
        assert accelerator.tasks == ("segmentation", "depth", "normals", "edges")
    assert edgemoe.Bundle.load(find_bundle("m3vit-micro-w8a8-pynq-z2")).config == edgemoe.CONFIGS["pynq-z2"]
    Path("m3vit-micro-w8a8-pynq-z2").touch()
    assert find_bundle("m3vit-micro-w8a8-pynq-z2") == Path("m3vit-micro-w8a8-pynq-z2")
    with pytest.raises(
        edgemoe.BundleError, match="x.emoe: there is no such file; .*or name a packaged one: m3vit-micro-"
    ):
        edgemoe.open("reference", "x.emoe")
    with pytest.raises(edgemoe.BundleError, match="x: there is no such file; make a bundle with edgemoe compile$"):
        find_bundle("x", tmp_path)  # a board has none


def keywords(function) -> dict[str, object]:
    hints = get_type_hints(function)
    return {
        name: hints[name]
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }


def own(options: type, base: type) -> dict[str, object]:
    return {name: hint for name, hint in get_type_hints(options).items() if name not in base.__annotations__}


def test_options_are_what_the_devices_take():
    """Declared once more for editors; this keeps them together."""
    common = {name: get_type_hints(ReferenceOptions)[name] for name in ("resize", "notes")}
    assert get_type_hints(ReferenceOptions) == common | keywords(ReferenceExecutor.__init__)
    assert get_type_hints(DriverOptions) == common | keywords(Driver.__init__)
    assert own(SimOptions, DriverOptions) == keywords(sim.open_platform)
    assert own(SerialOptions, DriverOptions) == keywords(serial.open_platform)
    assert get_type_hints(RemoteOptions) == common | keywords(open_executor)


@needs_pynq
def test_options_of_pynq():
    from edgemoe.runtime.platforms import pynq

    assert own(PynqOptions, DriverOptions) == keywords(pynq.open_platform)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"retrys": 2}, "has no option retrys; it has resize, notes, depth, timeout, watchdog, retries, interrupt"),
        ({"retries": "2"}, "option retries must be int, not '2'"),
        ({"retries": 1.5}, "option retries must be int, not 1.5"),
        ({"depth": True}, "option depth must be int, not True"),
        ({"timeout": "1"}, "option timeout must be float or None, not '1'"),
        ({"interrupt": 1}, "option interrupt must be bool, not 1"),
        ({"stall": None}, "option stall must be float, not None"),
    ],
)
def test_wrong_options(runtime_bundle, options, message):
    """One line each, before anything is opened."""
    with pytest.raises(ValueError, match=message):
        edgemoe.open("sim", runtime_bundle, **options)


def test_numbers_of_numpy(runtime_bundle):
    options = {"depth": np.int64(1), "timeout": np.float32(5), "interrupt": np.bool_(False)}
    edgemoe.open(NullPlatform(runtime_bundle.config), runtime_bundle, **options).close()


def test_a_type_checker_finds_wrong_options(tmp_path):
    """By the device's name; where that is not known, the options of all devices are."""
    if find_spec("mypy") is None:
        pytest.skip("mypy is not installed")
    lines = {
        'edgemoe.open("sim", "x", stall=0.1, retries=2, resize="crop")': True,
        'edgemoe.open("pynq", "x", bitstream="x.bit", rails=["PL"])': True,
        'edgemoe.open("serial", "x", port="/dev/ttyUSB0")': True,
        'edgemoe.open("remote", url="http://board:8000")': True,
        'edgemoe.open("remote", "x", token="x", depth=3)': True,
        'edgemoe.open("remote", ulr="http://board:8000")': False,
        "edgemoe.open(platform, 'x', interrupt=True)": True,
        "edgemoe.open(name, 'x', depth=4)": True,
        "sim: edgemoe.SimOptions = {'seed': 3, 'quiet': True}": True,
        "edgemoe.open('sim', 'x', **sim)": True,
        'edgemoe.open("sim", "x", stal=0.1)': False,
        'edgemoe.open("sim", "x", port="x")': False,
        'edgemoe.open("reference", "x", retries=1)': False,
        'edgemoe.open("pynq", "x", resize="stretch")': False,
        "edgemoe.open(name, 'x', stall=0.1)": False,
        "edgemoe.open(platform, 'x', stall=0.1)": False,
        "wrong: edgemoe.SimOptions = {'sed': 3}": False,
    }
    begin = "import edgemoe\ndef use(name: str, platform: edgemoe.Platform) -> None:\n"
    (tmp_path / "script.py").write_text(begin + "".join(f"    {text}\n" for text in lines))
    done = subprocess.run(
        [sys.executable, "-m", "mypy", tmp_path / "script.py"], cwd=ROOT, capture_output=True, text=True
    )
    found = {int(number) for number in re.findall(r"script\.py:(\d+): error: ", done.stdout)}
    wrong = {number for number, is_right in enumerate(lines.values(), 3) if not is_right}
    assert found == wrong and wrong
