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


async def _feed(ctx, dut, commands, pause):
    """Give the queue its commands, with pauses."""
    for index, command in enumerate(commands):
        ctx.set(dut.commands.payload.word, _word(index, *command))
        ctx.set(dut.commands.payload.index, index)
        ctx.set(dut.commands.valid, 1)
        await ctx.tick().until(dut.commands.ready)
        ctx.set(dut.commands.valid, 0)
        while pause():
            await ctx.tick()


@pytest.mark.parametrize("busy", [0.0, 0.7])
def test_order_and_waits(busy):
    """Random waits on counters that rise at random: nothing leaves early, late by more than a cycle, or wrong."""
    rng = np.random.default_rng(int(10 * busy))
    dut = CommandQueue(layouts.Load, max_experts=EXPERTS, depth=4)
    total = 150
    commands = [
        (tuple(int(rng.integers(0, 2 + index // 2)) for _ in Engine), 0, int(rng.integers(EXPERTS)))
        for index in range(total)
    ]
    done, counts, seen = [0] * len(Engine), [0] * EXPERTS, []

    async def feed(ctx):
        await _feed(ctx, dut, commands, lambda: rng.random() < busy / 2)

    async def watch(ctx):
        met = 0  # cycles for which the oldest command's waits have been over
        for cycle in itertools.count():
            waits, _, expert = commands[len(seen)]
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
            ready = valid and rng.random() >= busy
            ctx.set(dut.output.ready, int(ready))
            ctx.set(dut.finished, int(ready))
            if ready:
                seen.append(expert)
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
                ctx.set(dut.all_done[engine], done[engine])
            await ctx.tick()
            assert cycle < 100 * total

    simulate(dut, feed, watch)
    assert len(seen) == total


@pytest.mark.parametrize("predicated", [0.2, 0.9])
@pytest.mark.parametrize("latency", [0, 3, 60])
def test_skipped_commands_count_in_order(predicated, latency):
    """The engine takes several commands and finishes them later; those that it never sees count between them."""
    rng = np.random.default_rng(latency + int(100 * predicated))
    dut = CommandQueue(layouts.Load, max_experts=EXPERTS, depth=4)
    counts = [0, 5, 0, 1, 2047]
    own, other = Engine.LOAD, Engine.STORE
    total = 300
    commands = []
    for index in range(total):
        waits = [0] * len(Engine)
        waits[own] = int(rng.integers(0, index + 1)) if rng.random() < 0.1 else 0
        waits[other] = index // 10 if rng.random() < 0.1 else 0
        commands.append((tuple(waits), int(rng.random() < predicated), int(rng.integers(EXPERTS))))
    skipped = [bool(flag) and counts[expert] == 0 for _, flag, expert in commands]
    taken, finished = [], list(skipped)

    async def feed(ctx):
        for expert, count in enumerate(counts):
            ctx.set(dut.expert_counts[expert], count)
        await _feed(ctx, dut, commands, lambda: rng.random() < 0.2)

    async def engine(ctx):
        working: list[tuple[int, int]] = []  # command and the cycle in which it ends
        expected = (index for index, skip in enumerate(skipped) if not skip)
        done = others = still = 0
        for cycle in itertools.count():
            count = ctx.get(dut.done)
            assert done <= count <= done + 1, "a count is lost, or two are counted at once"
            still = still + 1 if count == done else 0
            done = count
            ctx.set(dut.all_done[own], done)
            assert all(finished[:done]), "a command counts before one in front of it has finished"
            if done == total:
                break
            others += rng.random() < 0.05
            ctx.set(dut.all_done[other], others)
            valid, ready = ctx.get(dut.output.valid), rng.random() < 0.8 and len(working) < 16
            ctx.set(dut.output.ready, int(ready))
            if valid and ready:
                index = ctx.get(dut.output.payload.index)
                assert index == next(expected)
                assert all(count >= wait for count, wait in zip((done, 0, 0, others), commands[index][0], strict=True))
                taken.append(index)
                working.append((index, cycle + int(rng.integers(0, latency + 1))))
            ends = bool(working) and working[0][1] <= cycle
            ctx.set(dut.finished, int(ends))
            if ends:
                finished_index = working.pop(0)[0]
            await ctx.tick()
            if ends:
                finished[finished_index] = True
            assert still < 5000

    simulate(dut, feed, engine)
    assert taken == [index for index, skip in enumerate(skipped) if not skip] and any(skipped)
