# amaranth: UnusedElaboratable=no
"""The queue of an engine: order, waits, predication, and the experts' counts at the time of leaving."""

import itertools

import numpy as np
import pytest

from edgemoe_hw import layouts
from edgemoe_hw.control_plane.command_queue import CommandQueue
from edgemoe_hw.spec.isa import Engine, Header, Load, encode
from support.amaranth_bench import simulate

EXPERTS = 5


def _word(index: int, waits: tuple[int, ...], predicated: int, expert: int) -> int:
    header = Header(waits=waits, predicated=bool(predicated), expert=expert)
    return int.from_bytes(encode(Load(rows=index), header), "little")


@pytest.mark.parametrize("busy", [0.0, 0.7])
def test_order_waits_and_predication(busy):
    """Random waits on counters that rise at random: nothing leaves early, late by more than a cycle, or wrong."""
    rng = np.random.default_rng(int(10 * busy))
    dut = CommandQueue(layouts.Load, max_experts=EXPERTS, depth=4)
    total = 150
    commands = [
        (
            tuple(int(rng.integers(0, 2 + index // 2)) for _ in Engine),
            int(rng.random() < 0.5),
            int(rng.integers(EXPERTS)),
        )
        for index in range(total)
    ]
    done, counts, seen = [0] * len(Engine), [0] * EXPERTS, []

    async def feed(ctx):
        for index, command in enumerate(commands):
            ctx.set(dut.commands.payload.word, _word(index, *command))
            ctx.set(dut.commands.payload.index, index)
            ctx.set(dut.commands.valid, 1)
            await ctx.tick().until(dut.commands.ready)
            ctx.set(dut.commands.valid, 0)
            while rng.random() < busy / 2:
                await ctx.tick()

    async def watch(ctx):
        met = 0  # cycles for which the oldest command's waits have been over
        for cycle in itertools.count():
            waits, predicated, expert = commands[len(seen)]
            over = all(done[engine] >= waits[engine] for engine in Engine)
            valid, blocked = ctx.get(dut.output.valid), ctx.get(dut.blocked)
            late = [engine for engine in Engine if done[engine] < waits[engine]]
            if blocked:
                assert not valid and not ctx.get(dut.empty)
                assert [engine for engine in Engine if blocked >> engine & 1] == late
            assert not (valid and late), "left although its waits are not over"
            if valid:
                output = dut.output.payload
                assert ctx.get(output.index) == ctx.get(output.payload.rows) == len(seen)
                assert ctx.get(output.header.expert) == expert
                assert ctx.get(output.tokens) == counts[expert]
                assert ctx.get(output.skip) == (predicated and counts[expert] == 0)
            ready = valid and rng.random() >= busy
            ctx.set(dut.output.ready, int(ready))
            if ready:
                seen.append(ctx.get(output.skip))
            met = 0 if ready or not over else met + 1
            if not busy and met > 8:  # FIFO, head, output and the feed's own cycles
                raise AssertionError(f"command {len(seen)} does not leave")
            if len(seen) == total:
                return
            if blocked:  # counts change only then, as in programs, where a command waits for its gate
                changing = int(rng.integers(EXPERTS))
                counts[changing] = int(rng.integers(0, 2)) * int(rng.integers(1, 2048))
                ctx.set(dut.expert_counts[changing], counts[changing])
            if rng.random() < 0.6:
                engine = int(rng.integers(len(Engine)))
                done[engine] += int(rng.integers(0, 3))
                ctx.set(dut.done[engine], done[engine])
            await ctx.tick()
            assert cycle < 100 * total

    simulate(dut, feed, watch)
    assert len(seen) == total
    assert set(seen) == {0, 1}
