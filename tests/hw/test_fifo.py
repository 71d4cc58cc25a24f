# amaranth: UnusedElaboratable=no
"""The FIFO of short paths: order, and its flags in every cycle."""

from collections import deque

import pytest

from edgemoe_hw.primitives.fifo import Fifo
from support.amaranth_bench import simulate


@pytest.mark.parametrize("depth", [2, 16])
def test_against_a_deque(depth, rng):
    dut = Fifo(9, depth)

    async def bench(ctx):
        entries: deque[int] = deque()
        level = 0
        for cycle in range(2000):
            busy = (0.9, 0.1)[cycle // 200 % 2]  # mostly full, mostly empty
            assert ctx.get(dut.w_rdy) == (len(entries) < depth) and ctx.get(dut.r_rdy) == bool(entries)
            assert ctx.get(dut.level) == level
            if entries:
                assert ctx.get(dut.r_data) == entries[0]
            level = len(entries)
            value, writes, reads = int(rng.integers(512)), rng.random() < busy, rng.random() < 1 - busy
            ctx.set(dut.w_data, value)
            ctx.set(dut.w_en, int(writes))
            ctx.set(dut.r_en, int(reads))
            reads = reads and bool(entries)
            if writes and len(entries) < depth:
                entries.append(value)
            if reads:
                entries.popleft()
            await ctx.tick()

    simulate(dut, bench)


def test_depth_must_be_a_power_of_two():
    with pytest.raises(ValueError):
        Fifo(1, 12)
