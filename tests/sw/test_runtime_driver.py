"""The driver on an accelerator that does nothing: identity, memory, registers, waiting, errors."""

import contextlib

import numpy as np
import pytest

from edgemoe.bundle import BundleError
from edgemoe.errors import DeviceError
from edgemoe.layout import pack_patches
from edgemoe.runtime.driver import Driver
from edgemoe.runtime.executor import DeviceTimeout, ProgramStopped
from edgemoe.runtime.packing import ImagePacker
from edgemoe.runtime.platforms.null import NullPlatform
from edgemoe.runtime.platforms.registers import Registers, mask
from edgemoe_hw.spec import regs
from edgemoe_hw.spec.config import ISA_VERSION, PRESETS, AcceleratorConfig
from edgemoe_hw.spec.isa import ENGINES, Opcode, decode_program
from edgemoe_models.model_image import patchify


class Stuck(NullPlatform):
    """A program runs for ever, or ends with an error; a soft reset helps unless the bus is dead."""

    has_interrupt = True

    def __init__(self, config, base=0, ends=(), dead=False):
        super().__init__(config, base)
        self.ends, self.dead, self.starts, self.resets, self.time = list(ends), dead, 0, 0, 0.0

    def write(self, offset, value):
        status = regs.find("STATUS").offset
        if offset == regs.find("CONTROL").offset and value & mask("CONTROL", "soft_reset"):
            self.resets += 1
            self.registers[status] = mask("STATUS", "busy") if self.dead else 0
        elif offset == regs.find("CONTROL").offset:
            self.starts += 1
            code = self.ends.pop(0) if self.ends else None
            if code is None:
                self.registers[status] = mask("STATUS", "busy")
            else:
                self.registers[status] = mask("STATUS", "error" if code else "done")
                self.registers[regs.find("ERROR_CODE").offset] = code
                self.registers[regs.find("ERROR_COMMAND").offset] = 7
        elif offset != status:
            super().write(offset, value)

    def wait(self, seconds):
        self.time += seconds

    def now(self):
        return self.time


@pytest.fixture
def platform(runtime_bundle):
    return NullPlatform(runtime_bundle.config)


@pytest.mark.parametrize(
    ("register", "value", "error", "parts"),
    [
        ("ID", 0, DeviceError, ("0x00000000, not 0x454d4f45", "load its overlay")),
        ("ISA_VERSION", 99, BundleError, (f"ISA version {ISA_VERSION}, device null has 99", "compile the model")),
        ("CONFIG_HASH", 1, BundleError, ("hash 0x00000001", f"{PRESETS['tiny'].hash32:#010x}", "the bundle's overlay")),
        ("CONFIG_HASH", PRESETS["pynq-z2"].hash32, BundleError, ("has pynq-z2", "edgemoe compile --config pynq-z2")),
    ],
)
def test_identity_comes_first(runtime_bundle, platform, register, value, error, parts):
    platform.registers[regs.find(register).offset] = value
    before = dict(platform.registers)
    with pytest.raises(error) as caught:
        Driver(platform, runtime_bundle)
    for part in parts:
        assert part in str(caught.value)
    assert platform.registers == before and not platform.buffers


def test_identity_is_the_first_access(runtime_bundle, platform):
    """Nothing is written, and nothing else read, before ID, ISA version and configuration hash."""
    accesses, read, write = [], platform.read, platform.write
    platform.read = lambda offset: (accesses.append(("read", offset)), read(offset))[1]
    platform.write = lambda offset, value: (accesses.append(("write", offset)), write(offset, value))
    platform.allocate = lambda nbytes: accesses.append(("allocate", nbytes)) or NullPlatform.allocate(platform, nbytes)
    Driver(platform, runtime_bundle)
    assert accesses[:4] == [
        ("read", regs.find("ID").offset),
        ("read", regs.find("ISA_VERSION").offset),
        ("read", regs.find("CONFIG_HASH").offset),
        ("write", regs.find("CONTROL").offset),
    ]


