"""Waits between MATMULs that add to the same residual rows."""

import pytest

from edgemoe.compiler.commands import Command, HazardTracker
from edgemoe_hw.spec.config import AcceleratorConfig
from edgemoe_hw.spec.isa import Engine, MatMul, Mode
from edgemoe_hw.spec.timing import ISSUE_IDLE, RESIDUAL_SPACING

CONFIGS = {
    "one group": AcceleratorConfig(),
    "three groups": AcceleratorConfig(lanes_k=16, lanes_n=24, epilogue_lanes=8),
}


def waits(config: AcceleratorConfig, **fields: int) -> int:
    """What the second of two MATMULs waits for of its own engine."""
    tracker = HazardTracker(config)
    plain = {"mode": Mode.RESIDUAL, "tiles": 1, "tokens": 1, "k_steps": 1, "channels": config.lanes_n, "src_base": 9}
    for number, payload in enumerate((MatMul(**plain), MatMul(**(plain | {"accumulate": True} | fields)))):
        tracker.add(command := Command(payload, index=number))
    return command.waits[Engine.MATMUL]


@pytest.mark.parametrize("name", CONFIGS)
def test_a_sum_waits_for_the_row_it_adds_to_if_its_steps_do_not_take_long_enough(name: str) -> None:
    config = CONFIGS[name]
    enough = RESIDUAL_SPACING - ISSUE_IDLE + config.epilogue_cycles - 1
    assert waits(config, k_steps=enough - 1) == waits(config, k_steps=1) == 1
    assert waits(config, k_steps=enough) == 0


@pytest.mark.parametrize("name", CONFIGS)
def test_nothing_else_waits(name: str) -> None:
    config = CONFIGS[name]
    assert waits(config, accumulate=False) == 0  # writes in order
    assert waits(config, dst_base=config.epilogue_cycles) == 0  # other rows
    assert waits(config, dst_base=config.epilogue_cycles - 1) == 1  # the last group's row
