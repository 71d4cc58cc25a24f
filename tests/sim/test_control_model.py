"""The bus side on the C++ DRAM model: data, throughput, errors and recovery, with and without random stalls."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edgemoe_hw.spec.config import AcceleratorConfig
from edgemoe_hw.spec.isa import Base, Engine, Header, LayerNorm, Load, MatMul, Memory, Opcode, Store, waits
from edgemoe_hw.spec.memories import memory_depths, slice_beats
from edgemoe_hw.spec.regs import ID, ErrorCode
from edgemoe_sim.verilated import ModelError, ProgramError, ProgramTimeout, Stop, VerilatedModel
from support.control_bench import (
    SMALL,
    SMALL_WIDE,
    Command,
    assemble,
    bench_verilog,
    loaded,
    stored,
)
from support.programs import forged

DRAM_BYTES = 1 << 20
PROGRAM, WEIGHTS, INPUT, OUTPUT = 0x0, 0x1_0000, 0x6_0000, 0xC_0000
CONFIGS = [pytest.param(SMALL, id="small"), pytest.param(SMALL_WIDE, id="small-wide")]
STALLS = [0.0, 0.3]
LIMIT = 200_000


def make(config: AcceleratorConfig, seed: int = 0, stall: float = 0.0) -> VerilatedModel:
    model = VerilatedModel(config, verilog=bench_verilog(config), dram_bytes=DRAM_BYTES, stall=stall, seed=seed)
    model.dram[:] = np.random.default_rng(seed).integers(0, 256, DRAM_BYTES)
    return model


@pytest.fixture
def small() -> Iterator[VerilatedModel]:
    with make(SMALL) as model:
        yield model


def start(model: VerilatedModel, program: np.ndarray, commands: int | None = None, watchdog: int = 5000) -> None:
    model.dram[PROGRAM : PROGRAM + len(program)] = program
    model.start(
        PROGRAM,
        len(program) // 64 if commands is None else commands,
        weights=WEIGHTS,
        input=INPUT,
        output=OUTPUT,
        watchdog=watchdog,
    )


def execute(model: VerilatedModel, commands: list[Command], **begin: int) -> None:
    start(model, assemble(model.config, commands, **begin))
    model.finish(LIMIT)


def load(memory: Memory, header: Header | None = None, **fields: Any) -> Command:
    return Load(**{"memory": memory, "plane_stride": 0x1000, "rows": 1} | fields), header or Header()


def store(header: Header | None = None, **fields: Any) -> Command:
    return Store(**{"base": Base.OUTPUT, "rows": 1} | fields), header or Header()


def after(engine: Engine, count: int = 1) -> Header:
    return Header(waits=waits({engine: count}))


def memory_slices(model: VerilatedModel, memory: Memory) -> list[np.ndarray]:
    """Each master's slice: uint8[depth, beats * axi_bytes]."""
    beats = slice_beats(model.config)[memory]
    slices = []
    for master in range(model.config.load_masters(memory.name)):
        raw = model.peek(f"load_{memory.name.lower()}_m{master}")
        padded = raw.reshape(memory_depths(model.config)[memory], -1, model.config.axi_bytes)
        slices.append(padded[:, :beats].reshape(len(padded), -1))
    return slices


def expect_error(model: VerilatedModel, code: ErrorCode, command: int) -> None:
    with pytest.raises(ProgramError) as caught:
        model.finish(LIMIT)
    assert (caught.value.code, caught.value.command) == (code, command)
    assert model.read_field("STATUS", "done") == 0


def expect_recovery(model: VerilatedModel) -> None:
    """After a soft reset, a program runs to its end and moves the right data."""
    model.soft_reset()
    assert model.read_reg("STATUS") == 0 and model.read_reg("ERROR_CODE") == 0
    command = load(Memory.RESIDUAL, offset=0x800, rows=40, row=7)
    execute(model, [command, store(after(Engine.LOAD), row=7, rows=40)])
    for master, part in enumerate(memory_slices(model, Memory.RESIDUAL)):
        assert np.array_equal(part[7:47], loaded(model.config, model.dram, command[0], WEIGHTS, master))
    expected = stored(model.config, memory_slices(model, Memory.RESIDUAL), 7, 40)
    assert np.array_equal(model.dram[OUTPUT:][: len(expected)], expected)


EMPTY = 0  # the expert of the bench that has no tokens


