"""cocotb tests of LayerNorm unit, gate and weight scratchpad in ``UnitBench``; run by test_units_cocotb.py."""

import random

import cocotb
import numpy as np

from edgemoe_hw.spec.timing import RESIDUAL_READ, WEIGHT_READ, gate_interval
from support import golden
from support.cocotb_unit import Unit
from support.unit_bench import UNITS
from support.unit_cases import NormCase, random_logits


@cocotb.test()
async def layer_norm(dut):
    """Commands of odd widths, with random stalls of both memories; every row is read once and written right."""
    unit = Unit(dut, "norm")
    await unit.reset()
    half = -(-UNITS.max_dim // UNITS.epilogue_lanes) * UNITS.epilogue_lanes // UNITS.norm_lanes
    for stalls in ((0.0, 0.0), (0.5, 0.0), (0.2, 0.7)):
        for dim, tokens in ((48, 6), (13, 5), (33, 4), (8, 9), (40, 1)):
            case = NormCase(UNITS, random.Random(random.random()), dim, tokens, random.choice((0, half)))
            await load_norm(unit, case)
            await execute_norm(unit, case, *stalls)


async def load_norm(unit: Unit, case):
    lanes, axi = UNITS.norm_lanes, UNITS.axi_bytes
    for row in range(len(case.parameters) // lanes):
        word = b"".join(
            (g & 0xFFFF).to_bytes(4, "little") + (b & 0xFFFF_FFFF).to_bytes(4, "little")
            for g, b in case.parameters[row * lanes : (row + 1) * lanes]
        )
        for beat in range(8 * lanes // axi):
            unit.set(
                loadvalid=1,
                loadrow=case.command["param_base"] + row,
                loadbeat=beat,
                loaddata=int.from_bytes(word[beat * axi : (beat + 1) * axi], "little"),
            )
            await unit.tick()
    unit.set(loadvalid=0)


async def execute_norm(unit: Unit, case, read_stall: float, write_stall: float):
    unit.set(commandvalid=1, **{f"command{field}": value for field, value in case.command.items()})
    await unit.settle()
    assert unit.get("commandready")
    await unit.tick()
    unit.set(commandvalid=0)
    written: dict[int, list[int | None]] = {}
    pending: list[int | None] = [None] * RESIDUAL_READ  # rows on their way, the next to arrive first
    reads = 0
    for _ in range(20_000):
        noise = [random.randint(-32767, 32767) for _ in range(UNITS.epilogue_lanes)]
        arrived = pending.pop(0)
        row = noise if arrived is None else case.source[arrived]  # the data is there in one cycle only
        unit.set(
            readready=random.random() >= read_stall,
            writeready=random.random() >= write_stall,
            readdata=sum((value & 0xFFFF) << 16 * i for i, value in enumerate(row)),
        )
        await unit.settle()
        accepted = bool(unit.get("readvalid") and unit.dut.norm_readready.value)
        pending.append(unit.get("readrow") if accepted else None)
        reads += accepted
        if unit.get("writevalid") and unit.dut.norm_writeready.value:
            mask, word = unit.get("writemask"), unit.get("writedata")
            target = written.setdefault(unit.get("writerow"), [None] * UNITS.lanes_k)
            for i in range(UNITS.lanes_k):
                if mask >> i & 1:
                    assert target[i] is None
                    byte = word >> 8 * i & 255
                    target[i] = byte - (byte >> 7 << 8)
        if unit.get("done"):
            assert written == case.expected and reads == len(case.source)
            await unit.tick()
            return
        await unit.tick()
    raise AssertionError("the command never ends")


@cocotb.test()
async def gate(dut):
    """Top 1 to 4 of 1 to 16 experts: spread logits, extremes and ties; empty and full queues; groups in any cycles."""
    unit = Unit(dut, "gate")
    await unit.reset()
    for experts, top_k in ((1, 1), (5, 1), (8, 2), (9, 3), (16, 4), (4, 4)):
        layers = [random_logits(random, 24, experts, spread) for spread in (3, 6000, 32767)]
        layers.append([[random.choice((-32767, 32767, 0)) for _ in range(experts)] for _ in range(24)])
        layers.append([[5] * experts for _ in range(24)])
        for logits in layers:
            await gate_layer(unit, logits, experts, top_k)


async def gate_layer(unit: Unit, logits: list[list[int]], experts: int, top_k: int):
    queues: list[list[tuple[int, int]]] = [[] for _ in range(UNITS.max_experts)]
    interval, groups = gate_interval(UNITS, experts, top_k), -(-experts // UNITS.epilogue_lanes)
    starts = sorted(random.sample(range(interval), groups))  # the same for all: first and last stay apart
    unit.set(logitsnum_experts=experts, logitstop_k=top_k)
    for token, row in enumerate(logits):
        for expert, score in golden.gate(row, top_k):
            queues[expert].append((token, score))
        for cycle in range(interval):
            unit.set(logitsvalid=cycle in starts, logitsclear=token == 0 and cycle == 0)
            if cycle in starts:
                group = starts.index(cycle)
                lanes = [
                    row[e] if e < experts else random.randint(-32767, 32767)
                    for e in range(group * UNITS.epilogue_lanes, (group + 1) * UNITS.epilogue_lanes)
                ]
                unit.set(
                    logitsfirst=group == 0,
                    logitslast=group == groups - 1,
                    logitstoken=random.randrange(2048) if group else token,
                    logitsvalues=sum((value & 0xFFFF) << 16 * i for i, value in enumerate(lanes)),
                )
            await unit.tick()
    unit.set(logitsvalid=0, logitsclear=0)
    for _ in range(200):
        await unit.settle()
        if not unit.get("busy"):
            break
        await unit.tick()
    assert not unit.get("busy") and not unit.get("overflow") and not unit.get("overrun")
    assert [unit.get(f"counts{e}") for e in range(UNITS.max_experts)] == [len(queue) for queue in queues]
    for expert, queue in enumerate(queues):
        for index, entry in enumerate(queue):
            unit.set(queueexpert=expert, queueindex=index)
            await unit.tick()
            assert (unit.get("queuetoken"), unit.get("queuescore")) == entry, (expert, index)


@cocotb.test()
async def weight_scratchpad(dut):
    """Loads that keys and values interrupt at random; every byte of every row is right afterwards."""
    unit, rng = Unit(dut, "weight"), np.random.default_rng(5)
    await unit.reset()
    k, n, depth = UNITS.lanes_k, UNITS.lanes_n, UNITS.weight_depth
    model = np.zeros((depth, n, k), np.int8)
    for row in range(depth):
        content = rng.integers(-127, 128, (n, k)).astype(np.int8)
        flat = content.tobytes()
        beat = 0
        while beat < n * k // UNITS.axi_bytes:
            loading, writing = random.random() < 0.8, random.random() < 0.3
            unit.set(
                load_0valid=loading,
                load_0row=row,
                load_0beat=beat,
                kvvalid=writing,
                load_0data=int.from_bytes(flat[beat * UNITS.axi_bytes : (beat + 1) * UNITS.axi_bytes], "little"),
            )
            if writing:
                write_stationary(unit, model, rng)
            await unit.settle()
            assert unit.get("load_0ready") == (not writing)  # keys and values come first
            if loading and not writing:
                model[row].reshape(-1)[beat * UNITS.axi_bytes : (beat + 1) * UNITS.axi_bytes] = np.frombuffer(
                    flat, np.int8
                )[beat * UNITS.axi_bytes : (beat + 1) * UNITS.axi_bytes]
                beat += 1
            await unit.tick()
    unit.set(load_0valid=0, kvvalid=0)
    for row in range(depth):
        unit.set(readrow=row)
        await unit.tick(WEIGHT_READ)
        found = np.frombuffer(unit.get("readdata").to_bytes(n * k, "little"), np.int8).reshape(n, k)
        assert np.array_equal(found, model[row]), row


def write_stationary(unit: Unit, model: np.ndarray, rng: np.random.Generator):
    """One group of a key or of a value, in the design and in ``model``."""
    k, n, e = UNITS.lanes_k, UNITS.lanes_n, UNITS.epilogue_lanes
    row, is_value, values = int(rng.integers(len(model))), bool(rng.integers(2)), rng.integers(-127, 128, e)
    if is_value:
        first, byte = int(rng.integers(n // e)) * e, int(rng.integers(k))
        banks, masked = ((1 << e) - 1) << first, 1 << byte
        model[row, first : first + e, byte] = values
    else:
        bank, part = int(rng.integers(n)), int(rng.integers(k // e)) * e
        banks, masked = 1 << bank, ((1 << e) - 1) << part
        model[row, bank, part : part + e] = values
    unit.set(
        kvrow=row,
        kvis_value=is_value,
        kvbanks=banks,
        kvbytes=masked,
        kvdata=int.from_bytes(values.astype(np.int8).tobytes(), "little"),
    )
