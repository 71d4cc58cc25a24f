"""Everything that can go wrong on the RTL is reported with its code and command; afterwards it computes as before."""

import dataclasses
from dataclasses import replace

import numpy as np
import pytest

from edgemoe.bundle import Bundle, BundleError
from edgemoe.compiler import build_bundle
from edgemoe.errors import DeviceError
from edgemoe.layout import gather_outputs, pack_patches
from edgemoe.runtime.driver import Driver
from edgemoe.runtime.executor import ProgramStopped
from edgemoe.runtime.platforms.sim import SimPlatform
from edgemoe.runtime.verify import open_verified
from edgemoe_hw.spec.config import PRESETS
from edgemoe_hw.spec.isa import COMMAND_BYTES, Base, Engine, Load, MatMul, Memory, Mode, Store, waits
from edgemoe_hw.spec.regs import ErrorCode
from edgemoe_models.model_image import patchify
from edgemoe_sim.command_model import FunctionalModel, Stopped
from edgemoe_sim.verilated import ProgramError, VerilatedModel
from support.programs import changed, command, find, forged, rewritten
from support.random_graphs import random_graph, small_model
from support.reference import expect

CONFIG = PRESETS["tiny"]
TASK = "segmentation"
WEIGHTS, INPUT, OUTPUT, PROGRAM, SIZE = 0, 0x8_0000, 0x9_0000, 0xA_0000, 0x10_0000
LIMIT = 1_000_000


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return build_bundle(random_graph(small_model()), CONFIG)


class Machine:
    """The accelerator with a bundle's data and an image in its memory."""

    def __init__(self, bundle: Bundle, stall: float = 0.0) -> None:
        model = bundle.model
        self.bundle, self.info = bundle, bundle.task(TASK)
        self.rtl = VerilatedModel(bundle.config, dram_bytes=SIZE, stall=stall, quiet=True)
        shape = (model.image_height, model.image_width, 3)
        image = np.random.default_rng(7).integers(0, 256, shape).astype(np.uint8)
        self.expected = expect(bundle, image, TASK).outputs
        self.source = pack_patches(bundle.config, patchify(image, model.patch))
        self.regions = {
            Base.WEIGHTS: bundle.data.size,
            Base.INPUT: bundle.input_bytes,
            Base.OUTPUT: self.info.output_bytes,
        }
        assert bundle.data.size <= INPUT
        self.load()

    def load(self) -> None:
        """Weights and image."""
        self.fill(WEIGHTS, self.bundle.data.tobytes())
        self.fill(INPUT, self.source)

    def fill(self, address: int, content: bytes) -> None:
        self.rtl.dram[address : address + len(content)] = np.frombuffer(content, np.uint8)

    def start(self, program: bytes, commands: int | None = None) -> None:
        self.fill(PROGRAM, program)
        self.rtl.dram[OUTPUT : OUTPUT + self.info.output_bytes] = 0
        self.rtl.start(
            PROGRAM,
            len(program) // COMMAND_BYTES if commands is None else commands,
            weights=WEIGHTS,
            input=INPUT,
            output=OUTPUT,
            watchdog=5000,
            sizes=self.regions,
        )

    def expect(self, code: ErrorCode, command: int) -> None:
        with pytest.raises(ProgramError) as caught:
            self.rtl.finish(LIMIT)
        assert (caught.value.code, caught.value.command) == (code, command)
        assert self.rtl.read_field("STATUS", "done") == 0

    def expect_recovery(self) -> None:
        """After a soft reset the right program gives the right outputs."""
        self.rtl.soft_reset()
        assert self.rtl.read_reg("STATUS") == 0 and self.rtl.read_reg("ERROR_CODE") == 0
        self.start(self.info.program)
        self.rtl.finish(LIMIT)
        memory = self.rtl.dram[OUTPUT : OUTPUT + self.info.output_bytes]
        found = gather_outputs(self.info.outputs, memory, self.info.output_rows, self.info.output_channels)
        np.testing.assert_array_equal(found, self.expected)


@pytest.fixture
def machine(bundle):
    machine = Machine(bundle)
    yield machine
    machine.rtl.close()


def test_other_isa_version_and_config(machine):
    for code, change in ((ErrorCode.ISA_VERSION, {"isa_version": 99}), (ErrorCode.CONFIG_HASH, {"config_hash": 1})):
        machine.start(changed(machine.info.program, 0, **change))
        machine.expect(code, 0)
        machine.expect_recovery()


def test_program_for_other_hardware(machine):
    """A bundle of another configuration is refused by the device, and by the RTL if its program gets there."""
    other = dataclasses.replace(CONFIG, weight_depth=256)
    foreign = build_bundle(random_graph(small_model()), other)
    with pytest.raises(BundleError, match="compile the model for it"):
        open_verified(foreign, config=CONFIG, quiet=True)
    machine.start(foreign.task(TASK).program)
    machine.expect(ErrorCode.CONFIG_HASH, 0)
    machine.expect_recovery()


