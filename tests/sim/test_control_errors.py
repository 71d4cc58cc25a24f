"""The bus side on the C++ DRAM model: what goes wrong is named, touches nothing else, and is over afterwards."""

from collections.abc import Iterator

import numpy as np
import pytest

from edgemoe_hw.spec.isa import Base, Engine, Memory, Opcode
from edgemoe_hw.spec.memories import slice_beats
from edgemoe_hw.spec.regs import ErrorCode
from edgemoe_sim.verilated import ModelError, ProgramTimeout, VerilatedModel
from support.control_bench import (
    SMALL,
    SMALL_FOUR,
    SMALL_WIDE,
    assemble,
)
from support.control_programs import (
    DRAM_BYTES,
    LIMIT,
    OUTPUT,
    PROGRAM,
    WEIGHTS,
    after,
    execute,
    expect_error,
    expect_recovery,
    load,
    make,
    start,
    store,
)
from support.programs import forged

CONFIGS = [pytest.param(config, id=config.name) for config in (SMALL, SMALL_WIDE, SMALL_FOUR)]
STALLS = [0.0, 0.3]


@pytest.fixture
def small() -> Iterator[VerilatedModel]:
    with make(SMALL) as model:
        yield model


def test_program_errors(small):
    """Each malformed program stops with its code, and the accelerator runs the next one without a reset."""
    config = SMALL
    good = [load(Memory.ACT)] * 3
    cases = [
        (assemble(config, good, isa_version=7), None, ErrorCode.ISA_VERSION, 0),
        (assemble(config, good, config_hash=config.hash32 ^ 1), None, ErrorCode.CONFIG_HASH, 0),
        (assemble(config, good, commands=9), None, ErrorCode.PROGRAM_LENGTH, 0),
        (assemble(config, good, commands=4), 4, ErrorCode.PROGRAM_LENGTH, 3),
        (assemble(config, good, commands=1), 1, ErrorCode.PROGRAM_LENGTH, 0),
        (assemble(config, good, commands=6), 6, ErrorCode.PROGRAM_LENGTH, 4),
        (assemble(config, good)[64:], 4, ErrorCode.ILLEGAL_OPCODE, 0),
    ]
    for code in (0, 7, 15, int(Opcode.BEGIN)):
        program = assemble(config, good).copy()
        program[2 * 64] = code
        cases.append((program, None, ErrorCode.ILLEGAL_OPCODE, 2))
    cases += [
        (assemble(config, [*good, command]), None, ErrorCode.ADDRESS_RANGE, 4)
        for command in (
            load(Memory.WEIGHT, row=config.weight_depth),
            load(Memory.ACT, row=1, rows=config.act_depth),
            load(Memory.ACTIVATION, rows=512 // config.axi_bytes + 1),
            load(Memory.ACT, row=0xFFFF, rows=0xFFFF),
            store(row=config.residual_depth),
        )
    ]
    meaningless = ((load(Memory.ACT), "memory", 15), (load(Memory.ACT), "base", 3), (store(), "base", 3))
    for command, field, value in meaningless:
        program = forged(assemble(config, [*good, command]).tobytes(), 4, field, value)
        cases.append((np.frombuffer(program, np.uint8), None, ErrorCode.ADDRESS_RANGE, 4))
    for program, commands, code, index in cases:
        start(small, program, commands)
        expect_error(small, code, index)
        execute(small, good)
    expect_recovery(small)


@pytest.mark.parametrize("stall", STALLS)
@pytest.mark.parametrize("config", CONFIGS)
def test_regions(config, stall):
    """A command that leaves its region by one beat is named and moves nothing; the one that just fits runs."""
    beat, row = config.axi_bytes, 2 * config.epilogue_lanes
    part = slice_beats(config)[Memory.ACT] * beat
    far = 0x1000 * (config.load_masters("ACT") - 1)
    sizes = {Base.WEIGHTS: 0x2000, Base.INPUT: 0x400 + far, Base.OUTPUT: 8 * row}
    good = [
        load(Memory.ACT, base=Base.INPUT, rows=4, offset=0x400 - 4 * part),
        load(Memory.NORM, rows=3, offset=0x2000 - 3 * 8 * config.norm_lanes, plane_stride=0xFFFF_FF00),
        load(Memory.RESIDUAL, rows=8),
        store(after(Engine.LOAD, 3), rows=8),
        load(Memory.ACT, base=Base.OUTPUT, plane_stride=0),
    ]
    bad = [
        load(Memory.ACT, base=Base.INPUT, rows=4, offset=0x400 - 4 * part + beat),
        load(Memory.ACT, base=Base.INPUT, rows=5, offset=0x400 - 4 * part),
        load(Memory.ACTIVATION, offset=0x2000),
        load(Memory.WEIGHT, offset=0xFFFF_FF00),
        store(rows=9),
        store(rows=8, offset=beat),
        store(offset=0xFFFF_FF00),
        store(base=Base.WEIGHTS),
        store(base=Base.INPUT),
    ]
    if far:
        bad.append(load(Memory.ACT, plane_stride=0x2000))
    with make(config, 5, stall) as model:
        for command in [None, *bad]:
            program = assemble(config, [*good, *([command] if command else []), *good[:1]])
            model.dram[OUTPUT : OUTPUT + 8 * row] = 0
            before = model.dram.copy()
            start(model, program, sizes=sizes)
            if command is None:
                model.finish(LIMIT)
            else:
                expect_error(model, ErrorCode.REGION, len(good) + 1)
                model.soft_reset()  # waits for what the good commands still have on the bus
            changed = np.flatnonzero(model.dram[len(program) :] != before[len(program) :]) + len(program)
            assert ((changed >= OUTPUT) & (changed < OUTPUT + 8 * row)).all()
        expect_recovery(model)


@pytest.mark.parametrize("stall", STALLS)
@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("kind", ["read_error", "fetch_error", "write_error", "no_memory"])
def test_bus_errors(config, stall, kind):
    """The failed command is named; what was outstanding is drained; the next program is not disturbed."""
    loads = [
        load(Memory.WEIGHT, rows=16, offset=i * 0x4000, plane_stride=0x4000 // config.axi_masters) for i in range(3)
    ]
    with make(config, 3, stall) as model:
        if kind == "read_error":
            model.inject("read_error", (WEIGHTS + 0x4020, WEIGHTS + 0x4040))
            expected = ErrorCode.READ_BUS, 2
        elif kind == "fetch_error":
            model.inject("read_error", (PROGRAM, PROGRAM + 64))
            expected = ErrorCode.READ_BUS, 0
        elif kind == "write_error":
            model.inject("write_error", (OUTPUT + 0x200, OUTPUT + 0x210))
            expected = ErrorCode.WRITE_BUS, 5
        else:
            loads[2] = load(Memory.WEIGHT, offset=DRAM_BYTES)
            expected = ErrorCode.READ_BUS, 3
        start(model, assemble(config, [*loads, store(rows=5), store(rows=100), *loads]))
        expect_error(model, *expected)
        model.inject("read_error", None)
        model.inject("write_error", None)
        expect_recovery(model)


def test_watchdog_and_soft_reset_of_a_hang(small):
    """A command that waits for ever is found by the watchdog, or stopped by a soft reset."""
    start(small, assemble(SMALL, [load(Memory.ACT), store(after(Engine.MATMUL))]))
    expect_error(small, ErrorCode.WATCHDOG, 3)
    expect_recovery(small)
    start(small, assemble(SMALL, [store(after(Engine.MATMUL))]), watchdog=0)
    with pytest.raises(ProgramTimeout, match="STORE 0"):
        small.finish(20_000)
    expect_recovery(small)


def test_soft_reset_while_the_memory_does_not_answer(small):
    """Transfers stay outstanding until the memory answers; then the accelerator is back, its next reads in order."""
    small.inject("hang", (WEIGHTS, WEIGHTS + 0x1000))
    start(small, assemble(SMALL, [load(Memory.WEIGHT, rows=16)] * 3 + [store(rows=50)]), watchdog=500)
    expect_error(small, ErrorCode.WATCHDOG, 5)
    with pytest.raises(ModelError, match="not answered"):
        small.soft_reset(2000)
    small.inject("hang", None)
    expect_recovery(small)


@pytest.mark.parametrize("after", range(5, 600, 37))
def test_soft_reset_at_any_time(small, after):
    """Bursts that were announced are completed: reads are drained, writes sent without strobes."""
    start(small, assemble(SMALL, [store(rows=100), load(Memory.WEIGHT, rows=16), store(rows=100, row=50)]))
    small.run(after)
    expect_recovery(small)