@pytest.mark.parametrize("base", [0, 0x8_0000_0000, 0xFF_F000_0000])
def test_addresses_of_64_bits(runtime_bundle, base, pictures):
    platform = NullPlatform(runtime_bundle.config, base)
    driver, registers = Driver(platform, runtime_bundle), Registers(platform)
    weights, *programs, input0, input1, output0, output1 = platform.buffers
    np.testing.assert_array_equal(weights.array, runtime_bundle.data)
    for buffer, task in zip(programs, runtime_bundle.tasks.values(), strict=True):
        assert buffer.array.tobytes() == task.program
    driver.pack(1, pictures[0])
    driver.execute("depth", 1, 1)
    for name, buffer in (
        ("PROGRAM_ADDR", programs[1]),
        ("BASE_WEIGHTS", weights),
        ("BASE_INPUT", input1),
        ("BASE_OUTPUT", output1),
    ):
        assert registers.read(name) == buffer.physical_address >= base
    largest = max(task.output_bytes for task in runtime_bundle.tasks.values())
    for name, size in (
        ("SIZE_WEIGHTS", runtime_bundle.data.size),
        ("SIZE_INPUT", runtime_bundle.input_bytes),
        ("SIZE_OUTPUT", largest),
    ):
        assert registers.read(name) == size
    assert registers.read("PROGRAM_COMMANDS") == runtime_bundle.task("depth").commands
    assert registers.read("WATCHDOG") == 1_000_000
    assert all(buffer.flushes == 1 for buffer in (weights, *programs, input0, output0, output1))
    assert (input1.flushes, output1.invalidates) == (2, 0)
    driver.unpack("depth", 1)
    assert (output0.invalidates, output1.invalidates) == (0, 1)
    driver.close()
    driver.close()
    assert not platform.buffers and not platform.is_open


@pytest.mark.parametrize("base", [32, (1 << 40) - 4096])
def test_addresses_that_do_not_exist(runtime_bundle, base):
    platform = NullPlatform(runtime_bundle.config, base)
    with pytest.raises(DeviceError, match=r"multiples of 64 and end at or below 0x10000000000"):
        Driver(platform, runtime_bundle)
    assert not platform.buffers


def test_switching_tasks_costs_registers_only(runtime_bundle, platform, pictures):
    driver = Driver(platform, runtime_bundle)
    driver.pack(0, pictures[0])
    writes, write = [], platform.write
    platform.write = lambda offset, value: (writes.append(offset), write(offset, value))
    for task in ("depth", "edges", "depth"):
        writes.clear()
        driver.execute(task, 0, 0)
        assert 4 * len(writes) < 64
    weights, *rest = platform.buffers
    assert weights.flushes == 1 and [buffer.flushes for buffer in rest].count(2) == 1


@pytest.mark.parametrize("masters", [1, 2])
def test_packing(runtime_bundle, rng, masters):
    """In one pass what the compiler's layout says, with padding and several masters."""
    import dataclasses

    config = (
        runtime_bundle.config
        if masters == 1
        else AcceleratorConfig(lanes_k=32, lanes_n=16, epilogue_lanes=16, norm_lanes=4, axi_masters=2)
    )
    bundle = dataclasses.replace(runtime_bundle, config=config)
    shape = (bundle.model.image_height, bundle.model.image_width, 3)
    packer = ImagePacker(bundle)
    for image in (rng.integers(0, 256, shape, np.uint8), np.full(shape, 255, np.uint8)):
        wanted = pack_patches(config, patchify(image, bundle.model.patch))
        memory = np.full(len(wanted) + 64, 7, np.uint8)
        packer.pack(image, memory)
        assert memory[:-64].tobytes() == wanted and (memory[-64:] == 7).all()


def test_timeout(runtime_bundle, pictures):
    """Says what has finished, resets before the next program, and is on the device's clock."""
    platform = Stuck(runtime_bundle.config)
    driver = Driver(platform, runtime_bundle, timeout=0.5)
    platform.registers[regs.find("DONE_LOAD").offset] = 12
    driver.pack(0, pictures[0])
    with pytest.raises(
        DeviceTimeout,
        match=r"task depth did not end within 0.5 s; error code NONE; of its \d+ "
        r"commands these have finished: 12 LOAD, 0 MATMUL, 0 NORM, 0 STORE; "
        r"the first that has not: command \d+ \(task depth: \d+ MATMUL",
    ):
        driver.execute("depth", 0, 0)
    assert (platform.starts, platform.resets) == (1, 1) and 0.5 <= platform.time < 0.6
    platform.ends = [0]
    assert driver.execute("depth", 0, 0).attempts == 1
    assert (platform.starts, platform.resets) == (2, 2)
    for wrong in ({"timeout": 0}, {"retries": -1}, {"depth": 0}, {"watchdog": -1}, {"watchdog": 1 << 32}):
        with pytest.raises(ValueError, match="timeout above 0, watchdog at least 0 and below 4294967296, not"):
            Driver(platform, runtime_bundle, **wrong)


