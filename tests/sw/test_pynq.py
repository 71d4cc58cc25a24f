"""The real pynq package on a simulated board: overlays, binding, clocks, memory, interrupt, and what can be wrong."""

import asyncio
import json
import os
import re
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import edgemoe
from edgemoe.boards import IP_VLNV, MODULE_VLNV, load_board
from edgemoe.boards.simulated import simulated_overlay
from edgemoe.compiler import build_bundle
from edgemoe.errors import DeviceError, DeviceInUse
from edgemoe.runtime.platforms import pynq_probe
from edgemoe.runtime.platforms.registers import pynq_registers
from edgemoe.workloads import best_model, load_graph
from edgemoe_hw.spec import regs
from edgemoe_models.random_weights import random_images
from support.random_graphs import random_graph, small_model

from .conftest import KINDS, needs_pynq, open_here, overlay

pytestmark = needs_pynq


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
    """PYNQ finds the driver by type in the .hwh; the registers' names are the driver's, for no .hwh has them."""
    import pynq

    from edgemoe.runtime.platforms.pynq import EdgeMoeIP

    bitstream = simulated_overlay(replace(load_board("kv260"), config=runtime_bundle.config), tmp_path, vlnv)
    assert re.fullmatch(r"kv260-[0-9a-f]{12}\.bit", bitstream.name)
    overlay = pynq.Overlay(str(bitstream))
    ip = overlay.edgemoe_0
    assert not overlay.ip_dict["edgemoe_0"].get("registers")
    assert type(ip) is EdgeMoeIP and ip.mmio.base_addr == 0xA000_0000
    assert int(ip.register_map.ID) == regs.ID
    assert int(ip.register_map.CONFIG_HASH) == runtime_bundle.config.hash32
    ip.register_map.BASE_INPUT_LO, ip.register_map.BASE_INPUT_HI = 0x1234_5678, 0x9A
    assert device.model.read_reg("BASE_INPUT") == 0x9A_1234_5678


def test_registers_by_name():
    """Every 32-bit word of regs.py, and the fields of those that have any."""
    found = pynq_registers()
    assert {value["address_offset"] for value in found.values()} == {
        offset
        for register in regs.REGISTERS
        for offset in range(register.offset, register.offset + 4 * register.count * register.words, 4)
    }
    assert found["ID"]["access"] == "read-only" and found["WATCHDOG"]["access"] == "read-write"
    assert found["CYCLES_HI"]["address_offset"] == regs.find("CYCLES").offset + 4
    assert found["EXPERT_COUNT_31"]["address_offset"] == regs.find("EXPERT_COUNT").offset + 4 * 31
    for name in ("CONTROL", "STATUS"):
        assert {field: (value["bit_offset"], value["bit_width"]) for field, value in found[name]["fields"].items()} == {
            field.name: (field.lsb, field.width) for field in regs.find(name).fields
        }


@pytest.mark.parametrize(("board", "mhz"), [("pynq-z2", 142.857143), ("kv260", 187.498125), ("ultra96v2", 214.28357)])
def test_clock(device, runtime_bundle, pictures, expected, board, mhz):
    """Never above what the overlay was timed for: PYNQ would take 214 MHz for kv260's 200 (4.0), or 300 (3.1)."""
    import pynq

    with open_here(runtime_bundle, overlay(runtime_bundle.config, board)) as accelerator:
        assert accelerator.clock_mhz == pynq.Clocks.fclk0_mhz == pytest.approx(mhz)
        np.testing.assert_array_equal(accelerator.run(pictures[0], "depth").raw, expected(pictures[0], "depth"))


@pytest.mark.parametrize("board", ["pynq-z2", "kv260"])
def test_clock_before_the_download(device, runtime_bundle, monkeypatch, board):
    """The design never runs faster than it was timed for, not for the moment in which a processor could hang on it."""
    import pynq

    clocks, download = [], type(device).download
    monkeypatch.setattr(
        type(device),
        "download",
        lambda *arguments: (clocks.append(pynq.Clocks.fclk0_mhz), download(*arguments))[1],
    )
    with open_here(runtime_bundle, overlay(runtime_bundle.config, board)) as accelerator:
        assert clocks == [accelerator.clock_mhz] and clocks[0] <= load_board(board).pl_clock_mhz * 1.0001


