# amaranth: UnusedElaboratable=no
"""Expert loads of every MoE block stay readable, those of an earlier program and of too many blocks do not mislead."""

import numpy as np

from edgemoe_hw.control_plane.expert_loads import ExpertLoads
from edgemoe_hw.spec.config import PRESETS
from edgemoe_hw.spec.constants import MAX_BLOCKS
from support.amaranth_bench import simulate


def test_rows_of_two_programs():
    dut = ExpertLoads(PRESETS["tiny"])
    experts = len(dut.counts)
    rng = np.random.default_rng(3)

    async def show(ctx, counts):
        for port, count in zip(dut.counts, counts, strict=True):
            ctx.set(port, int(count))

    async def pulse(ctx, port):
        ctx.set(port, 1)
        await ctx.tick()
        ctx.set(port, 0)

    async def run(ctx):
        await show(ctx, [2047] * experts)  # before the first gate: nobody's
        await ctx.tick().repeat(3)
        for blocks in (3, MAX_BLOCKS + 2, 1):
            await pulse(ctx, dut.start)
            assert ctx.get(dut.blocks) == 0
            expected = rng.integers(0, 2048, (blocks, experts))
            for number, final in enumerate(expected):
                await pulse(ctx, dut.clear)  # the counts of the block before are still there
                assert ctx.get(dut.blocks) == min(number + 1, MAX_BLOCKS)
                for counts in (np.zeros(experts), final // 2, final):
                    await show(ctx, counts)
                    await ctx.tick()
            for block in range(min(blocks, MAX_BLOCKS)):
                ctx.set(dut.block, block)
                assert [ctx.get(port) for port in dut.loads] == expected[block].tolist()

    simulate(dut, run)