@pytest.mark.parametrize("index", [0, 1, 40])
@pytest.mark.parametrize("opcode", [0, 7, 15])
def test_illegal_opcode(machine, index, opcode):
    program = bytearray(machine.info.program)
    program[COMMAND_BYTES * index] = program[COMMAND_BYTES * index] & 0xF0 | opcode
    machine.start(bytes(program))
    machine.expect(ErrorCode.ILLEGAL_OPCODE, index)
    machine.expect_recovery()


def test_program_lengths_disagree(machine):
    last = machine.info.commands - 1
    machine.start(machine.info.program, commands=last)
    machine.expect(ErrorCode.PROGRAM_LENGTH, 0)
    machine.expect_recovery()


@pytest.mark.parametrize(
    ("memory", "rows"),
    [
        (Memory.WEIGHT, CONFIG.weight_depth),
        (Memory.ACT, CONFIG.act_depth),
        (Memory.RESIDUAL, CONFIG.residual_depth),
        (Memory.PARAM, CONFIG.param_depth),
        (Memory.ACTIVATION, 64),
    ],
)
def test_load_beyond_a_memory(machine, memory, rows):
    program = machine.info.program
    index = find(program, Load, memory=memory)[0]
    machine.start(changed(program, index, row=rows - command(program, index)[1].rows + 1))
    machine.expect(ErrorCode.ADDRESS_RANGE, index)
    machine.expect_recovery()


def test_unknown_memory_and_base(machine):
    index = find(machine.info.program, Load)[3]
    for field, value in (("memory", 9), ("base", 3)):
        machine.start(forged(machine.info.program, index, field, value))
        machine.expect(ErrorCode.ADDRESS_RANGE, index)
        machine.expect_recovery()


def model_error(machine, program):
    """What the command-level model says of a program: code and command."""
    bundle = machine.bundle
    model = FunctionalModel(bundle.config, bundle.data.tobytes(), machine.source, machine.info.output_bytes)
    with pytest.raises(Stopped) as caught:
        model.run(program)
    return caught.value.code, caught.value.command


@pytest.mark.parametrize(
    ("kind", "base", "change"),
    [
        (Load, Base.WEIGHTS, "offset"),
        (Load, Base.WEIGHTS, "far"),
        (Load, Base.INPUT, "offset"),
        (Store, Base.OUTPUT, "offset"),
        (Store, Base.OUTPUT, "far"),
        (Store, Base.OUTPUT, "base"),
    ],
)
def test_dram_that_is_not_the_programs(machine, kind, base, change):
    """A forged LOAD or STORE is stopped before it moves anything, on the RTL and in the command-level model."""
    program, rtl = machine.info.program, machine.rtl
    index = find(program, kind, base=base)[-1]
    rows, config = command(program, index)[1].rows, machine.bundle.config
    memory = command(program, index)[1].memory if kind is Load else Memory.RESIDUAL
    behind = machine.regions[base] - rows * config.row_bytes[memory.name] + config.axi_bytes  # by a beat
    fields = {"offset": {"offset": behind}, "far": {"offset": 0xFFFF_FF00}, "base": {"base": Base.WEIGHTS}}
    wrong = changed(program, index, **fields[change])
    rtl.dram[:] = np.random.default_rng(1).integers(0, 256, rtl.dram.size)
    machine.load()
    machine.start(wrong)
    before = rtl.dram.copy()
    machine.expect(ErrorCode.REGION, index)
    outside = np.ones(rtl.dram.size, bool)
    outside[OUTPUT : OUTPUT + machine.info.output_bytes] = False
    np.testing.assert_array_equal(rtl.dram[outside], before[outside])
    assert model_error(machine, wrong) == (ErrorCode.REGION, index)
    machine.expect_recovery()


def test_rows_that_do_not_exist_in_the_model_too(machine):
    program = machine.info.program
    index = find(program, Load)[3]
    assert model_error(machine, changed(program, index, row=65535)) == (ErrorCode.ADDRESS_RANGE, index)


@pytest.mark.parametrize("number", [0, 5, -1])
def test_read_error(machine, number):
    """The first LOAD that touches the bad bytes is named."""
    program = machine.info.program
    offset = command(program, find(program, Load, base=Base.WEIGHTS)[number])[1].offset
    index = find(program, Load, base=Base.WEIGHTS, offset=offset)[0]
    begin = WEIGHTS + offset
    machine.rtl.inject("read_error", (begin, begin + 8))
    machine.start(program)
    machine.expect(ErrorCode.READ_BUS, index)
    machine.rtl.inject("read_error", None)
    machine.expect_recovery()


