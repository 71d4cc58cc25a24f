"""Programs of several token sequences on the Verilated RTL: every tensor, with and without stalls of the bus."""

import dataclasses

import numpy as np
import pytest

from edgemoe.bundle import Joined
from edgemoe.compiler import build_bundle
from edgemoe.runtime.verify import open_verified
from edgemoe_hw.spec.config import PRESETS
from edgemoe_models.integer import reference
from support.joint import JOINED, crowded, untraced
from support.random_graphs import random_graph, small_model

PYNQ = PRESETS["pynq-z2"]
GRAPHS = {
    "balanced": lambda: random_graph(small_model(depth=4)),
    "int4": lambda: random_graph(small_model(depth=4), expert_bits=4),
    "crowded": lambda: crowded(random_graph(small_model(depth=4))),
    "no experts": lambda: random_graph(small_model(num_experts=0, top_k=0, expert_hidden=0)),
}


def run(verifier, graph, joined, images):
    traces = []
    for image, task in joined.sequences:
        traces.append({})
        reference.run(graph, images[image], task, traces[-1])
    result = verifier.run_joint(images[: joined.images], joined, expected=traces)
    assert result.comparison.mismatches == 0, f"{joined}: {result.comparison.first_mismatch}"
    for outputs, trace, (_, task) in zip(result.outputs, traces, joined.sequences, strict=True):
        np.testing.assert_array_equal(outputs, trace[f"heads.{task}"].reshape(outputs.shape))
    return result, traces


@pytest.mark.parametrize("kind", GRAPHS)
@pytest.mark.parametrize("stall", [0.0, 0.3])
def test_equals_reference(kind, stall, rng):
    graph = GRAPHS[kind]()
    model = graph.config
    images = [rng.integers(0, 256, (model.image_height, model.image_width, 3)).astype(np.uint8) for _ in range(4)]
    bundle = build_bundle(graph, PYNQ, joint=list(JOINED.values()))
    with open_verified(bundle, stall=stall, seed=7, quiet=True) as verifier:
        for joined in JOINED.values():
            result, traces = run(verifier, graph, joined, images)
            if model.num_experts:
                assert untraced(traces, joined, result.comparison.tensors, 1) == set()
                for block, lengths in result.stats["expert_tokens"].items():
                    name = f"{block.removesuffix('.moe')}.queues"
                    assert lengths == [sum(map(len, each)) for each in zip(*(t[name] for t in traces), strict=True)]
        alone = sum(verifier.run(images[0], task).stats["cycles"] for task in JOINED["tasks"].tasks)
        assert run(verifier, graph, JOINED["tasks"], images)[0].stats["cycles"] < alone


def test_largest_that_fits(rng):
    """As many sequences as the configuration has queue entries for, and one token more is refused."""
    model = small_model(image_height=48, image_width=172)  # 517 tokens with the first: one too many
    assert model.num_tokens == PYNQ.max_tokens + 1
    model = small_model(image_height=48, image_width=84)  # 253
    graph = random_graph(model)
    bundle = build_bundle(graph, PYNQ, joint=[Joined(("segmentation", "classification"))])
    images = [rng.integers(0, 256, (model.image_height, model.image_width, 3)).astype(np.uint8)]
    with open_verified(bundle, quiet=True) as verifier:
        run(verifier, graph, bundle.joint[0].joined, images)


def test_number_of_images_must_be_right(rng):
    graph = random_graph(small_model())
    bundle = build_bundle(graph, PYNQ, joint=[JOINED["two images"]])
    image = np.zeros((graph.config.image_height, graph.config.image_width, 3), np.uint8)
    with open_verified(bundle, quiet=True) as verifier:
        with pytest.raises(ValueError, match="takes 2 images, not 1"):
            verifier.run_joint([image], JOINED["two images"])
        with pytest.raises(ValueError, match="no program of task classification of 4 images; it has task segment"):
            verifier.run_joint([image], dataclasses.replace(JOINED["four images"]))
