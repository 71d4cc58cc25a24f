import random
from dataclasses import replace

import pytest

from edgemoe_hw.engines.matmul.gate import GateUnit
from edgemoe_hw.spec.config import AcceleratorConfig
from edgemoe_hw.spec.constants import RECIPROCAL_LATENCY
from edgemoe_hw.spec.timing import gate_interval
from support import golden
from support.amaranth_bench import simulate
from support.unit_cases import random_logits

CONFIG = AcceleratorConfig(max_tokens=24, max_experts=16, max_top_k=4)


class Bench:
    """Drives one gate unit and keeps the queues that the formulas give."""

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        self.dut = GateUnit(config)

    async def layer(self, ctx, logits, top_k, rng, *, gaps=False, first_token=0, clear=True) -> list[list]:
        """Send all tokens as fast as ``gate_interval`` allows; returns the expected additions to the queues."""
        dut, lanes = self.dut, self.config.epilogue_lanes
        num_experts = len(logits[0])
        interval = gate_interval(self.config, num_experts, top_k)
        groups = -(-num_experts // lanes)
        queues = [[] for _ in range(self.config.max_experts)]
        ctx.set(dut.logits.num_experts, num_experts)
        ctx.set(dut.logits.top_k, top_k)
        # The same pattern of gaps for every token keeps both the first and the last groups an interval apart.
        starts = sorted(rng.sample(range(interval), groups)) if gaps else list(range(groups))
        for t, row in enumerate(logits):
            for expert, score in golden.gate(row, top_k):
                queues[expert].append((first_token + t, score))
            for cycle in range(interval):
                active = cycle in starts
                ctx.set(dut.logits.valid, active)
                ctx.set(dut.logits.clear, clear and t == 0 and cycle == 0)
                if active:
                    group = starts.index(cycle)
                    ctx.set(dut.logits.first, group == 0)
                    ctx.set(dut.logits.last, group == groups - 1)
                    ctx.set(dut.logits.token, first_token + t if group == 0 else rng.randrange(2048))
                    for i in range(lanes):
                        expert = group * lanes + i
                        ctx.set(
                            dut.logits.values[i], row[expert] if expert < num_experts else rng.randint(-32767, 32767)
                        )
                    assert ctx.get(dut.busy)
                await ctx.tick()
        ctx.set(dut.logits.valid, 0)
        ctx.set(dut.logits.clear, 0)
        for _ in range(200):
            if not ctx.get(dut.busy):
                return queues
            await ctx.tick()
        raise AssertionError("busy never ends")

    async def check(self, ctx, queues) -> None:
        dut = self.dut
        assert [ctx.get(dut.counts[e]) for e in range(self.config.max_experts)] == [len(q) for q in queues]
        for expert, queue in enumerate(queues):
            for index, entry in enumerate(queue):
                ctx.set(dut.queue.expert, expert)
                ctx.set(dut.queue.index, index)
                await ctx.tick()
                assert (ctx.get(dut.queue.token), ctx.get(dut.queue.score)) == entry, (expert, index)
        assert not ctx.get(dut.overrun)


@pytest.mark.parametrize("gaps", [False, True])
@pytest.mark.parametrize(
    ("experts", "top_k"), [(1, 1), (2, 2), (3, 1), (7, 4), (8, 2), (9, 3), (16, 2), (16, 4), (4, 4)]
)
def test_queues_equal_the_formula(experts: int, top_k: int, gaps: bool) -> None:
    rng = random.Random(100 * experts + 10 * top_k + gaps)
    bench = Bench(CONFIG)
    layers = [random_logits(rng, 24, experts, spread) for spread in (3, 900, 6000, 32767)]
    layers.append([[rng.choice((-32767, 32767, 0)) for _ in range(experts)] for _ in range(24)])
    layers.append([[5] * experts for _ in range(24)])  # all tie: the lowest experts win, their queues are full

    async def testbench(ctx) -> None:
        for logits in layers:
            queues = await bench.layer(ctx, logits, top_k, rng, gaps=gaps)
            await bench.check(ctx, queues)
            assert not ctx.get(bench.dut.overflow)

    simulate(bench.dut, testbench)


@pytest.mark.parametrize(("epilogue_lanes", "max_experts"), [(16, 32), (4, 32), (8, 5), (4, 8)])
def test_other_shapes(epilogue_lanes: int, max_experts: int) -> None:
    config = replace(CONFIG, lanes_k=16, lanes_n=16, epilogue_lanes=epilogue_lanes, max_experts=max_experts)
    rng = random.Random(epilogue_lanes)
    bench = Bench(config)

    async def testbench(ctx) -> None:
        for experts in (max_experts, max_experts - 1):
            queues = await bench.layer(ctx, random_logits(rng, 20, experts, 3000), 3, rng)
            await bench.check(ctx, queues)

    simulate(bench.dut, testbench)


def test_two_commands_share_the_queues_and_overflow_is_reported() -> None:
    rng = random.Random(5)
    bench = Bench(CONFIG)
    dut = bench.dut

    async def testbench(ctx) -> None:
        a = await bench.layer(ctx, random_logits(rng, 10, 8, 2000), 2, rng)
        b = await bench.layer(ctx, random_logits(rng, 14, 8, 2000), 2, rng, first_token=10, clear=False)
        both = [x + y for x, y in zip(a, b, strict=True)]
        await bench.check(ctx, both)
        assert not ctx.get(dut.overflow)
        full = await bench.layer(ctx, [[9, 1, 0]] * 24, 1, rng)
        await bench.layer(ctx, [[9, 1, 0]], 1, rng, first_token=24, clear=False)
        assert ctx.get(dut.overflow)
        await bench.check(ctx, full)  # the entry was dropped
        one = await bench.layer(ctx, [[1, 2, 3]], 2, rng)
        await bench.check(ctx, one)
        assert not ctx.get(dut.overflow)

    simulate(dut, testbench)


def test_largest_layers() -> None:
    """1024 tokens of one expert fill its queue; 32 equal experts have the largest sum of exponentials."""
    config = replace(CONFIG, max_tokens=1024, max_experts=32)
    rng = random.Random(8)
    bench = Bench(config)

    async def testbench(ctx) -> None:
        full = await bench.layer(ctx, [[rng.randint(-9, 9)] for _ in range(1024)], 1, rng)
        await bench.check(ctx, full)
        assert not ctx.get(bench.dut.overflow)
        await bench.layer(ctx, [[0]], 1, rng, first_token=1024, clear=False)
        assert ctx.get(bench.dut.overflow)
        await bench.check(ctx, full)
        equal = await bench.layer(ctx, [[7] * 32 for _ in range(20)], 4, rng, first_token=1004)
        await bench.check(ctx, equal)

    simulate(bench.dut, testbench)


def test_overrun_is_reported() -> None:
    bench = Bench(CONFIG)
    dut = bench.dut

    async def testbench(ctx) -> None:
        ctx.set(dut.logits.num_experts, 8)
        ctx.set(dut.logits.top_k, 2)
        for field in (dut.logits.valid, dut.logits.first, dut.logits.last):
            ctx.set(field, 1)
        await ctx.tick().repeat(8)
        ctx.set(dut.logits.valid, 0)
        await ctx.tick().repeat(8)
        assert ctx.get(dut.overrun)

    simulate(dut, testbench)


def test_interval() -> None:
    assert gate_interval(CONFIG, 16, 2) == 17
    assert gate_interval(CONFIG, 1, 1) == 1 + RECIPROCAL_LATENCY
    assert gate_interval(CONFIG, 4, 4) == 4 + RECIPROCAL_LATENCY
