"""What the whole-network tests share: two small accelerators and one comparison of everything with the reference."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from edgemoe.bundle import Bundle
from edgemoe.runtime.base import Result
from edgemoe.runtime.reference_device import ReferenceDevice
from edgemoe.runtime.verify import SimDevice
from edgemoe_hw.spec.config import PRESETS, AcceleratorConfig

#: Two masters, lanes that are no square and no power of two, memories just large enough, three epilogue cycles a tile.
ODD = AcceleratorConfig(
    name="odd",
    lanes_k=16,
    lanes_n=24,
    epilogue_lanes=8,
    norm_lanes=4,
    weight_depth=160,
    act_depth=768,
    residual_depth=448,
    score_depth=192,
    param_depth=96,
    max_dim=64,
    max_tokens=37,
    max_experts=16,
    axi_masters=2,
    dram_latency=45,
)
CONFIGS = {"tiny": PRESETS["tiny"], "odd": ODD}
_NEVER_STORED = {"probabilities", "gate_logits"}  # go from unit to unit, so there is nothing to read

Check = Callable[[SimDevice, Bundle, np.ndarray, str], Result]


@pytest.fixture(params=CONFIGS)
def config(request: pytest.FixtureRequest) -> AcceleratorConfig:
    return CONFIGS[request.param]


@pytest.fixture
def device(config: AcceleratorConfig) -> Iterator[SimDevice]:
    """Without stalls."""
    with SimDevice(config, quiet=True) as device:
        yield device


@pytest.fixture
def check() -> Check:
    """One inference of which every traced tensor and the outputs equal the integer reference."""
    reference = ReferenceDevice()

    def run(device: SimDevice, bundle: Bundle, image: np.ndarray, task: str) -> Result:
        expected = reference.run(bundle, image, task)
        result = device.run(bundle, image, task, expected=expected.stats["trace"])
        comparison = result.stats["comparison"]
        assert comparison.mismatches == 0, comparison.first_mismatch
        untraced = {name.rsplit(".", 1)[-1] for name in set(expected.stats["trace"]) - comparison.tensors}
        assert untraced <= _NEVER_STORED
        np.testing.assert_array_equal(result.outputs, expected.outputs)
        return result

    return run
