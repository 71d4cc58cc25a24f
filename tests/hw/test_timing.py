# amaranth: UnusedElaboratable=no
"""What the compiler knows of the RTL's timing is what the RTL does."""

import itertools

import pytest

from edgemoe_hw.engines.compute import ComputeSide
from edgemoe_hw.engines.matmul.epilogue import Epilogue
from edgemoe_hw.engines.matmul.softmax import Reciprocal
from edgemoe_hw.spec.config import PRESETS, AcceleratorConfig
from edgemoe_hw.spec.constants import RECIPROCAL_LATENCY
from edgemoe_hw.spec.isa import MatMul, Mode
from edgemoe_hw.spec.timing import completion_cycles, mac_array, matmul_pipeline
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
            if ctx.get(dut.array_busy):
                last_step = cycle
            if ctx.get(dut.matmul_done):
                assert cycle + 1 - last_step == completion_cycles(config)  # the command queue counts it a cycle later
                return
            taken = ctx.get(dut.matmul.ready)
            await ctx.tick()
            if taken:
                ctx.set(dut.matmul.valid, 0)
            assert cycle < 200

    simulate(dut, testbench)


@pytest.mark.parametrize("preset", PRESETS)
def test_presets(preset: str) -> None:
    """docs/architecture.md: one more cycle a group."""
    config = PRESETS[preset]
    assert completion_cycles(config) == matmul_pipeline(config) + 4 + config.epilogue_cycles
    assert Epilogue.completion_delay(config) == 3


@pytest.mark.parametrize(("lanes_k", "chain", "cycles"), [(8, 1, 8), (16, 2, 9), (32, 4, 11), (64, 4, 12)])
def test_array(lanes_k: int, chain: int, cycles: int) -> None:
    """docs/architecture.md: three registers, one a position of a chain, one a level of the tree, the accumulator."""
    assert mac_array(lanes_k, chain) == cycles


def test_reciprocal() -> None:
    assert Reciprocal.LATENCY == RECIPROCAL_LATENCY
