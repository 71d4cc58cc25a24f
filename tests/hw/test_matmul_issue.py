# amaranth: UnusedElaboratable=no
"""Issue: every step of every command once, in order, and never faster than the epilogue drains tiles."""

import itertools

import pytest

from edgemoe_hw.engines.matmul.issue import MatMulIssue
from edgemoe_hw.spec.config import AcceleratorConfig
from support.amaranth_bench import simulate

SHAPES = [(1, 1, 1), (4, 1, 1), (1, 1, 3), (2, 2, 2), (1, 2, 1), (5, 1, 2), (1, 1, 1)]  # k_steps, tiles, tokens
NIBBLES = [(1, 2, 2), (2, 2, 2), (5, 3, 2), (4, 2, 1)]  # the same, for int4 weights


@pytest.mark.parametrize("epilogue_cycles", [1, 2, 3, 6])
def test_steps_and_spacing_of_tiles(epilogue_cycles):
    """Every command behind every other: a short one behind a long one once overran the epilogue."""
    dut = MatMulIssue(AcceleratorConfig(lanes_k=8, lanes_n=8 * epilogue_cycles, epilogue_lanes=8))
    commands = [(*shape, 0) for pair in itertools.product(SHAPES, repeat=2) for shape in pair]
    commands += [entry for shape in NIBBLES for entry in ((*shape, 1), (*shape, 0), (*shape, 1))]
    steps, ends = [], []
    total = sum(k * tiles * tokens for k, tiles, tokens, _ in commands)

    async def feed(ctx):
        ctx.set(dut.epilogue_command.ready, 1)
        for k_steps, tiles, tokens, nibbles in commands:
            payload = dut.command.payload.payload
            for name, value in (
                ("k_steps", k_steps),
                ("tiles", tiles),
                ("tokens", tokens),
                ("min_gap", epilogue_cycles),
                ("src_stride", k_steps),
                ("nibbles", nibbles),
            ):
                ctx.set(payload[name], value)
            ctx.set(dut.command.valid, 1)
            await ctx.tick().until(dut.command.ready)
        ctx.set(dut.command.valid, 0)

    async def watch(ctx):
        for cycle in itertools.count():
            _, _, step = await ctx.tick().sample(dut.step)
            if step.valid:
                steps.append(
                    (
                        int(step.source_row),
                        int(step.weight_row),
                        int(step.first),
                        int(step.last),
                        int(step.tile.last_of_command),
                        int(step.nibbles),
                    )
                )
                if step.last:
                    ends.append(cycle)
            if len(steps) == total:
                return
            assert cycle < 100 * total

    simulate(dut, feed, watch)
    assert steps == [
        (
            token * k + step,
            tile * (k + 1 >> 1) + (step >> 1) if nibbles else tile * k + step,
            step == 0,
            step == k - 1,
            (tile, token) == (tiles - 1, tokens - 1),
            nibbles,
        )
        for k, tiles, tokens, nibbles in commands
        for token in range(tokens)
        for tile in range(tiles)
        for step in range(k)
    ]
    assert min(b - a for a, b in itertools.pairwise(ends)) >= epilogue_cycles
