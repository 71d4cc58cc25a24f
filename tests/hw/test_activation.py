# amaranth: UnusedElaboratable=no
import random

import pytest

from edgemoe_hw.engines.matmul.activation import Activation
from edgemoe_hw.spec.constants import ACTIVATION_ENTRIES
from support import golden
from support.amaranth_bench import simulate


async def load(ctx, dut, table):
    size = dut.load_bytes
    for row in range(ACTIVATION_ENTRIES // size):
        ctx.set(dut.write_valid, 1)
        ctx.set(dut.write_row, row)
        ctx.set(dut.write_data, int.from_bytes(bytes(table[row * size : (row + 1) * size]), "little"))
        await ctx.tick()
    ctx.set(dut.write_valid, 0)


@pytest.mark.parametrize(("lanes", "load_bytes"), [(2, 8), (3, 16), (1, 1)])
def test_activation_equals_the_formula(lanes: int, load_bytes: int) -> None:
    dut = Activation(lanes, load_bytes)
    rng = random.Random(lanes)
    random_table = [rng.choice((0, 1, 255, rng.randrange(256))) for _ in range(ACTIVATION_ENTRIES)]
    # Every q with every shift. Lane i gets the value of lane 0 rotated by i * 613, and the shift i higher.
    values = range(-2047, 2048)
    vectors = [(q, g) for g in range(4) for q in values]

    def vector(index: int, lane: int) -> tuple[int, int]:
        return vectors[(index + lane * 613) % len(values)][0], (vectors[index][1] + lane) % 4

    async def testbench(ctx) -> None:
        for table in (golden.gelu_table(4.2 / 511), random_table):
            await load(ctx, dut, table)
            for cycle in range(len(vectors) + Activation.LATENCY):
                for i in range(lanes):
                    if cycle < len(vectors):
                        ctx.set(dut.q[i], vector(cycle, i)[0])
                    if 0 <= (index := cycle - Activation.SHIFT_DELAY) < len(vectors):
                        ctx.set(dut.shift[i], vector(index, i)[1])
                    if (index := cycle - Activation.LATENCY) >= 0:
                        q, g = vector(index, i)
                        assert ctx.get(dut.y[i]) == golden.activate(q, table, g), (i, q, g)
                await ctx.tick()

    simulate(dut, testbench)


@pytest.mark.parametrize("entry", [0, 1, 255])
def test_flat_tables(entry: int) -> None:
    """ReLU, with ties of every shift; with zeros the smallest value is -127, not -128, with 255 some are too large."""
    dut = Activation(1, 8)

    async def testbench(ctx) -> None:
        await load(ctx, dut, [entry] * ACTIVATION_ENTRIES)
        for shift in range(4):
            ctx.set(dut.shift[0], shift)
            for cycle, q in enumerate((*range(-60, 2048), *[0] * Activation.LATENCY)):
                ctx.set(dut.q[0], q)
                if (found := cycle - Activation.LATENCY) >= 0:
                    assert ctx.get(dut.y[0]) == golden.activate(found - 60, [entry] * 512, shift), (found - 60, shift)
                await ctx.tick()
            for _ in range(Activation.LATENCY):
                await ctx.tick()

    simulate(dut, testbench)


def test_refusals() -> None:
    with pytest.raises(ValueError, match="lanes must be a positive integer, not 0"):
        Activation(0, 8)
    with pytest.raises(ValueError, match="load_bytes must be a power of two up to 32, not 12"):
        Activation(1, 12)
