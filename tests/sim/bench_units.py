"""cocotb tests of the units in ``UnitBench`` against the formulas of tests/hw/golden.py; run by test_units_cocotb.py.

Values change at falling edges, so that what a rising edge sees is never in doubt.
"""

import logging
import random
from collections.abc import Callable, Sequence
from typing import Any

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, FallingEdge, Timer

from edgemoe_hw.engines.matmul.activation import TABLE_ENTRIES, Gelu
from edgemoe_hw.engines.matmul.requantize import Requantizer, ValueBits
from edgemoe_hw.engines.matmul.softmax import Exp2Lanes, Reciprocal
from edgemoe_hw.spec.constants import MAX_SHIFT
from edgemoe_hw.spec.timing import gate_interval
from support import golden
from support.unit_bench import LANES, UNITS
from support.unit_cases import VALUE_BITS, NormCase, random_logits, requantize_vectors, requantized

MAC_K, MAC_N = 8, 6


class Unit:
    """One unit's ports by the names of its members."""

    def __init__(self, dut, name: str):
        self.dut, self.name = dut, name
        for logger in ("edgemoe", "cocotb.edgemoe"):
            logging.getLogger(logger).setLevel(logging.WARNING)

    async def reset(self):
        """Start the clock, hold all of the unit's inputs at 0 and reset."""
        cocotb.start_soon(Clock(self.dut.clk, 10, unit="ns").start())
        for handle in self.dut:
            if handle._name.startswith(f"{self.name}_"):
                handle.value = 0
        self.dut.rst.value = 1
        await ClockCycles(self.dut.clk, 4)
        self.dut.rst.value = 0
        await ClockCycles(self.dut.clk, 2)
        await self.tick()

    async def tick(self, cycles: int = 1):
        for _ in range(cycles):
            await FallingEdge(self.dut.clk)

    @staticmethod
    async def settle():
        """Let the inputs of this cycle reach combinational outputs."""
        await Timer(1, "ns")

    def set(self, **values: int):
        for member, value in values.items():
            handle = getattr(self.dut, f"{self.name}_{member}")
            handle.value = int(value) & ((1 << len(handle)) - 1)

    def get(self, member: str, signed: bool = False) -> int:
        handle = getattr(self.dut, f"{self.name}_{member}")
        if len(handle) == 1:
            return int(handle.value)
        return handle.value.to_signed() if signed else handle.value.to_unsigned()

    async def stream(
        self, vectors: Sequence[Any], drive: Callable[[Any], None], *checks: tuple[int, Callable[[Any], None]]
    ):
        """Vectors in random cycles, noise of other vectors between them; each ``(latency, check)`` sees all of them."""
        due: dict[int, list[tuple[Callable[[Any], None], Any]]] = {}
        cycle = number = 0
        while number < len(vectors) or due:
            for check, vector in due.pop(cycle, ()):
                check(vector)
            if number < len(vectors) and random.random() < 0.8:
                drive(vectors[number])
                for latency, check in checks:
                    due.setdefault(cycle + latency, []).append((check, vectors[number]))
                number += 1
            else:
                drive(random.choice(vectors))
            await self.tick()
            cycle += 1


@cocotb.test()
async def mac_array(dut):
    """Tiles of 1 to 9 steps with pauses anywhere; extremes among them."""
    unit, rng = Unit(dut, "mac"), np.random.default_rng(1)
    await unit.reset()
    tiles = [
        (rng.integers(-127, 256, (steps, MAC_K)), rng.integers(-127, 128, (steps, MAC_N, MAC_K)))
        for steps in rng.integers(1, 10, 150)
    ]
    tiles += [(np.full((3, MAC_K), a), rng.choice([-127, 127, 0], (3, MAC_N, MAC_K))) for a in (255, -127, 127, 0)]
    results = []

    async def collect():
        while True:
            await unit.tick()
            if unit.get("result_valid"):
                word = unit.get("result")
                fields = [word >> 25 * lane & (1 << 25) - 1 for lane in range(MAC_N)]
                results.append([field - (field >> 24 << 25) for field in fields])

    cocotb.start_soon(collect())
    for activations, weights in tiles:
        for step, (row, stationary) in enumerate(zip(activations, weights, strict=True)):
            unit.set(
                activations=sum((int(a) & 511) << 9 * k for k, a in enumerate(row)),
                valid=1,
                first=step == 0,
                weights=int.from_bytes(stationary.astype(np.int8).tobytes(), "little"),
                last=step == len(weights) - 1,
            )
            await unit.tick()
            while random.random() < 0.3:
                unit.set(
                    valid=0,
                    first=random.random() < 0.5,
                    last=random.random() < 0.5,
                    weights=random.getrandbits(8 * MAC_K * MAC_N),
                )
                await unit.tick()
    unit.set(valid=0)
    await unit.tick(10)
    assert np.array_equal(results, [np.einsum("sk,snk->n", a, w) for a, w in tiles])