def test_timeout_names_the_command(runtime_bundle, pictures):
    """The first that has not finished, by the engines' counters."""
    platform = Stuck(runtime_bundle.config)
    driver, program = Driver(platform, runtime_bundle, timeout=0.1), runtime_bundle.task("depth").program
    opcodes = [payload.opcode for _, payload in decode_program(program)]
    stuck = [number for number, opcode in enumerate(opcodes) if opcode is Opcode.LAYERNORM][1]
    for opcode, engine in ENGINES.items():
        platform.registers[regs.find(f"DONE_{engine.name}").offset] = opcodes[:stuck].count(opcode)
    driver.pack(0, pictures[0])
    with pytest.raises(
        DeviceTimeout,
        match=rf"1 NORM, .*the first that has not: command {stuck} \(task depth: {stuck} "
        r"LAYERNORM .*\)$",
    ):
        driver.execute("depth", 0, 0)


@pytest.mark.parametrize("interrupt", [False, True])
def test_errors_and_retries(runtime_bundle, pictures, interrupt):
    platform = Stuck(
        runtime_bundle.config,
        ends=[regs.ErrorCode.READ_BUS, regs.ErrorCode.WATCHDOG, 0, regs.ErrorCode.CONFIG_HASH, 77],
    )
    driver = Driver(platform, runtime_bundle, retries=2, interrupt=interrupt)
    driver.pack(0, pictures[0])
    assert driver.execute("depth", 0, 0).attempts == 3
    assert bool(platform.registers.get(regs.find("CONTROL").offset, 0)) is False  # Stuck keeps no CONTROL
    with pytest.raises(
        ProgramStopped,
        match=r"command 7: CONFIG_HASH, BEGIN names another configuration "
        r"\(task depth: 7 ",
    ) as caught:
        driver.execute("depth", 0, 0)
    assert (caught.value.code, caught.value.command) == (regs.ErrorCode.CONFIG_HASH, 7)
    assert platform.starts == 4
    with pytest.raises(DeviceError, match="unknown error code 77"):
        driver.execute("depth", 0, 0)


@pytest.mark.parametrize("code", [0, regs.ErrorCode.READ_BUS])
def test_interrupt_is_acknowledged(runtime_bundle, pictures, code):
    """After every end, or the line to the processor would stay high."""
    platform, written = Stuck(runtime_bundle.config, ends=[code]), []
    driver, write = Driver(platform, runtime_bundle, interrupt=True), platform.write
    platform.write = lambda offset, value: (written.append((offset, value)), write(offset, value))
    driver.pack(0, pictures[0])
    with pytest.raises(ProgramStopped) if code else contextlib.nullcontext():
        driver.execute("depth", 0, 0)
    assert written.count((regs.find("STATUS").offset, mask("STATUS", "irq"))) == 1


def test_interrupt_that_is_not_there(runtime_bundle, platform):
    with pytest.raises(DeviceError, match="null has no interrupt; open it with interrupt=False"):
        Driver(platform, runtime_bundle, interrupt=True)


def test_dead_bus(runtime_bundle, pictures):
    """Memory that never answers: reported, and what the accelerator may still write to is not given back."""
    platform = Stuck(runtime_bundle.config)
    driver = Driver(platform, runtime_bundle, timeout=0.1)
    platform.dead = True
    driver.pack(0, pictures[0])
    with pytest.raises(DeviceTimeout):
        driver.execute("depth", 0, 0)
    with pytest.raises(
        DeviceError,
        match="still busy 0.01 s after a soft reset: memory does not answer its transfers"
        r"; load the overlay again \(the reset was because: .*did not end within",
    ):
        driver.execute("depth", 0, 0)
    with pytest.warns(ResourceWarning, match="its buffers stay allocated"):
        driver.close()
    assert platform.buffers and not platform.is_open


def test_register_values():
    registers = Registers(NullPlatform(PRESETS["tiny"]))
    registers.write("BASE_INPUT", 0x12_3456_7890)
    assert registers.read("BASE_INPUT") == 0x12_3456_7890
    for name, value in (("BASE_INPUT", 1 << 40), ("WATCHDOG", -1)):
        with pytest.raises(ValueError, match=f"{name} must be at least 0 and below"):
            registers.write(name, value)
