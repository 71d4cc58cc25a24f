"""Experts that are fetched ahead of the gate, on the RTL: exact, and every byte on the bus is accounted for."""

import numpy as np
import pytest

from edgemoe.compiler import CompilerOptions, build_bundle
from edgemoe.reports.cycles import Inference, build_report, summary
from edgemoe.runtime.verify import open_verified
from edgemoe_hw.spec.config import PRESETS
from support.random_graphs import random_graph, small_model
from support.reference import expect
from support.starved import bytes_needed, fetched_ahead, random_image, starved

CONFIG, TASK = PRESETS["tiny"], "segmentation"


@pytest.mark.parametrize(
    ("prefetch", "unused", "bits"),
    [
        ("off", (0, 2, 4), 8),
        (0, (1,), 8),
        (1, (0,), 8),
        (1, (), 4),
        (2, (1, 3), 4),
        (5, (0, 2, 4), 8),
        ("auto", (4,), 4),
        ("auto", (), 8),
    ],
)
def test_experts_that_no_token_chooses(prefetch, unused, bits, check, seed):
    graph = starved(random_graph(small_model(), seed, bits), unused)
    bundle = build_bundle(graph, CONFIG, CompilerOptions(expert_prefetch=prefetch))
    image = random_image(bundle, seed)
    total, vain = bytes_needed(bundle, TASK, expect(bundle, image, TASK).trace)
    with open_verified(bundle, quiet=True) as verifier:
        result = check(verifier, image, TASK)
    report = build_report(bundle, [Inference(TASK, "random", result.stats)], {}, [result.comparison])
    assert result.stats["bytes_read"] == total + len(bundle.task(TASK).program)
    assert report["wasted_bytes"] == vain
    assert (vain > 0) == any("no token chose" in line for line in summary(report))
    if unused and prefetch in (1, 5, "auto"):
        assert vain > 0


@pytest.mark.parametrize(("size", "prefetch"), [(1, 3), (5, "auto")])
def test_waves_of_tokens(size, prefetch, seed):
    options = CompilerOptions(group_tokens=4, moe_group=size, expert_prefetch=prefetch)
    bundle = build_bundle(starved(random_graph(small_model(), seed), (0, 3)), CONFIG, options)
    assert any(fetched_ahead(bundle, TASK))
    image = random_image(bundle, seed)
    with open_verified(bundle, quiet=True) as verifier:
        result = verifier.run(image, TASK)
    np.testing.assert_array_equal(result.outputs, expect(bundle, image, TASK).outputs)
