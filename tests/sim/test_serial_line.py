"""The whole system of the open flow: the host's driver, line, bridge, accelerator, SDRAM controller and a chip."""

from collections.abc import Iterator

import numpy as np
import pytest

import edgemoe
from edgemoe.compiler import build_bundle
from edgemoe.errors import DeviceError
from edgemoe.runtime.platforms.serial import SerialPlatform
from edgemoe_hw.spec import regs
from edgemoe_hw.spec.config import PRESETS
from edgemoe_hw.spec.serial_protocol import header
from edgemoe_sim.serial_line import CLOCK_HZ, SimulatedLine
from support.random_graphs import random_graph, small_model
from support.reference import expect

pytestmark = pytest.mark.slow
TINY = PRESETS["tiny"]


@pytest.fixture
def line() -> Iterator[SimulatedLine]:
    line = SimulatedLine(TINY, quiet=True)
    yield line
    line.close()


@pytest.fixture
def platform(line: SimulatedLine) -> SerialPlatform:
    return SerialPlatform(line, CLOCK_HZ / 1e6)


def test_registers(platform: SerialPlatform) -> None:
    assert platform.read(regs.find("ID").offset) == regs.ID
    assert platform.read(regs.find("CONFIG_HASH").offset) == TINY.hash32
    platform.write(regs.find("WATCHDOG").offset, 0x12345678)
    assert platform.read(regs.find("WATCHDOG").offset) == 0x12345678


@pytest.mark.parametrize("address", [0, 1000, 0x1FF_FFF8 - 2040])
def test_memory(platform: SerialPlatform, rng: np.random.Generator, address: int) -> None:
    """Over ends of rows (every KiB), banks, and the last bytes of the chip."""
    content = rng.integers(0, 256, 2048, np.uint8).tobytes()
    platform.write_memory(address, content)
    assert platform.read_memory(address, 2048) == content


def test_no_such_memory(platform: SerialPlatform) -> None:
    with pytest.raises(DeviceError, match="refused memory 0x2000000: bus response 3"):
        platform.read_memory(1 << 25, 16)
    with pytest.raises(DeviceError, match="refused memory 0x2000000: bus response 3"):
        platform.write_memory(1 << 25, bytes(8))
    assert platform.read(regs.find("ID").offset) == regs.ID


def test_break_ends_a_command_that_was_cut_off(line: SimulatedLine, platform: SerialPlatform) -> None:
    line.write(header(write=True, memory=True, address=0, words=100) + bytes(11))
    line.wait(1e-3)
    with pytest.raises(DeviceError, match="the board answered 0 of 5 bytes"):
        platform.read(regs.find("ID").offset)
    assert SerialPlatform(line, CLOCK_HZ / 1e6).read(regs.find("ID").offset) == regs.ID


def test_stream_equals_the_reference(platform: SerialPlatform, rng: np.random.Generator) -> None:
    """Two frames, two tasks: the second is sent while the first is computed."""
    bundle = build_bundle(random_graph(small_model()), TINY)
    images = rng.integers(0, 256, (2, bundle.model.image_height, bundle.model.image_width, 3), np.uint8)
    with edgemoe.open(platform, bundle) as accelerator:
        for image, frame in zip(images, accelerator.stream(images), strict=True):
            for task in bundle.tasks:
                np.testing.assert_array_equal(frame[task].raw, expect(bundle, image, task).outputs)