@cocotb.test()
async def requantizer(dut):
    unit = Unit(dut, "requantize")
    await unit.reset()
    vectors = []
    for vector in requantize_vectors(1500, 3):
        others = [
            dict(vector, shift=random.randrange(MAX_SHIFT + 1)),
            dict(vector, acc=-vector["acc"], bias=-vector["bias"]),
        ]
        vectors.append((random.choice(list(ValueBits)), [vector, *others][:LANES]))

    def drive(group):
        bits, values = group
        unit.set(bits=bits.value, row=values[0]["row"], row_shift=values[0]["row_shift"])
        for i, value in enumerate(values):
            unit.set(**{f"{field}{i}": value[field] for field in ("acc", "bias", "multiplier", "shift")})

    def check(group):
        bits, values = group
        for i, value in enumerate(values):
            assert unit.get(f"value{i}", True) == requantized(value, VALUE_BITS[bits]), value

    await unit.stream(vectors, drive, (Requantizer.LATENCY, check))


@cocotb.test()
async def gelu(dut):
    """Every input and shift with a real and with a random table."""
    unit = Unit(dut, "gelu")
    await unit.reset()
    for table in (golden.gelu_table(4.2 / 511), [random.randrange(256) for _ in range(TABLE_ENTRIES)]):
        for row in range(TABLE_ENTRIES // 8):
            unit.set(
                write_valid=1, write_row=row, write_data=int.from_bytes(bytes(table[8 * row : 8 * row + 8]), "little")
            )
            await unit.tick()
        unit.set(write_valid=0)
        vectors = [([q, -q, random.randint(-1023, 1023)], shift) for shift in range(4) for q in range(-1023, 1024, 3)]

        def drive(vector):
            unit.set(shift=vector[1], **{f"q{i}": q for i, q in enumerate(vector[0])})

        def check(vector, table=table):
            assert [unit.get(f"y{i}", True) for i in range(LANES)] == [
                golden.gelu(q, table, vector[1]) for q in vector[0]
            ], vector

        await unit.stream(vectors, drive, (Gelu.LATENCY, check))


@cocotb.test()
async def exponentials(dut):
    unit = Unit(dut, "exp2")
    await unit.reset()
    vectors = []
    for _ in range(1500):
        maximum, shift = random.choice((2047, -2000, 0, random.randint(-2000, 2047))), random.randrange(4)
        low = max(-2047, maximum - random.choice((0, 40, 600, 4094)))
        vectors.append(
            (
                [random.randint(low, maximum) for _ in range(LANES)],
                maximum,
                shift,
                random.choice((7, 7, random.randrange(8))),
            )
        )

    def want(vector):
        scores, maximum, shift, mask = vector
        return [golden.probability(s, maximum, shift) if mask >> i & 1 else 0 for i, s in enumerate(scores)]

    def drive(vector):
        scores, maximum, shift, mask = vector
        unit.set(maximum=maximum, score_shift=shift, mask=mask, **{f"score{i}": s for i, s in enumerate(scores)})

    def check(vector):
        assert [unit.get(f"p{i}") for i in range(LANES)] == want(vector), vector

    def check_total(vector):
        assert unit.get("total") == sum(want(vector)), vector

    await unit.stream(vectors, drive, (Exp2Lanes.LATENCY, check), (Exp2Lanes.TOTAL_LATENCY, check_total))


@cocotb.test()
async def reciprocal(dut):
    unit = Unit(dut, "reciprocal")
    await unit.reset()
    vectors = [
        *range(1, 300),
        *((1 << b) + d for b in range(1, 18) for d in (-1, 0, 1)),
        (1 << 18) - 1,
        *(random.randrange(1, 1 << random.randrange(1, 19)) for _ in range(1500)),
    ]

    def check(n):
        assert (unit.get("row"), unit.get("shift")) == golden.reciprocal(n), n

    await unit.stream(vectors, lambda n: unit.set(n=n), (Reciprocal.LATENCY, check))


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
                param_write_valid=1,
                param_write_row=case.command["param_base"] + row,
                param_write_beat=beat,
                param_write_data=int.from_bytes(word[beat * axi : (beat + 1) * axi], "little"),
            )
            await unit.tick()
    unit.set(param_write_valid=0)


