"""The operand path: products, exponentials and their sums, whatever the shape and however long the rows are."""

import random
from collections.abc import Iterable

import pytest
from amaranth.lib import data

from edgemoe_hw.engines.matmul.operands import OperandPath
from edgemoe_hw.engines.matmul.records import StepMeta
from edgemoe_hw.spec.config import AcceleratorConfig
from edgemoe_hw.spec.constants import accumulator_bits
from edgemoe_hw.spec.timing import operand_path
from support.amaranth_bench import simulate
from support.operand_cases import READ_CYCLES, Memories, Step

CONFIGS = {
    "small": AcceleratorConfig(),
    "long": AcceleratorConfig(lanes_k=32, lanes_n=4, epilogue_lanes=4, norm_lanes=2, max_tokens=1024),
    "no square": AcceleratorConfig(lanes_k=16, lanes_n=12, epilogue_lanes=4, norm_lanes=2, dsp_chain=4),
    "no chain": AcceleratorConfig(lanes_k=8, lanes_n=4, epilogue_lanes=4, norm_lanes=2, dsp_chain=1),
    "rows of 64": AcceleratorConfig(lanes_k=64, lanes_n=4, epilogue_lanes=4, norm_lanes=2, dsp_chain=4),
}


async def run(ctx, dut: OperandPath, memories: Memories, steps: Iterable[Step], rng: random.Random, gap: float) -> int:
    """Issue the steps, with others that are none between them; compares every tile and returns how many came."""
    bits = accumulator_bits(memories.config.max_tokens)
    lanes = memories.config.lanes_n
    pending, expected = list(steps), []
    rows = {name: [0] * cycles for name, cycles in READ_CYCLES.items()}  # asked for, the oldest first
    latency = operand_path(memories.config)
    found, announced, drain = 0, None, latency + 2
    while pending or drain:
        if announced is not None:  # the result is there in this cycle
            word = ctx.get(dut.tiles.result.as_value())
            fields = [word >> bits * lane & (1 << bits) - 1 for lane in range(lanes)]
            assert [field - (field >> bits - 1 << bits) for field in fields] == announced.result, announced.fields
            if announced.scale is not None:
                assert ctx.get(dut.tiles.softmax.as_value()) == announced.scale, announced.fields
            announced = None
        for age, tile in expected:
            assert age <= latency, tile.fields
        if ctx.get(dut.tiles.valid):
            age, announced = expected.pop(0)
            assert age == latency and ctx.get(dut.tiles.meta.as_value()) == announced.meta
            found += 1
        expected = [(age + 1, tile) for age, tile in expected]
        if pending and rng.random() >= gap:
            step = pending.pop(0)
            ctx.set(dut.step.as_value(), step.word)
            if step.result is not None:
                expected.append((1, step))
        else:
            ctx.set(dut.step.as_value(), rng.getrandbits(data.Layout.cast(StepMeta).size) & ~1)
            drain -= not pending
        for name, asked in rows.items():
            ctx.set(getattr(dut, name).data, memories.reply(name, asked.pop(0)))
            asked.append(ctx.get(getattr(dut, name).row))
        await ctx.tick()
    assert not expected
    return found


@pytest.mark.parametrize("gap", [0.0, 0.4])
@pytest.mark.parametrize("name", CONFIGS)
def test_tiles_of_random_tokens(name: str, gap: float) -> None:
    memories, rng = Memories(CONFIGS[name], 7), random.Random(f"{name} {gap}")
    dut = OperandPath(CONFIGS[name])
    steps = [step for number in range(40) for step in memories.token(number)]

    async def testbench(ctx) -> None:
        assert await run(ctx, dut, memories, steps, rng, gap) == sum(step.result is not None for step in steps)

    simulate(dut, testbench)
    names = ("source", "unsigned", "nibbles", "softmax")
    assert len({tuple(step.fields[name] for name in names) for step in steps}) == 8  # all that there are


@pytest.mark.parametrize("keys", [1, 257, 258, 514, 515, 518, 519, 577, 1023, 1024])
def test_rows_of_equal_scores(keys: int) -> None:
    """The sum of the exponentials and the products reach their limits at 1024 keys."""
    config = CONFIGS["long"]
    memories, rng = Memories(config, keys), random.Random(keys)
    memories.flatten(-1234)
    dut = OperandPath(config)
    k_steps = -(-keys // config.lanes_k)
    common = {"source": 1, "unsigned": 1, "nibbles": 0, "softmax": 1, "score_shift": 0, "keys": keys}
    steps = memories.steps(keys, k_steps, 2, **common)
    assert steps[-1].result == [-127 * 255 * keys, 127 * 255 * keys] * 2

    async def testbench(ctx) -> None:
        assert await run(ctx, dut, memories, steps, rng, 0.1) == 2

    simulate(dut, testbench)
