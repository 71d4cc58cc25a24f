"""The notebooks run from the first cell to the last, on the simulated and on the reference device."""

import json
from importlib.metadata import entry_points
from pathlib import Path

import nbclient
import nbformat
import numpy as np
import pytest

import edgemoe.notebooks
from edgemoe.bundle import Bundle, BundleError
from edgemoe.notebooks import bars, find_bundle, find_device, scene
from support.photo_trees import save_image
from tests.sw.test_demo import deep_bundle  # noqa: F401 (a fixture)

FOLDER = Path(edgemoe.notebooks.__file__).parent
NOTEBOOKS = ("inside_the_accelerator", "quickstart", "streaming")
ROOT = FOLDER.parents[2]


def test_notebooks_are_stored_without_outputs():
    assert tuple(sorted(path.stem for path in FOLDER.glob("*.ipynb"))) == NOTEBOOKS
    for path in FOLDER.glob("*.ipynb"):
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
        for cell in notebook.cells:
            assert cell.cell_type == "markdown" or (cell.outputs == [] and cell.execution_count is None)
            assert cell.source.strip() and max(map(len, cell.source.splitlines())) <= 125


@pytest.mark.parametrize(
    "name, device", [*((name, "sim") for name in NOTEBOOKS), ("inside_the_accelerator", "reference")]
)
def test_notebook_runs(name, device, deep_bundle, tmp_path, monkeypatch):  # noqa: F811
    deep_bundle.save(tmp_path / "x.emoe")
    monkeypatch.setenv("EDGEMOE_DEVICE", device)
    monkeypatch.setenv("EDGEMOE_BUNDLE", str(tmp_path / "x.emoe"))
    monkeypatch.setenv("PYTHONPATH", ":".join(str(ROOT / folder) for folder in ("hw", "models", "sim", "sw")))
    monkeypatch.setenv("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    for number in range(2):
        save_image(tmp_path / "photographs" / f"{number}.jpg", np.full((40, 50, 3), 99 * number, np.uint8))
    monkeypatch.setenv("EDGEMOE_PHOTOGRAPHS", str(tmp_path / "photographs"))
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(ROOT)}}
    ).execute()  # raises where a cell does; ROOT has the cached simulator
    said = json.dumps([cell.get("outputs") for cell in notebook.cells])
    assert "image/png" in said or name == "inside_the_accelerator"
    assert {
        "quickstart": "values are equal",
        "streaming": "8 inferences, 0 failed",
        "inside_the_accelerator": "MATMUL",
    }[name] in said
    assert "2 photographs" in said or name != "streaming"
    if name == "inside_the_accelerator":  # every MoE block of every task, by the device's own counts
        with edgemoe.open("reference", deep_bundle) as reference:
            image = scene(deep_bundle)
            for task in deep_bundle.tasks:
                for block, tokens in reference.run(image, task).stats.expert_loads.items():
                    assert f"{task:14} {block:5}  " + " ".join(f"{count:4}" for count in tokens) in said


def test_pynq_finds_them(tmp_path):
    """What ``pynq get-notebooks`` does: PYNQ loads the entry point's package and copies its folder."""
    found = [entry for entry in entry_points(group="pynq.notebooks") if entry.name == "edgemoe"]
    assert [entry.value for entry in found] == ["edgemoe.notebooks"] and found[0].load() is edgemoe.notebooks
    delivery = pytest.importorskip("pynqutils.setup_utils.deliver_notebooks", exc_type=ImportError)
    delivery.deliver_notebooks("Pynq-Z2", str(FOLDER), str(tmp_path), "edgemoe", folder=True)
    assert sorted(path.name for path in (tmp_path / "edgemoe").iterdir() if path.is_file()) == [
        f"{name}.ipynb" for name in NOTEBOOKS
    ]


def test_device_and_bundle_are_found(runtime_bundle, tmp_path, monkeypatch):
    for name in ("EDGEMOE_DEVICE", "EDGEMOE_BUNDLE", "BOARD"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_device() == "sim"
    monkeypatch.setenv("EDGEMOE_DEVICE", "pynq")
    with pytest.raises(BundleError, match="no bundle in .*; copy overlay and bundle to this board with make flash"):
        find_bundle()
    (tmp_path / "edgemoe" / "tiny-0").mkdir(parents=True)
    runtime_bundle.save(tmp_path / "edgemoe" / "tiny-0" / "bundle.emoe")
    assert find_bundle().config == runtime_bundle.config


def test_micro_is_compiled_where_nothing_else_is(tmp_path, monkeypatch):
    monkeypatch.delenv("EDGEMOE_BUNDLE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    found = find_bundle()
    assert isinstance(found, Bundle) and (found.model.name, found.config.name) == ("m3vit-micro", "pynq-z2")


def test_bars():
    assert bars({"a": 0, "long": 2000}, 4) == "a         0\nlong ████ 2,000"
