# amaranth: UnusedElaboratable=no
"""MATMULs are reported once each, in their order, and none while a gate's queues are being written."""

from edgemoe_hw.engines.matmul.completion import Completion
from support.amaranth_bench import simulate


def test_random_commands(rng):
    dut = Completion()

    async def bench(ctx):
        started = ended = reported = 0
        drained, free = 1, 0
        for cycle in range(3000):
            starts = cycle >= free and rng.random() < 0.4
            ends = ended < started and rng.random() < 0.4
            busy = rng.random() < 0.3
            ctx.set(dut.started, int(starts))
            ctx.set(dut.index, cycle)
            ctx.set(dut.ended, int(ends))
            ctx.set(dut.gate_busy, int(busy))
            done = ctx.get(dut.done)
            assert done == (ended != reported and not busy)
            assert ctx.get(dut.drained) == drained
            drained = int(started == reported and not starts)
            if starts:
                free = cycle + 2
            started, ended, reported = started + starts, ended + ends, reported + done
            await ctx.tick()
            if starts:
                assert ctx.get(dut.command) == cycle
        assert started > 500 and reported > 500

    simulate(dut, bench)
