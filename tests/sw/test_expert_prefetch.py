"""Experts ahead of the gate, on the command-level model: every configuration, adversarial orders, waste counted."""

import dataclasses
from collections import Counter

import numpy as np
import pytest

from edgemoe.compiler import CompilerOptions, build_bundle
from edgemoe.compiler.bound import wasted_bytes
from edgemoe_hw.spec.config import PRESETS
from edgemoe_hw.spec.isa import Engine, EnginePayload, Load, MatMul, Memory, Mode, decode_program
from edgemoe_models.graph.file import graph_bytes, parse_graph
from edgemoe_models.graph.integer_graph import GraphError
from edgemoe_models.integer import reference
from edgemoe_models.ptq.expert_use import measure_use
from edgemoe_sim.command_model import POLICIES
from support.random_graphs import random_graph, small_model
from support.starved import bytes_needed, fetched_ahead, random_image, starved
from tests.sw.test_compiler import execute

TINY, TASK = PRESETS["tiny"], "segmentation"
NARROW = dataclasses.replace(TINY, name="narrow", weight_depth=96, param_depth=48)  # few chunks of experts fit
WIDE = dataclasses.replace(PRESETS["zcu102"], name="wide", lanes_k=64, lanes_n=64, epilogue_lanes=32, act_depth=4096)
CONFIGS = {"tiny": TINY, "narrow": NARROW, "pynq-z2": PRESETS["pynq-z2"], "wide": WIDE}
UNUSED = {"none": (), "the first": (0,), "between": (1, 3), "the last": (4,), "all but two": (0, 2, 4)}


@pytest.mark.parametrize("unused", UNUSED)
@pytest.mark.parametrize("prefetch", ["off", 0, 1, 2, 5, "auto"])
@pytest.mark.parametrize("config", CONFIGS)
def test_experts_that_no_token_chooses(config, prefetch, unused):
    bits = 4 if prefetch in (2, "auto") else 8
    graph = starved(random_graph(small_model(), 7, bits), UNUSED[unused])
    bundle = build_bundle(graph, CONFIGS[config], CompilerOptions(expert_prefetch=prefetch))
    bundle.check()
    for policy in POLICIES:
        found, outputs, trace, result = execute(bundle, TASK, policy)
        assert result.mismatches == 0, result.first_mismatch
        np.testing.assert_array_equal(found, outputs)
    counts = [len(queue) for queue in trace["blocks.1.queues"]]
    assert not any(counts[expert] for expert in UNUSED[unused])
    _, vain = bytes_needed(bundle, TASK, trace)
    assert wasted_bytes(bundle.task(TASK).phases, {"blocks.1.moe": counts}) == vain
    ahead = fetched_ahead(bundle, TASK)
    if prefetch in ("off", 0):
        assert not any(ahead) and not vain
    else:
        assert ahead[0] > 0 and (vain > 0 or counts[0])
        assert not any(ahead[prefetch if prefetch != "auto" else 5 :])


def use_of(graph, share):
    uses = {f"blocks.1.{task.name}": np.array(share, np.float32) for task in graph.config.tasks}
    return dataclasses.replace(graph, expert_use=uses)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("share", [(0, 1, 0, 1, 0), (1, 0.25, 1, 0, 1), (0, 0, 0, 0, 1), (0, 0, 0, 0, 0)])
def test_rare_experts_are_streamed_between_held_ones(config, policy, share):
    """This image uses all of them, whatever calibration saw."""
    bundle = build_bundle(use_of(random_graph(small_model(), 7), share), CONFIGS[config])
    found, outputs, _, result = execute(bundle, TASK, policy)
    assert result.mismatches == 0, result.first_mismatch
    np.testing.assert_array_equal(found, outputs)
    ahead = fetched_ahead(bundle, TASK) or [0] * 5
    assert not any(size for size, chosen in zip(ahead, share, strict=True) if chosen < 0.5)
    if config != "narrow":
        assert all(size for size, chosen in zip(ahead, share, strict=True) if chosen > 0.5)