def test_clock_that_cannot_be_lowered(device, runtime_bundle, files, monkeypatch):
    """Nothing is loaded then."""
    import pynq

    class Stuck:
        fclk0_mhz = property(lambda self: 300.0, lambda self, mhz: None)

    monkeypatch.setattr(pynq, "Clocks", Stuck())
    monkeypatch.setattr(type(device), "download", lambda *_: pytest.fail("loaded"))
    with pytest.raises(DeviceError, match="the board's clock is 300 MHz and cannot be lowered to 142.86"):
        open_here(runtime_bundle, files)


def test_probe(device, runtime_bundle, files):
    """What the doctor asks PYNQ: with each version's own names of device and clocks."""
    import pynq

    with open_here(runtime_bundle, files) as accelerator:
        found = pynq_probe.probe()
        assert found["clocks"]["fclk0_mhz"] == accelerator.clock_mhz
    assert found["version"] == pynq.__version__ and "error" not in found
    assert found["device"] == {"class": "SimulatedDevice", "name": "simulated"}
    assert json.loads(json.dumps(found)) == found


def test_download(device, runtime_bundle, files):
    """A download makes registers as after power-on; without it they stay, and so does the clock."""
    import pynq

    open_here(runtime_bundle, files).close()
    device.model.write_reg("WATCHDOG", 77)
    pynq.Clocks.fclk0_mhz = 50
    with open_here(runtime_bundle, files, download=False, watchdog=5) as accelerator:
        assert device.model.read_reg("WATCHDOG") == 77
        assert accelerator.clock_mhz == 50
    open_here(runtime_bundle, files).close()
    assert device.model.read_reg("WATCHDOG") == 0 and pynq.Clocks.fclk0_mhz == pytest.approx(142.857143)


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
    assert (device.model.dram[at : at + 64] == 7).all() and not device.model.dram[at + 8192]
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


def test_smallest_buffer(device, runtime_bundle, files, monkeypatch):
    """PYNQ 3.1's images give buffers of less than two pages addresses that the accelerator does not have."""
    import pynq

    from edgemoe.runtime.platforms.pynq import open_platform

    asked, allocate = [], pynq.allocate
    monkeypatch.setattr(
        pynq, "allocate", lambda shape, *rest, **more: (asked.append(shape), allocate(shape, *rest, **more))[1]
    )
    platform = open_platform(runtime_bundle, bitstream=files)
    sizes = [platform.allocate(nbytes).array.size for nbytes in (1, 8191, 8192, 8193)]
    assert sizes == [1, 8191, 8192, 8193] and asked == [(8192,), (8192,), (8192,), (8193,)]
    platform.close()


def test_power_of_a_board(device, runtime_bundle, files, tmp_path, monkeypatch):
    """As on a Kria, whose device tree does not say that PYNQ knows it, but whose INA260 measures the module."""
    from edgemoe.runtime.platforms import power
    from edgemoe.runtime.platforms import pynq as pynq_platform

    chip = tmp_path / "hwmon0"
    chip.mkdir()
    (chip / "name").write_text("ina260_u14\n")
    (chip / "power1_input").write_text("7250000\n")
    monkeypatch.setattr(pynq_platform, "hwmon_rails", lambda: power.hwmon_rails(tmp_path))
    with open_here(runtime_bundle, files) as accelerator:
        assert accelerator.power() == {}  # a simulation: these sensors would measure the computer
    monkeypatch.setattr(pynq_platform, "EmbeddedDevice", type(device))
    with open_here(runtime_bundle, files) as accelerator:
        assert accelerator.power() == {"ina260_u14 power1": 7.25}
    with open_here(runtime_bundle, files, rails=["ina260_u14 power1"]) as accelerator:
        assert accelerator.power() == {"ina260_u14 power1": 7.25}
    with pytest.raises(DeviceError, match="no power is measured of 12V, but of ina260_u14 power1"):
        open_here(runtime_bundle, files, rails=["12V"])