def runs(header: Header) -> bool:
    """Whether a command does anything."""
    return not (header.predicated and header.expert == EMPTY)


def predicated(rng: np.random.Generator, command: Command) -> Command:
    """The command, or half of the time that command if an expert has tokens."""
    payload, header = command
    return payload, replace(header, predicated=bool(rng.integers(2)), expert=int(rng.integers(4)))


def random_program(config: AcceleratorConfig, rng: np.random.Generator, count: int) -> list[Command]:
    """Loads into all memories; stores of residual rows that wait for all loads before them; the other engines."""
    commands: list[Command] = []
    loads = stores = 0
    out = 0
    for _ in range(count):
        if rng.random() < 0.2:
            kind = MatMul if rng.random() < 0.5 else LayerNorm
            commands.append(predicated(rng, (kind(tokens=int(rng.integers(40))), Header())))
            continue
        if rng.random() < 0.2:
            rows = int(rng.integers(0, 60))
            row = int(rng.integers(0, config.residual_depth - rows))
            command = store(after(Engine.LOAD, loads), row=row, rows=rows, offset=out)
            commands.append(predicated(rng, command))
            out += rows * 2 * config.epilogue_lanes
            stores += 1
            continue
        memory = Memory(int(rng.integers(len(Memory))))
        depth = memory_depths(config)[memory]
        rows = int(rng.integers(0, depth + 1)) if rng.random() < 0.3 else int(rng.integers(0, 4))
        payload, _ = load(
            memory,
            rows=rows,
            row=int(rng.integers(0, depth - rows + 1)),
            base=Base(int(rng.choice([Base.WEIGHTS, Base.INPUT]))),
            offset=int(rng.integers(0, 0x1000)) * config.axi_bytes,
            plane_stride=int(rng.integers(0, 0x800)) * config.axi_bytes,
        )
        # A load must not overtake a store that still reads.
        commands.append(predicated(rng, (payload, after(Engine.STORE, stores))))
        loads += 1
    return commands


@pytest.mark.parametrize("stall", STALLS)
@pytest.mark.parametrize("config", CONFIGS)
def test_random_programs(config, stall, rng, seed):
    commands = random_program(config, rng, 120)
    with make(config, seed & 0xFFFF, stall) as model:
        before = model.dram.copy()
        execute(model, commands)
        memories = {memory: [np.zeros_like(part) for part in memory_slices(model, memory)] for memory in Memory}
        bases = {Base.WEIGHTS: WEIGHTS, Base.INPUT: INPUT}
        written = busy = 0
        program = len(commands) + 2
        read = program * 64
        for command, header in commands:
            if not runs(header):
                continue
            if isinstance(command, Load):
                for master, part in enumerate(memories[command.memory]):
                    data = loaded(config, before, command, bases[command.base], master)
                    part[command.row : command.row + command.rows] = data
                    read += data.size
            elif isinstance(command, MatMul):
                busy += command.tokens
            elif isinstance(command, Store):
                data = stored(config, memories[Memory.RESIDUAL], command.row, command.rows)
                assert np.array_equal(model.dram[OUTPUT + command.offset :][: data.size], data)
                written += data.size
        for memory, parts in memories.items():
            for part, actual in zip(parts, memory_slices(model, memory), strict=True):
                assert np.array_equal(part, actual), memory
        assert model.read_reg("BYTES_READ") == sum(model.bus_bytes()[0]) == read
        assert model.read_reg("BYTES_WRITTEN") == sum(model.bus_bytes()[1]) == written
        assert model.read_reg("ARRAY_BUSY") == busy
        assert model.read_reg("COMMANDS_DONE") == len(commands)
        for engine in Engine:
            assert model.read_reg(f"DONE_{engine.name}") == sum(payload.engine is engine for payload, _ in commands)
        causes = ["ARRAY_BUSY", *(f"STALL_{cause}" for cause in (*Engine.__members__, "EPILOGUE", "COMMAND"))]
        assert model.read_reg("CYCLES") == sum(model.read_reg(cause) for cause in causes)


@pytest.mark.parametrize("rows", [1, 16])
@pytest.mark.parametrize("config", CONFIGS)
def test_loads_saturate_the_bus(config, rows):
    """Back-to-back loads move a beat a cycle and master, whether a load is long or shorter than the latency."""
    count = 60
    commands = [load(Memory.WEIGHT, rows=rows, offset=i * 0x800) for i in range(count)]
    with make(config) as model:
        execute(model, commands)
        beats = count * rows * slice_beats(config)[Memory.WEIGHT]
        fetch = (count + 2) * 64 // config.axi_bytes  # the program comes over master 0 as well
        assert model.read_reg("CYCLES") <= beats + fetch + 3 * config.dram_latency + 40


