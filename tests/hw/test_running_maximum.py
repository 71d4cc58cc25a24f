# amaranth: UnusedElaboratable=no
"""Running maximum: every token's maximum once, whatever the groups' masks, values and gaps are."""

import numpy as np
import pytest

from edgemoe_hw.engines.matmul.running_maximum import RunningMaximum
from support.amaranth_bench import simulate


@pytest.mark.parametrize("lanes", [1, 2, 4, 8, 16])
def test_maxima_of_tokens(lanes):
    rng = np.random.default_rng(lanes)
    dut = RunningMaximum(lanes)
    expected, found = [], []

    async def feed(ctx):
        for token in range(40):
            values = [-2047, -1, 0, 2047, int(rng.integers(-2047, 2048))]
            scores = rng.choice(values[: int(rng.integers(1, 6))], int(rng.integers(1, 5 * lanes + 1)))
            if token % 3 == 0:
                scores = np.minimum(scores, -1)  # a masked lane must not count as 0
            expected.append((token * 50, int(scores.max())))
            groups = -(-len(scores) // lanes)
            for group in range(groups):
                part = scores[group * lanes : (group + 1) * lanes]
                ctx.set(dut.mask, (1 << len(part)) - 1)
                for lane in range(lanes):
                    ctx.set(dut.values[lane], int(part[lane]) if lane < len(part) else 2047)
                ctx.set(dut.first, group == 0)
                ctx.set(dut.last, group == groups - 1)
                ctx.set(dut.index, token * 50)
                ctx.set(dut.valid, 1)
                await ctx.tick()
                ctx.set(dut.valid, 0)
                while rng.random() < 0.3:
                    await ctx.tick()

    async def watch(ctx):
        async for _, _, valid, row, value in ctx.tick().sample(dut.write.valid, dut.write.row, dut.write.data):
            if valid:
                found.append((row, value))

    async def finish(ctx):
        await feed(ctx)
        await ctx.tick().repeat(8)

    simulate(dut, finish, background=[watch])
    assert found == expected
