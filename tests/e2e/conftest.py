"""What the whole-network tests share: two small accelerators and one comparison of everything with the reference."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

from edgemoe.runtime.verify import VerifiedRun, Verifier
from edgemoe_hw.spec.config import PRESETS, AcceleratorConfig
from support.reference import expect

#: Two masters, lanes that are no square and no power of two, memories just large enough, three epilogue cycles a tile.
ODD = AcceleratorConfig(
    name="odd",
    lanes_k=16,
    lanes_n=24,
    epilogue_lanes=8,
    dsp_chain=4,
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
#: More masters than activations and residual rows have beats.
MANY_MASTERS = {
    "two of 16": dataclasses.replace(ODD, name="odd-wide", axi_bytes=16),
    "four of 16": dataclasses.replace(ODD, name="odd-four", lanes_k=32, axi_masters=4, axi_bytes=16),
}
_NEVER_STORED = {"probabilities", "gate_logits"}  # go from unit to unit, so there is nothing to read
_BY_HOST = {"norm", "normed"}  # of a head of the patches' mean, normalised

Check = Callable[[Verifier, np.ndarray, str], VerifiedRun]


@pytest.fixture(params=CONFIGS)
def config(request: pytest.FixtureRequest) -> AcceleratorConfig:
    return CONFIGS[request.param]


@pytest.fixture(params=MANY_MASTERS)
def many_masters(request: pytest.FixtureRequest) -> AcceleratorConfig:
    return MANY_MASTERS[request.param]


@pytest.fixture
def check() -> Check:
    """One inference of which every traced tensor and the outputs equal the integer reference."""

    def run(verifier: Verifier, image: np.ndarray, task: str) -> VerifiedRun:
        expected = expect(verifier.bundle, image, task)
        result = verifier.run(image, task, expected=expected.trace)
        comparison = result.comparison
        assert comparison is not None and comparison.mismatches == 0, comparison.first_mismatch
        untraced = {name.rsplit(".", 1)[-1] for name in set(expected.trace) - comparison.tensors}
        by_host = _BY_HOST if verifier.bundle.model.task(task).pool == "avg-norm" else set()
        assert untraced <= _NEVER_STORED | by_host
        np.testing.assert_array_equal(result.outputs, expected.outputs)
        return result

    return run
