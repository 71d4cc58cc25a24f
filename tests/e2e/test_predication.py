"""Predicated commands of every engine: the RTL and the command-level model do the same, whether experts have tokens."""

import math
from dataclasses import replace

import numpy as np
import pytest

from edgemoe.compiler.commands import Command, HazardTracker
from edgemoe_hw.spec.config import ISA_VERSION, PRESETS
from edgemoe_hw.spec.isa import (
    Base,
    Begin,
    End,
    Engine,
    EnginePayload,
    Header,
    LayerNorm,
    Load,
    MatMul,
    Memory,
    Mode,
    Store,
    encode,
    waits,
)
from edgemoe_hw.spec.timing import gate_interval
from edgemoe_sim.command_model import POLICIES, FunctionalModel
from edgemoe_sim.pads import RtlPads
from edgemoe_sim.verilated import VerilatedModel

CONFIG = PRESETS["tiny"]
PROGRAM, WEIGHTS, INPUT, OUTPUT = 0x0, 0x2_0000, 0x4_0000, 0x5_0000
OUTPUT_BYTES, OBJECT_BYTES = 0x1000, 0x1000
TOKENS, EXPERTS = 4, 8
DIM = 16
ROWS = {Memory.WEIGHT: 24, Memory.ACT: 48, Memory.RESIDUAL: 48, Memory.PARAM: 6, Memory.NORM: 16, Memory.ACTIVATION: 64}