def test_write_error(machine):
    index = find(machine.info.program, Store)[0]
    begin = OUTPUT + command(machine.info.program, index)[1].offset
    machine.rtl.inject("write_error", (begin, begin + 8))
    machine.start(machine.info.program)
    machine.expect(ErrorCode.WRITE_BUS, index)
    machine.rtl.inject("write_error", None)
    machine.expect_recovery()


def test_memory_that_does_not_answer(machine):
    """The watchdog names a command, and the soft reset works as soon as the bus answers again."""
    index = find(machine.info.program, Load, base=Base.WEIGHTS)[6]
    begin = WEIGHTS + command(machine.info.program, index)[1].offset
    machine.rtl.inject("hang", (begin, begin + 8))
    machine.start(machine.info.program)
    with pytest.raises(ProgramError) as caught:
        machine.rtl.finish(LIMIT)
    assert caught.value.code is ErrorCode.WATCHDOG
    assert 0 < caught.value.command < machine.info.commands
    machine.rtl.inject("hang", None)
    machine.expect_recovery()


def test_wait_that_is_never_met(machine):
    index = find(machine.info.program, MatMul)[4]
    never = waits({Engine.STORE: 60000})
    machine.start(
        rewritten(machine.info.program, index, lambda header, payload: (replace(header, waits=never), payload))
    )
    with pytest.raises(ProgramError) as caught:
        machine.rtl.finish(LIMIT)
    assert caught.value.code is ErrorCode.WATCHDOG
    machine.expect_recovery()


def test_expert_queue_overflows(seed):
    """Two gates into the same queues, which hold one layer's tokens only."""
    model = small_model(
        image_height=64,
        image_width=60,
        depth=2,
        moe_every=1,
        num_experts=2,
        top_k=2,
        dim=16,
        mlp_hidden=16,
        expert_hidden=16,
    )
    bundle = build_bundle(random_graph(model, seed), CONFIG)
    assert model.num_tokens <= CONFIG.max_tokens < 2 * model.num_tokens
    machine = Machine(bundle)
    index = find(machine.info.program, MatMul, mode=Mode.GATE, gate_first=True)[-1]
    machine.start(changed(machine.info.program, index, gate_first=False))
    with pytest.raises(ProgramError) as caught:
        machine.rtl.finish(LIMIT)
    assert caught.value.code is ErrorCode.QUEUE_OVERFLOW
    assert caught.value.command >= index
    machine.expect_recovery()
    machine.rtl.close()


@pytest.mark.parametrize("stall", [0.0, 0.3])
def test_soft_reset_at_any_time(bundle, stall, rng):
    machine = Machine(bundle, stall)
    for cycles in [1, 3, *rng.integers(10, 20_000, 8).tolist()]:
        machine.start(machine.info.program)
        machine.rtl.run(int(cycles))
        machine.expect_recovery()
    machine.rtl.close()


def test_code_and_command_are_reported(bundle):
    """What the command line prints: one message with command, code and its meaning; the next run works."""
    task = bundle.task(TASK)
    index = find(task.program, Load)[7]
    broken = changed(task.program, index, row=65535)
    wrong = dataclasses.replace(bundle, tasks={**bundle.tasks, TASK: dataclasses.replace(task, program=broken)})
    image = np.zeros((12, 16, 3), np.uint8)
    with open_verified(wrong, quiet=True) as verifier:
        with pytest.raises(DeviceError, match=f"command {index}: ADDRESS_RANGE, a command's memory, base or"):
            verifier.run(image, TASK)
        other = next(name for name in bundle.tasks if name != TASK)
        np.testing.assert_array_equal(verifier.run(image, other).outputs, expect(bundle, image, other).outputs)


@pytest.mark.parametrize("place", [0x10_0000, 0xFFFF_0000])
def test_the_driver_sets_the_regions(bundle, place):
    """A bundle that was changed after its check cannot write beyond the buffer of its outputs."""
    task = bundle.task(TASK)
    index = find(task.program, Store)[0]
    forged_task = replace(task, program=changed(task.program, index, offset=place))
    wrong = replace(bundle, tasks={**bundle.tasks, TASK: forged_task})
    platform = SimPlatform(bundle.config, quiet=True)
    driver = Driver(platform, wrong, interrupt=True)
    driver.pack(0, np.zeros((12, 16, 3), np.uint8))
    before, output = platform.model.dram.copy(), driver.memory.outputs[0]
    with pytest.raises(ProgramStopped, match=f"command {index}: REGION, .* STORE head .*offset={place}") as caught:
        driver.execute(TASK, 0, 0)
    assert (caught.value.code, caught.value.command) == (ErrorCode.REGION, index)
    changes = np.flatnonzero(platform.model.dram != before) - output.physical_address
    assert ((changes >= 0) & (changes < output.array.size)).all()
    driver.close()