def test_rails_of_libsensors(device, runtime_bundle, files, tmp_path, monkeypatch):
    """What the kernel's files do not have: voltage and current of a rail."""
    import pynq

    from edgemoe.runtime.platforms import pynq as pynq_platform

    rail = SimpleNamespace(power=None, voltage=SimpleNamespace(value=5.0), current=SimpleNamespace(value=0.5))
    monkeypatch.setattr(pynq_platform, "hwmon_rails", dict)
    monkeypatch.setattr(pynq, "get_rails", lambda: {"5V": rail})
    monkeypatch.setattr(pynq_platform, "EmbeddedDevice", type(device))
    with open_here(runtime_bundle, files) as accelerator:
        assert accelerator.power() == {"5V": 2.5}


def test_buffers_are_cached(device, runtime_bundle, files):
    """Asked for by name: PYNQ's own default is memory that is not cached, in which the host is many times slower."""
    import pynq

    with open_here(runtime_bundle, files) as accelerator:
        plain = pynq.allocate((64,), np.uint8)
        plain[:] = 3
        assert device.model.dram[plain.physical_address] == 3  # seen without a flush
        for buffer in accelerator.executor.memory.buffers:
            address = buffer.physical_address
            before = int(device.model.dram[address])
            buffer.array[0] ^= 255
            assert device.model.dram[address] == before
            buffer.flush()
            assert device.model.dram[address] == before ^ 255


def test_memory_above_4_gib(runtime_bundle, files, pictures, expected):
    """PYNQ's addresses of more than 32 bits, as DDR_HIGH of a ZynqMP board, reach the accelerator whole."""
    from edgemoe_sim.pynq_device import SimulatedDevice

    device = SimulatedDevice(quiet=True, dram_bytes=5 << 30, dram_begin=4 << 30)
    with open_here(runtime_bundle, files) as accelerator:
        assert all(buffer.physical_address >= 4 << 30 for buffer in accelerator.executor.memory.buffers)
        np.testing.assert_array_equal(accelerator.run(pictures[0], "depth").raw, expected(pictures[0], "depth"))
    device.close()


def test_opened_twice(device, runtime_bundle, files, pictures, expected):
    """Two drivers would start each other's programs, and loading the overlay again would end the first one's."""
    own = f"is in use by process {os.getpid()}, this one; close it first"
    with open_here(runtime_bundle, files) as accelerator:
        for download in (True, False):
            with pytest.raises(DeviceInUse, match=f"accelerator pynq simulated-.* {own}"):
                open_here(runtime_bundle, files, download=download)
        with pytest.raises(DeviceInUse, match=own):
            own_overlay(files, runtime_bundle)
        np.testing.assert_array_equal(accelerator.run(pictures[0], "depth").raw, expected(pictures[0], "depth"))
    accelerator = open_here(runtime_bundle, files)
    del accelerator  # not closed, but gone
    with open_here(runtime_bundle, files) as accelerator:
        np.testing.assert_array_equal(accelerator.run(pictures[1], "depth").raw, expected(pictures[1], "depth"))
    assert device.buffers == 0


def own_overlay(files, bundle):
    """An accelerator of an overlay that the user has loaded, with more in it perhaps."""
    import pynq

    from edgemoe.runtime.platforms.pynq import PynqPlatform

    return edgemoe.open(PynqPlatform(pynq.Overlay(str(files), download=False).edgemoe_0), bundle, timeout=60)


