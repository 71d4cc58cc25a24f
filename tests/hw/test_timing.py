# amaranth: UnusedElaboratable=no
"""What the compiler knows of the RTL's timing is what the RTL does."""

import itertools
from dataclasses import replace

import pytest

from edgemoe_hw.engines.compute import ComputeSide
from edgemoe_hw.engines.matmul.epilogue import Epilogue
from edgemoe_hw.engines.matmul.softmax import Reciprocal
from edgemoe_hw.spec.config import PRESETS, AcceleratorConfig
from edgemoe_hw.spec.constants import COUNT_CYCLES, RECIPROCAL_LATENCY
from edgemoe_hw.spec.isa import Engine, MatMul, Memory, Mode
from edgemoe_hw.spec.timing import (
    ISSUE_IDLE,
    RESIDUAL_READ,
    RESIDUAL_SPACING,
    completion_cycles,
    mac_array,
    matmul_pipeline,
)
from support.amaranth_bench import simulate

SMALL = {"weight_depth": 8, "act_depth": 8, "residual_depth": 8, "score_depth": 8, "param_depth": 8, "max_dim": 8}
CONFIGS = {
    "one group": AcceleratorConfig(**SMALL),
    "three groups": AcceleratorConfig(lanes_k=16, lanes_n=24, epilogue_lanes=8, **SMALL),
    "narrow groups": AcceleratorConfig(lanes_k=8, lanes_n=12, epilogue_lanes=4, norm_lanes=2, **SMALL),
    "wide groups": AcceleratorConfig(lanes_k=32, lanes_n=32, epilogue_lanes=32, norm_lanes=4, dsp_chain=4, **SMALL),
    "no chain": AcceleratorConfig(dsp_chain=1, **SMALL),
}


@pytest.mark.parametrize("mode", [Mode.ACT, Mode.SCORE])
@pytest.mark.parametrize("name", CONFIGS)
def test_completion(name: str, mode: Mode) -> None:
    config = CONFIGS[name]
    dut = ComputeSide(config)
    channels = {"channels": config.lanes_n, "keys": config.lanes_n}
    payload = MatMul(mode=mode, k_steps=2, tiles=1, tokens=2, min_gap=config.epilogue_cycles, **channels)

    async def testbench(ctx) -> None:
        ctx.set(dut.matmul.payload.payload.as_value(), payload.pack())
        ctx.set(dut.matmul.valid, 1)
        last_step = None
        for cycle in itertools.count():
            if ctx.get(dut.status.array.busy):
                last_step = cycle
            if ctx.get(dut.status.done) >> Engine.MATMUL & 1:
                assert cycle + 1 - last_step == completion_cycles(config)  # the command queue counts it a cycle later
                return
            taken = ctx.get(dut.matmul.ready)
            await ctx.tick()
            if taken:
                ctx.set(dut.matmul.valid, 0)
            assert cycle < 200

    simulate(dut, testbench)


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("name", CONFIGS)
def test_sums_in_one_residual_row(name: str, early: bool) -> None:
    """A command adds to the row that the last group before it wrote, as soon as the compiler lets it.

    A cycle earlier it does not see what was written.
    """
    config = CONFIGS[name]
    dut = ComputeSide(config)
    steps = RESIDUAL_SPACING - ISSUE_IDLE + (config.epilogue_cycles - 1) - early
    increment, commands = 20_000, 2
    last = config.epilogue_cycles - 1
    payload = MatMul(
        mode=Mode.RESIDUAL,
        k_steps=steps,
        tiles=1,
        tokens=1,
        min_gap=config.epilogue_cycles,
        channels=config.lanes_n,
        param_uniform=True,
        accumulate=True,
    )
    wanted = [increment] * (2 * last + 1)
    wanted[last] = increment if early else 32_767

    async def testbench(ctx) -> None:
        # Parameters that make any sum 20000: bias, multiplier 2**15, shift 15. All other memories are 0.
        parameter = (increment | 1 << 15 << 32 | 15 << 48).to_bytes(8, "little")
        row = parameter * config.epilogue_lanes
        beat = dut.beats[0]
        ctx.set(beat.valid, 1)
        ctx.set(beat.payload.memory, Memory.PARAM)
        for part in range(len(row) // config.axi_bytes):
            ctx.set(beat.payload.beat, part)
            ctx.set(beat.payload.data, int.from_bytes(row[part * config.axi_bytes :][: config.axi_bytes], "little"))
            await ctx.tick().until(beat.ready)
        ctx.set(beat.valid, 0)
        ctx.set(dut.matmul.valid, 1)
        for number in range(commands):
            ctx.set(dut.matmul.payload.payload.as_value(), replace(payload, dst_base=number * last).pack())
            await ctx.tick().until(dut.matmul.ready)
        ctx.set(dut.matmul.valid, 0)
        await ctx.tick().repeat(100)
        found = []
        for number in range(len(wanted)):
            ctx.set(dut.store.row, number)
            await ctx.tick().repeat(RESIDUAL_READ)
            found.append(ctx.get(dut.store.data) & 0xFFFF)
        assert found == wanted

    simulate(dut, testbench)


@pytest.mark.parametrize("preset", PRESETS)
def test_presets(preset: str) -> None:
    """docs/architecture.md: one more cycle a group."""
    config = PRESETS[preset]
    delay = Epilogue.completion_delay(config)
    assert completion_cycles(config) == matmul_pipeline(config) + config.epilogue_cycles - 1 + delay + COUNT_CYCLES
    assert delay <= 3  # a row maximum comes no more than a cycle after the rest


@pytest.mark.parametrize(("lanes_k", "chain", "cycles"), [(8, 1, 8), (16, 2, 9), (32, 4, 11), (64, 4, 12)])
def test_array(lanes_k: int, chain: int, cycles: int) -> None:
    """docs/architecture.md: three registers, one a position of a chain, one a level of the tree, the accumulator."""
    assert mac_array(lanes_k, chain) == cycles


def test_reciprocal() -> None:
    assert Reciprocal.LATENCY == RECIPROCAL_LATENCY