def test_stores_saturate_the_bus(small):
    rows = 200
    execute(small, [store(rows=rows)])
    beats = rows * 2 * SMALL.epilogue_lanes // SMALL.axi_bytes
    assert small.read_reg("CYCLES") <= beats + 3 * SMALL.dram_latency + 40


def test_engines_wait_for_each_other(small):
    """The matrix product starts when its load is done; the watched counters stop the simulation in between."""
    matmul = (MatMul(tokens=100), after(Engine.LOAD))
    norm = (LayerNorm(tokens=50), after(Engine.MATMUL))
    start(small, assemble(SMALL, [load(Memory.WEIGHT, rows=16), matmul, norm, store(after(Engine.NORM))]))
    stops = []
    for engine in Engine:
        assert small.run(LIMIT, {engine.name: 1}) is Stop.WATCH
        stops.append(small.cycles)
    small.finish(LIMIT)
    load_to_matmul, matmul_to_norm, norm_to_store = np.diff(stops)
    assert 100 <= load_to_matmul <= 110 and 50 <= matmul_to_norm <= 60 and norm_to_store > 0
    assert small.read_reg("ARRAY_BUSY") == 100
    assert small.read_reg("STALL_LOAD") >= 128


def test_predicated_commands_of_empty_queues_are_skipped(small):
    """Expert 0 of the bench has no tokens: its commands count as finished and move nothing."""
    commands = []
    for expert in range(4):
        header = Header(predicated=True, expert=expert)
        commands += [
            load(Memory.ACT, header, row=expert, offset=expert * 8),
            (MatMul(tokens=10), header),
            (LayerNorm(tokens=10), header),
            store(header, offset=expert * 16),
        ]
    before = small.dram.copy()
    execute(small, commands)
    act = memory_slices(small, Memory.ACT)[0]
    assert not act[0].any()
    assert np.array_equal(act[1:4].ravel(), before[WEIGHTS + 8 : WEIGHTS + 32])
    assert np.array_equal(small.dram[OUTPUT : OUTPUT + 16], before[OUTPUT : OUTPUT + 16])
    assert small.read_reg("ARRAY_BUSY") == 30
    assert [small.read_reg("EXPERT_COUNT", e) for e in range(5)] == [0, 1, 2, 3, 0]
    assert [small.read_reg(f"DONE_{e}") for e in Engine.__members__] == [4, 4, 4, 4]


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
            load(Memory.GELU, rows=512 // config.axi_bytes + 1),
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
@pytest.mark.parametrize("kind", ["read_error", "fetch_error", "write_error", "no_memory"])
def test_bus_errors(config, stall, kind):
    """The failed command is named; what was outstanding is drained; the next program is not disturbed."""
    loads = [load(Memory.WEIGHT, rows=16, offset=i * 0x4000, plane_stride=0x2000) for i in range(3)]
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


def test_registers(small):
    assert small.read_reg("ID") == ID and small.read_reg("CONFIG_HASH") == SMALL.hash32
    small.write_reg("BASE_OUTPUT", 0xAB_1234_5678)
    assert small.read_reg("BASE_OUTPUT") == 0xAB_1234_5678
    small.write_reg("ID", 0)
    assert small.read_reg("ID") == ID
    with pytest.raises(KeyError, match="register must be one of ID, .*not 'NONE'"):
        small.read_reg("NONE")
    with pytest.raises(ValueError, match="WATCHDOG must be between 0 and"):
        small.write_reg("WATCHDOG", 1 << 32)
    with pytest.raises(KeyError, match="memory must be one of"):
        small.peek("none")
    with pytest.raises(ValueError, match="watch must name"):
        small.run(1, {"DMA": 1})


def test_interrupt_is_cleared_by_the_host(small):
    start(small, assemble(SMALL, []))
    assert small.run(LIMIT) is Stop.IRQ
    assert small.read_field("STATUS", "irq") == 1 and small.read_field("STATUS", "done") == 1
    small.write_reg("STATUS", 1 << 3)
    assert small.read_field("STATUS", "irq") == 0 and small.read_field("STATUS", "done") == 1
    assert small.run(100) is Stop.LIMIT