def dram(rng: np.random.Generator) -> bytes:
    """One object a memory, ``OBJECT_BYTES`` apart: numbers that the memory may hold."""
    params = np.zeros(OBJECT_BYTES // 8, [("bias", "<i4"), ("multiplier", "<u2"), ("shift", "u1"), ("pad", "u1")])
    params["bias"] = rng.integers(-500, 500, len(params))
    params["multiplier"] = rng.integers(20000, 50000, len(params))
    params["shift"] = 20
    norm = np.zeros(OBJECT_BYTES // 8, [("gamma", "<i2"), ("pad", "<u2"), ("beta", "<i4")])
    norm["gamma"] = rng.integers(200, 1200, len(norm))
    norm["beta"] = rng.integers(-9000, 9000, len(norm))
    objects = {
        Memory.WEIGHT: rng.integers(-40, 41, OBJECT_BYTES).astype(np.int8),
        Memory.ACT: rng.integers(-127, 128, OBJECT_BYTES).astype(np.int8),
        Memory.RESIDUAL: rng.integers(-30000, 30001, OBJECT_BYTES // 2).astype("<i2"),
        Memory.PARAM: params,
        Memory.NORM: norm,
        Memory.ACTIVATION: rng.integers(0, 60, OBJECT_BYTES).astype(np.uint8),
    }
    return b"".join(objects[memory].tobytes() for memory in Memory)


def load(rng: np.random.Generator, memory: Memory, rows: int | None = None) -> Load:
    """A LOAD of the rows that are used, or of some of them."""
    count = ROWS[memory] if rows is None else rows
    size = CONFIG.row_bytes[memory.name]
    first = 0 if rows is None else int(rng.integers(OBJECT_BYTES // size - count + 1))
    row = 0 if rows is None else int(rng.integers(ROWS[memory] - count + 1))
    return Load(memory=memory, offset=OBJECT_BYTES * memory + first * size, row=row, rows=count)


def gate(rng: np.random.Generator) -> MatMul:
    """Logits of all experts for ``TOKENS`` tokens: some queues stay empty."""
    return MatMul(
        k_steps=DIM // CONFIG.lanes_k,
        tiles=1,
        tokens=TOKENS,
        channels=EXPERTS,
        mode=Mode.GATE,
        src_stride=2,
        weight_base=int(rng.integers(ROWS[Memory.WEIGHT] - 2)),
        min_gap=max(CONFIG.epilogue_cycles, gate_interval(CONFIG, EXPERTS, 1)),
        num_experts=EXPERTS,
        top_k=1,
        gate_first=True,
    )


def random_payload(rng: np.random.Generator) -> EnginePayload:
    """A command on the rows that are used."""
    kind = rng.integers(5)
    if kind == 0:
        memory = Memory(int(rng.integers(len(Memory))))
        return load(rng, memory, int(rng.integers(0, 4)))
    if kind == 1:
        rows = int(rng.integers(0, 6))
        offset = 16 * int(rng.integers(OUTPUT_BYTES // 16 - rows))
        return Store(base=Base.OUTPUT, offset=offset, row=int(rng.integers(ROWS[Memory.RESIDUAL] - rows)), rows=rows)
    if kind == 2:
        tokens, log2_dim = int(rng.integers(1, 4)), int(math.log2(DIM))
        return LayerNorm(
            src_base=int(rng.integers(40)),
            src_stride=2,
            src_rows=2,
            tokens=tokens,
            dst_base=int(rng.integers(40)),
            dst_stride=2,
            param_base=int(rng.integers(8)),
            dim=DIM,
            log2_dim=log2_dim,
            inv_dim=1 << 16,
            eps=1000,
            shift=13,
        )
    residual, queued = bool(rng.integers(2)), bool(rng.integers(2))
    return MatMul(
        use_queue=queued,
        gather=queued and bool(rng.integers(2)),
        scatter=queued and bool(rng.integers(2)),
        src_base=int(rng.integers(32)),
        src_stride=2,
        k_steps=2,
        weight_base=int(rng.integers(20)),
        tiles=1,
        tokens=TOKENS,
        min_gap=1,
        mode=Mode.RESIDUAL if residual else Mode.ACT,
        channels=8,
        dst_base=int(rng.integers(32)),
        dst_stride=2,
        param_base=int(rng.integers(5)),
        accumulate=residual and bool(rng.integers(2)),
    )


def random_commands(rng: np.random.Generator, count: int) -> list[Command]:
    """Everything is loaded, the queues are filled, and then half of the commands depend on an expert."""
    commands: list[Command] = []
    tracker = HazardTracker(CONFIG)

    def emit(payload: EnginePayload, expert: int | None = None) -> None:
        commands.append(Command(payload, 0, expert, "", len(commands)))
        tracker.add(commands[-1])

    for memory in Memory:
        emit(load(rng, memory))
    emit(gate(rng))
    for number in range(count):
        if number % 40 == 39:
            emit(gate(rng))
        payload = random_payload(rng)
        queued = isinstance(payload, MatMul) and payload.use_queue
        emit(payload, int(rng.integers(EXPERTS)) if queued or rng.random() < 0.5 else None)
    return commands


def assembled(commands: list[Command]) -> bytes:
    """The program in the order in which the commands were emitted.

    Every third MATMUL of a queue is not predicated: the engine itself finds that it has nothing to do.
    """
    begin = Begin(isa_version=ISA_VERSION, config_hash=CONFIG.hash32, commands=len(commands) + 2)
    end = waits({engine: sum(command.engine == engine for command in commands) for engine in Engine})
    words = []
    for command in commands:
        header = command.header()
        if isinstance(command.payload, MatMul) and command.payload.use_queue and command.index % 3 == 0:
            header = replace(header, predicated=False)
        words.append(encode(command.payload, header))
    return encode(begin) + b"".join(words) + encode(End(), Header(waits=end))


@pytest.fixture(scope="module")
def rtl():
    with VerilatedModel(CONFIG, dram_bytes=0x8_0000, quiet=True) as model:
        yield model


def execute(rtl: VerilatedModel, program: bytes, data: bytes) -> np.ndarray:
    """Run a program on the RTL; returns the bytes at OUTPUT."""
    rtl.dram[:] = 0
    for address, content in ((PROGRAM, program), (WEIGHTS, data)):
        rtl.dram[address : address + len(content)] = np.frombuffer(content, np.uint8)
    rtl.start(PROGRAM, len(program) // 64, weights=WEIGHTS, input=INPUT, output=OUTPUT, watchdog=20_000)
    rtl.finish(2_000_000)
    return rtl.dram[OUTPUT : OUTPUT + OUTPUT_BYTES]


MEMORIES = ("weight", "act", "residual")


def modelled(commands: list[Command], data: bytes, before: RtlPads, policy: str, seed: int) -> FunctionalModel:
    """The command-level model after the program; its scratchpads hold first what the RTL's hold."""
    model = FunctionalModel(CONFIG, data, bytes(64), OUTPUT_BYTES, POLICIES[policy], seed)
    for name in MEMORIES:
        getattr(model.pads, name)[:] = getattr(before, name)
    model.run(assembled(commands))
    return model


@pytest.mark.parametrize("number", range(6))
def test_random_programs(rtl, number, rng, seed):
    commands = random_commands(rng, 150)
    data, before = dram(rng), RtlPads(rtl)
    for name in MEMORIES:
        getattr(before, name)  # fetched now
    output = execute(rtl, assembled(commands), data)
    assert rtl.done() == {engine.name: sum(c.engine == engine for c in commands) for engine in Engine}
    assert rtl.read_reg("COMMANDS_DONE") == len(commands)
    after = RtlPads(rtl)
    for policy in POLICIES:
        model = modelled(commands, data, before, policy, seed % 1000)
        for name in MEMORIES:
            np.testing.assert_array_equal(getattr(after, name), getattr(model.pads, name), err_msg=f"{policy}: {name}")
        np.testing.assert_array_equal(output, model.output, err_msg=policy)
        assert rtl.read_reg("BYTES_READ") == model.bytes_read + 64 * (len(commands) + 2)
    counts = [rtl.read_reg("EXPERT_COUNT", expert) for expert in range(EXPERTS)]
    assert counts == [len(tokens) for tokens, _ in model.pads.queues[:EXPERTS]] and 0 in counts and any(counts)
    assert {command.engine for command in commands if command.expert is not None} == set(Engine)


@pytest.mark.parametrize("opcode", [Load, MatMul, LayerNorm, Store])
def test_an_empty_queue_leaves_everything_alone(rtl, opcode, rng):
    """The same command with and without the predicate; no gate has run, so every queue is empty."""
    data = dram(rng)
    payloads = {
        Load: Load(memory=Memory.ACT, offset=OBJECT_BYTES * Memory.ACT + 64, row=0, rows=4),
        MatMul: MatMul(src_stride=2, k_steps=2, tiles=1, tokens=3, min_gap=1, channels=8, dst_stride=2),
        LayerNorm: LayerNorm(
            src_stride=2, src_rows=2, tokens=3, dst_stride=2, dim=DIM, log2_dim=4, inv_dim=1 << 16, eps=1000, shift=13
        ),
        Store: Store(base=Base.OUTPUT, rows=4),
    }
    results = []
    for expert in (3, None):
        tracker, commands = HazardTracker(CONFIG), []
        for payload, owner in [*((load(rng, memory), None) for memory in Memory), (payloads[opcode], expert)]:
            commands.append(Command(payload, 0, owner, "", len(commands)))
            tracker.add(commands[-1])
        output = execute(rtl, assembled(commands), data).copy()
        results.append((output, RtlPads(rtl).act.copy()))
        assert sum(rtl.done().values()) == len(commands)
    loaded = np.frombuffer(data, np.uint8)[OBJECT_BYTES * Memory.ACT :][: 8 * ROWS[Memory.ACT]].reshape(-1, 8)
    np.testing.assert_array_equal(results[0][1][: len(loaded)], loaded)
    assert not results[0][0].any()
    assert any((with_, without)[0].tobytes() != without.tobytes() for with_, without in zip(*results, strict=True))