def test_own_overlay(device, runtime_bundle, files, pictures, expected):
    """Driven once at a time; meanwhile no overlay is loaded over it."""
    with own_overlay(files, runtime_bundle) as accelerator:
        with pytest.raises(DeviceInUse, match=r"accelerator pynq simulated-\S+ at 0x40000000 is in use by process"):
            own_overlay(files, runtime_bundle)
        with pytest.raises(DeviceInUse, match=r"accelerator pynq simulated-\S+ is in use by process"):
            open_here(runtime_bundle, files)
        np.testing.assert_array_equal(accelerator.run(pictures[0], "depth").raw, expected(pictures[0], "depth"))


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
    rails = {"PL": lambda: 1.5, "12V": broken}
    platform = PynqPlatform(overlay.edgemoe_0, rails=rails)
    with edgemoe.open(platform, runtime_bundle) as accelerator:
        with pytest.raises(DeviceError, match="the power sensor of 12V does not answer: .*Input/output error"):
            accelerator.power()
        rails.pop("12V")
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
    with open_here(runtime_bundle, files, interrupt=True) as accelerator:
        platform = accelerator.executor.platform
        reads, read, wait = [], platform.read, platform.wait
        monkeypatch.setattr(platform, "read", lambda offset: (reads.append(offset), read(offset))[1])
        # A busy machine may simulate little in the usual time.
        monkeypatch.setattr(platform, "wait", lambda seconds: wait(30 if seconds > 1e-3 else seconds))
        for task in ("depth", "segmentation"):
            np.testing.assert_array_equal(accelerator.run(pictures[0], task).raw, expected(pictures[0], task))
    assert device.interrupts >= 2
    assert reads.count(regs.find("STATUS").offset) <= 2 * 2 + 1  # and one at the end, in close


def test_event_loop_that_is_stuck(device, runtime_bundle, files, pictures, expected):
    """The interrupt's wait has an end of its own, and the driver's polls and timeout go on."""
    import pynq

    from edgemoe.runtime.platforms.pynq import PynqPlatform

    async def bind():  # PYNQ's interrupts work in the loop in which they were made
        return pynq.Overlay(str(files), download=False).edgemoe_0

    loop, release = asyncio.new_event_loop(), threading.Event()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    platform = PynqPlatform(asyncio.run_coroutine_threadsafe(bind(), loop).result(), loop=loop)
    with edgemoe.open(platform, runtime_bundle, timeout=60, interrupt=True) as accelerator:
        begin = time.monotonic()
        loop.call_soon_threadsafe(release.wait, 120)
        np.testing.assert_array_equal(accelerator.run(pictures[0], "depth").raw, expected(pictures[0], "depth"))
        took = time.monotonic() - begin
    release.set()
    asyncio.run_coroutine_threadsafe(asyncio.sleep(0.5), loop).result()  # the waits that it was too late for end
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    assert took < 100


def test_no_interrupt(runtime_bundle, files, pictures):
    """Where the kernel has no /dev/uio for it, PYNQ warns, and polling still works."""
    from edgemoe_sim.pynq_device import SimulatedDevice

    device = SimulatedDevice(quiet=True, has_uio=False)
    with pytest.warns(UserWarning, match="Interrupt irq not created"):
        accelerator = open_here(runtime_bundle, files)
    assert accelerator.run(pictures[0], "depth").task == "depth"
    accelerator.close()
    with pytest.warns(UserWarning), pytest.raises(DeviceError, match="pynq has no interrupt; open it with interrupt=F"):
        open_here(runtime_bundle, files, interrupt=True)
    device.close()


def test_example_of_the_docs(tmp_path, monkeypatch, pictures, capsys):
    page = Path(__file__).parents[2] / "docs" / "pynq.md"
    (example,) = re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    bundle = build_bundle(random_graph(small_model(tasks=KINDS)), load_board("pynq-z2").config)
    monkeypatch.chdir(tmp_path)
    bundle.save("model.emoe")
    Image.fromarray(pictures[0]).save("scene.png")
    exec(example, {})
    assert capsys.readouterr().out == "(12, 16) pynq\n"