async def execute_norm(unit: Unit, case, read_stall: float, write_stall: float):
    unit.set(commandvalid=1, **{f"command{field}": value for field, value in case.command.items()})
    await unit.settle()
    assert unit.get("commandready")
    await unit.tick()
    unit.set(commandvalid=0)
    written: dict[int, list[int | None]] = {}
    requested, reads = None, 0
    for _ in range(20_000):
        noise = [random.randint(-32767, 32767) for _ in range(UNITS.epilogue_lanes)]
        row = noise if requested is None else case.source[requested]  # the data is there in one cycle only
        unit.set(
            read_ready=random.random() >= read_stall,
            write_ready=random.random() >= write_stall,
            **{f"read_data{i}": value for i, value in enumerate(row)},
        )
        await unit.settle()
        requested = None
        if unit.get("read_valid") and unit.dut.norm_read_ready.value:
            requested, reads = unit.get("read_row"), reads + 1
        if unit.get("write_valid") and unit.dut.norm_write_ready.value:
            mask, word = unit.get("write_mask"), unit.get("write_data")
            target = written.setdefault(unit.get("write_row"), [None] * UNITS.lanes_k)
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
    unit.set(num_experts=experts, top_k=top_k)
    for token, row in enumerate(logits):
        for expert, score in golden.gate(row, top_k):
            queues[expert].append((token, score))
        for cycle in range(interval):
            unit.set(logits_valid=cycle in starts, clear=token == 0 and cycle == 0)
            if cycle in starts:
                group = starts.index(cycle)
                lanes = [
                    row[e] if e < experts else random.randint(-32767, 32767)
                    for e in range(group * UNITS.epilogue_lanes, (group + 1) * UNITS.epilogue_lanes)
                ]
                unit.set(
                    first=group == 0,
                    last=group == groups - 1,
                    token=random.randrange(2048) if group else token,
                    **{f"logits{i}": value for i, value in enumerate(lanes)},
                )
            await unit.tick()
    unit.set(logits_valid=0, clear=0)
    for _ in range(200):
        await unit.settle()
        if not unit.get("busy"):
            break
        await unit.tick()
    assert not unit.get("busy") and not unit.get("overflow") and not unit.get("overrun")
    assert [unit.get(f"counts{e}") for e in range(UNITS.max_experts)] == [len(queue) for queue in queues]
    for expert, queue in enumerate(queues):
        for index, entry in enumerate(queue):
            unit.set(read_expert=expert, read_index=index)
            await unit.tick()
            assert (unit.get("read_token"), unit.get("read_score")) == entry, (expert, index)


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
                kv_valid=writing,
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
    unit.set(load_0valid=0, kv_valid=0)
    for row in range(depth):
        unit.set(read_row=row)
        await unit.tick()
        found = np.frombuffer(unit.get("read_data").to_bytes(n * k, "little"), np.int8).reshape(n, k)
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
        kv_row=row,
        kv_is_value=is_value,
        kv_banks=banks,
        kv_bytes=masked,
        kv_data=int.from_bytes(values.astype(np.int8).tobytes(), "little"),
    )
