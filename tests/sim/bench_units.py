"""cocotb tests of the array and the units of fixed latency in ``UnitBench`` against the formulas of ``golden``.

Run by test_units_cocotb.py.
"""

import random

import cocotb
import numpy as np

from edgemoe_hw.engines.matmul.activation import Activation
from edgemoe_hw.engines.matmul.requantize import Requantizer, ValueBits
from edgemoe_hw.engines.matmul.softmax import Exp2Lanes, Reciprocal
from edgemoe_hw.spec.constants import ACTIVATION_ENTRIES, MAX_SHIFT
from edgemoe_hw.spec.timing import mac_array as mac_array_cycles
from support import golden
from support.cocotb_unit import Unit
from support.unit_bench import LANES
from support.unit_cases import VALUE_BITS, requantize_vectors, requantized

MAC_K, MAC_N = 8, 6


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
    await unit.tick(mac_array_cycles(MAC_K, 2) + 2)
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
async def activation(dut):
    """Every input and shift with a real and with a random table."""
    unit = Unit(dut, "activation")
    await unit.reset()
    for table in (golden.gelu_table(4.2 / 511), [random.randrange(256) for _ in range(ACTIVATION_ENTRIES)]):
        for row in range(ACTIVATION_ENTRIES // 8):
            unit.set(
                write_valid=1, write_row=row, write_data=int.from_bytes(bytes(table[8 * row : 8 * row + 8]), "little")
            )
            await unit.tick()
        unit.set(write_valid=0)
        largest = 2047
        vectors = [
            ([q, -q, random.randint(-largest, largest)], shift)
            for shift in range(4)
            for q in range(-largest, largest + 1, 3)
        ]
        shifts = [0] * Activation.SHIFT_DELAY  # which comes later

        def drive(vector, shifts=shifts):
            shifts.append(vector[1])
            shift = shifts[-1 - Activation.SHIFT_DELAY]
            unit.set(**{f"q{i}": q for i, q in enumerate(vector[0])}, **{f"shift{i}": shift for i in range(LANES)})

        def check(vector, table=table):
            assert [unit.get(f"y{i}", True) for i in range(LANES)] == [
                golden.activate(q, table, vector[1]) for q in vector[0]
            ], vector

        await unit.stream(vectors, drive, (Activation.LATENCY, check))


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
