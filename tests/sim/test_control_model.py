"""The bus side on the C++ DRAM model: data, throughput and order, with and without random stalls."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from edgemoe_hw.spec.config import AcceleratorConfig
from edgemoe_hw.spec.isa import Base, Engine, Header, LayerNorm, Load, MatMul, Memory, Store
from edgemoe_hw.spec.memories import memory_depths, slice_beats
from edgemoe_hw.spec.regs import ID
from edgemoe_sim.verilated import Stop, VerilatedModel
from support.control_bench import (
    SMALL,
    SMALL_FOUR,
    SMALL_WIDE,
    Command,
    assemble,
    loaded,
    stored,
)
from support.control_programs import (
    INPUT,
    LIMIT,
    OUTPUT,
    WEIGHTS,
    after,
    execute,
    load,
    make,
    memory_slices,
    start,
    store,
)

CONFIGS = [pytest.param(config, id=config.name) for config in (SMALL, SMALL_WIDE, SMALL_FOUR)]
STALLS = [0.0, 0.3]


@pytest.fixture
def small() -> Iterator[VerilatedModel]:
    with make(SMALL) as model:
        yield model


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