def test_the_first_experts_wait_for_no_gate():
    """Their LOADs do not even wait for the gate's first MATMUL; all their MATMULs stay predicated."""
    bundle = build_bundle(random_graph(small_model()), TINY)
    counts: Counter = Counter()
    gate, early = None, []
    for header, p in decode_program(bundle.task(TASK).program):
        if not isinstance(p, EnginePayload):
            continue
        counts[p.engine] += 1
        if isinstance(p, MatMul) and p.mode == Mode.GATE and gate is None:
            gate = counts[Engine.MATMUL]
        if isinstance(p, MatMul) and p.use_queue:
            assert header.predicated
        if isinstance(p, Load) and p.memory == Memory.WEIGHT and bundle.task(TASK).phases[header.phase].prefetched:
            early.append((header.waits[Engine.MATMUL], header.predicated))
    assert gate is not None and any(wait < gate and not predicated for wait, predicated in early)
    assert all(wait >= gate for wait, predicated in early if predicated)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(("size", "prefetch"), [(1, 0), (1, 3), (1, "auto"), (5, 3), (5, "auto")])
def test_waves(size, prefetch, policy):
    """Gate and experts for some tokens at a time: each wave has its own experts ahead."""
    options = CompilerOptions(group_tokens=4, moe_group=size, expert_prefetch=prefetch)
    bundle = build_bundle(starved(random_graph(small_model(), 7), (0, 3)), TINY, options)
    assert any(fetched_ahead(bundle, TASK)) == (prefetch == 3 or prefetch == "auto" and size == 5)
    found, outputs, _, result = execute(bundle, TASK, policy)
    assert result.mismatches == 0, result.first_mismatch
    np.testing.assert_array_equal(found, outputs)


@pytest.mark.parametrize("bad", [-1, 1.5, "all", "", True, None])
def test_options_that_are_refused(bad):
    with pytest.raises(ValueError, match="expert_prefetch must be off, auto or a number of experts"):
        CompilerOptions(expert_prefetch=bad)


def test_what_was_measured_is_what_images_use():
    """Three images: an expert's share is that of the images in which a token chose it; it survives the file."""
    graph = starved(random_graph(small_model(), 7), (3,))
    images = np.stack([random_image(build_bundle(graph, TINY), seed) for seed in range(3)])
    use = measure_use(graph, images)
    assert sorted(use) == ["blocks.1.classification", "blocks.1.segmentation"]
    for task in ("segmentation", "classification"):
        seen = np.zeros(5)
        for image in images:
            trace: dict = {}
            reference.run(graph, image, task, trace)
            seen += [len(queue) > 0 for queue in trace["blocks.1.queues"]]
        np.testing.assert_allclose(use[f"blocks.1.{task}"], seen / 3)
        assert use[f"blocks.1.{task}"][3] == 0
    graph = dataclasses.replace(graph, expert_use=use)
    again = parse_graph(graph_bytes(graph))
    assert all((again.expert_use[name] == share).all() for name, share in use.items()) and len(again.expert_use) == 2


@pytest.mark.parametrize(
    ("name", "share", "message"),
    [
        ("blocks.0.segmentation", np.ones(5, np.float32), "is of no gate"),
        ("blocks.1.depth", np.ones(5, np.float32), "is of no gate"),
        ("blocks.1.segmentation", np.ones(4, np.float32), r"must be float32 \[5\] in 0..1"),
        ("blocks.1.segmentation", np.full(5, 1.5, np.float32), r"must be float32 \[5\] in 0..1"),
        ("blocks.1.segmentation", np.full(5, np.nan, np.float32), r"must be float32 \[5\] in 0..1"),
    ],
)
def test_measurements_that_are_refused(name, share, message):
    graph = dataclasses.replace(random_graph(small_model()), expert_use={name: share})
    with pytest.raises(GraphError, match=message):
        parse_graph(graph_bytes(graph))
