# amaranth: UnusedElaboratable=no
import random

import pytest

from edgemoe_hw.engines.matmul.activation import Activation
from edgemoe_hw.spec.constants import GELU_ENTRIES
from support import golden
from support.amaranth_bench import simulate, stream_vectors


async def load(ctx, dut, table):
    size = dut.load_bytes
    for row in range(GELU_ENTRIES // size):
        ctx.set(dut.write_valid, 1)
        ctx.set(dut.write_row, row)
        ctx.set(dut.write_data, int.from_bytes(bytes(table[row * size : (row + 1) * size]), "little"))
        await ctx.tick()
    ctx.set(dut.write_valid, 0)


@pytest.mark.parametrize(("lanes", "load_bytes"), [(2, 8), (3, 16), (1, 1)])
def test_activation_equals_the_formula(lanes: int, load_bytes: int) -> None:
    dut = Activation(lanes, load_bytes)
    rng = random.Random(lanes)
    random_table = [rng.choice((0, 1, 255, rng.randrange(256))) for _ in range(GELU_ENTRIES)]
    # Every q with every shift, then random groups. Lane i gets the value of lane 0 rotated by i * 613.
    vectors = [(q, g) for g in range(4) for q in range(-1023, 1024)]

    async def testbench(ctx) -> None:
        for table in (golden.gelu_table(4.2 / 511), random_table):
            await load(ctx, dut, table)
            for cycle in range(len(vectors) + Activation.LATENCY):
                if cycle < len(vectors):
                    for i in range(lanes):
                        ctx.set(dut.q[i], vectors[(cycle + i * 613) % 2047][0])
                    ctx.set(dut.shift, vectors[cycle][1])
                if cycle >= Activation.LATENCY:
                    index = cycle - Activation.LATENCY
                    for i in range(lanes):
                        q, g = vectors[(index + i * 613) % 2047][0], vectors[index][1]
                        assert ctx.get(dut.y[i]) == golden.gelu(q, table, g), (i, q, g)
                await ctx.tick()

    simulate(dut, testbench)


def test_ties_round_to_even() -> None:
    """With a table of zeros, 2^g * n + 2^(g-1) is a tie; with large entries the result is negative."""
    dut = Activation(1, 8)
    vectors = [(q, g) for g in (1, 2, 3) for q in range(-60, 400)]

    def drive(ctx, vector):
        ctx.set(dut.q[0], vector[0])
        ctx.set(dut.shift, vector[1])

    def check(ctx, vector):
        assert ctx.get(dut.y[0]) == golden.gelu(vector[0], [0] * 512, vector[1])

    stream_vectors(dut, Activation.LATENCY, vectors, drive, check)


def test_refusals() -> None:
    with pytest.raises(ValueError, match="lanes must be a positive integer, not 0"):
        Activation(0, 8)
    with pytest.raises(ValueError, match="load_bytes must be a power of two up to 32, not 12"):
        Activation(1, 12)
