"""Whole networks of odd sizes and with adversarial contents on the RTL: every tensor equals the integer reference."""

import dataclasses

import numpy as np
import pytest

from edgemoe.compiler import CompilerOptions, build_bundle
from edgemoe.runtime.verify import open_verified
from edgemoe_hw.spec.config import PRESETS
from edgemoe_models.config import ModelConfig, TaskConfig
from edgemoe_models.graph.integer_graph import IntegerGraph, IntegerLinear
from support.random_graphs import flat_attention, random_graph, small_model, with_int4
from support.reference import expect

KINDS = (
    TaskConfig("segmentation", "segmentation", channels=5, head_hidden=20, cells=2),
    TaskConfig("depth", "depth", channels=1, cells=3),
    TaskConfig("normals", "normals", channels=3, head_hidden=13),
    TaskConfig("classification", "classification", channels=11),
)
MODELS = {
    "heads of 20": small_model(),
    "one patch": small_model(
        image_height=4, image_width=4, dim=24, heads=3, mlp_hidden=17, num_experts=3, top_k=1, expert_hidden=9
    ),
    "four tasks": small_model(
        image_height=20, dim=56, heads=4, num_experts=16, top_k=4, mlp_hidden=41, expert_hidden=25, tasks=KINDS
    ),
    "one head, all experts": small_model(
        image_height=28, dim=33, heads=1, depth=3, moe_every=1, num_experts=3, top_k=3, tasks=KINDS[1:2]
    ),
    "no experts": small_model(
        image_height=24, image_width=24, num_experts=0, top_k=0, expert_hidden=0, tasks=KINDS[2:3]
    ),
    "five tokens before the patches": small_model(
        prefix_tokens=5,
        tasks=(
            TaskConfig("mean", "classification", 11, pool="avg"),
            TaskConfig("both", "classification", 11, pool="cls-avg"),
            TaskConfig("normed", "classification", 7, pool="avg-norm"),
        ),
    ),
    "no token before the patches": small_model(
        prefix_tokens=0, tasks=(TaskConfig("mean", "features", 9, pool="avg"), *KINDS[:1])
    ),
}


def images(model: ModelConfig, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    shape = (model.image_height, model.image_width, 3)
    return {
        "random": rng.integers(0, 256, shape).astype(np.uint8),
        "black": np.zeros(shape, np.uint8),
        "white": np.full(shape, 255, np.uint8),
        "extremes": rng.choice(np.array([0, 255], np.uint8), shape),
    }


@pytest.mark.parametrize("name", MODELS)
def test_odd_models(config, name, check, seed):
    model = MODELS[name]
    bundle = build_bundle(random_graph(model, seed), config)
    with open_verified(bundle, quiet=True) as verifier:
        for task in bundle.tasks:
            check(verifier, images(model, seed)["random"], task)


@pytest.mark.parametrize("name", ["heads of 20", "one patch", "four tasks"])
def test_random_bus_stalls(config, name, check, seed):
    model = MODELS[name]
    bundle = build_bundle(random_graph(model, seed), config, CompilerOptions(group_tokens=5))
    with open_verified(bundle, stall=0.3, seed=seed, quiet=True) as verifier:
        for task in bundle.tasks:
            check(verifier, images(model, seed)["random"], task)


@pytest.mark.parametrize("name", ["heads of 20", "four tasks"])
def test_slow_dram_behind_axi3(config, name, check, seed):
    """Split bursts, few at a time, refreshes, 30 % stalls, and less bandwidth than the ports take."""
    ports = config.port_bytes_per_cycle * config.assumed_clock_mhz / 1000
    config = dataclasses.replace(config, dram_gb_per_second=0.6 * ports)
    model = MODELS[name]
    bundle = build_bundle(random_graph(model, seed), config)
    with open_verified(bundle, dram_model="worst", seed=seed, quiet=True) as verifier:
        for task in bundle.tasks:
            stats = check(verifier, images(model, seed)["random"], task).stats
            moved = stats["bytes_read"] + stats["bytes_written"]
            assert stats["cycles"] > moved / config.dram_bytes_per_cycle


@pytest.mark.parametrize("expert_bits", [8, 4])
def test_rows_too_narrow_for_all_masters(many_masters, expert_bits, check, seed):
    """Weights come over all masters, activations and residual rows over some; each stalls on its own."""
    model = MODELS["four tasks"]
    assert many_masters.load_masters("RESIDUAL") == 1 < many_masters.load_masters("WEIGHT") == many_masters.axi_masters
    bundle = build_bundle(random_graph(model, seed, expert_bits), many_masters, CompilerOptions(group_tokens=5))
    with open_verified(bundle, stall=0.3, seed=seed, quiet=True) as verifier:
        for task in bundle.tasks:
            check(verifier, images(model, seed)["random"], task)


def with_gates(graph: IntegerGraph, change) -> IntegerGraph:
    """The graph with every gate replaced by ``change(gate)``."""
    blocks = [
        dataclasses.replace(block, gates={task: change(gate) for task, gate in block.gates.items()})
        if block.gates
        else block
        for block in graph.blocks
    ]
    return dataclasses.replace(graph, blocks=tuple(blocks))


def constant_gate(biases: list[int]):
    """Logits that depend on the expert only: its bias."""

    def change(gate: IntegerLinear) -> IntegerLinear:
        return dataclasses.replace(
            gate,
            weight=np.zeros_like(gate.weight),
            bias=np.array(biases, np.int32),
            multiplier=np.full_like(gate.multiplier, 32768),
            shift=np.full_like(gate.shift, 15),
        )

    return change


def equal_rows(gate: IntegerLinear) -> IntegerLinear:
    """All experts have the same logit, which still depends on the token."""
    return IntegerLinear(
        *(np.repeat(array[:1], len(array), axis=0) for array in (gate.weight, gate.bias, gate.multiplier, gate.shift))
    )


@pytest.mark.parametrize(
    ("gates", "top_k", "queued"),
    [
        pytest.param(constant_gate([-900, -30000, 0, 700, -5]), 1, [0, 0, 0, 37, 0], id="one expert has all tokens"),
        pytest.param(constant_gate([32767, -32767, -32767, -32767, 32767]), 2, [37, 0, 0, 0, 37], id="far apart"),
        pytest.param(equal_rows, 3, [37, 37, 37, 0, 0], id="ties: the lower experts win"),
        pytest.param(constant_gate([0] * 5), 4, [37, 37, 37, 37, 0], id="all equal, top 4"),
    ],
)
def test_queues_empty_and_full(config, gates, top_k, queued, check, seed):
    """37 tokens: as many as the queues of the odd configuration hold."""
    model = small_model(image_height=24, image_width=24, top_k=top_k)
    bundle = build_bundle(with_gates(random_graph(model, seed), gates), config)
    with open_verified(bundle, quiet=True) as verifier:
        result = check(verifier, images(model, seed)["random"], "segmentation")
    assert result.stats["expert_tokens"]["blocks.1.moe"][:5] == queued


@pytest.mark.parametrize("name", ["heads of 20", "one patch", "four tasks", "one head, all experts"])
def test_int4_experts(config, name, check, seed):
    """1 to 7 steps of int4 weights, odd numbers among them, K no multiple of the lanes."""
    model = MODELS[name]
    bundle = build_bundle(random_graph(model, seed, expert_bits=4), config)
    with open_verified(bundle, quiet=True) as verifier:
        for task in bundle.tasks:
            check(verifier, images(model, seed)["random"], task)


DENSE = ("qkv", "proj", "fc1", "fc2")


@pytest.mark.parametrize("name", ["heads of 20", "one patch", "four tasks", "no experts"])
@pytest.mark.parametrize("expert_bits", [8, 4])
def test_int4_layers(config, name, expert_bits, check, seed):
    """Attention and MLPs of 4 bits, each alone among layers of 8 bits, and all together."""
    model = MODELS[name]
    graph = random_graph(model, seed, expert_bits)
    block = graph.blocks[0]
    names = [f"blocks.0.{field}" for field in DENSE if getattr(block, field) is not None]
    every = [f"blocks.{i}.{f}" for i, b in enumerate(graph.blocks) for f in DENSE if getattr(b, f) is not None]
    for chosen in (*([name] for name in names), every):
        narrow = with_int4(graph, tuple(chosen))
        assert set(narrow.int4_layers) == set(chosen)
        bundle = build_bundle(narrow, config)
        with open_verified(bundle, quiet=True) as verifier:
            check(verifier, images(model, seed)["random"], model.tasks[0].name)


def test_int4_experts_with_random_bus_stalls(config, check, seed):
    model = MODELS["four tasks"]
    bundle = build_bundle(random_graph(model, seed, expert_bits=4), config, CompilerOptions(group_tokens=5))
    with open_verified(bundle, stall=0.3, seed=seed, quiet=True) as verifier:
        for task in bundle.tasks:
            check(verifier, images(model, seed)["random"], task)


def test_int4_experts_halve_the_bytes_that_the_rtl_counts(config, check, seed):
    """Two of five experts have all tokens, three have none: what is saved is half the steps of two experts, rounded.

    None is fetched ahead of the gate, which would fetch those that no token chooses too.
    """
    model, read = small_model(image_height=24, image_width=24), {}
    options = CompilerOptions(expert_prefetch="off")
    for bits in (8, 4):
        graph = with_gates(random_graph(model, seed, bits), constant_gate([32767, -32767, -32767, -32767, 32767]))
        with open_verified(build_bundle(graph, config, options), quiet=True) as verifier:
            result = check(verifier, images(model, seed)["random"], "segmentation")
        assert result.stats["experts_used"] == {"blocks.1.moe": 2}
        read[bits] = result.stats["bytes_read"]
    rows = sum(
        -(-outputs // config.lanes_n) * (-(-inputs // config.lanes_k) // 2)
        for outputs, inputs in ((model.expert_hidden, model.dim), (model.dim, model.expert_hidden))
    )
    assert read[8] - read[4] == 2 * rows * config.row_bytes["WEIGHT"] > 0


def extreme(rng: np.random.Generator, linear: IntegerLinear, shift: int, largest: int = 127) -> IntegerLinear:
    """Largest weights and multipliers; with a small shift every result is clamped."""
    bound = (1 << 24) - 1 - linear.weight.shape[1] * 127 * 255
    bias = rng.choice(np.array([-bound, 0, bound]), len(linear.bias))
    return dataclasses.replace(
        linear,
        weight=rng.choice(np.array([-largest, largest], np.int8), linear.weight.shape),
        bias=bias.astype(np.int32),
        multiplier=np.full_like(linear.multiplier, 65535),
        shift=np.full_like(linear.shift, shift),
    )


def saturated(graph: IntegerGraph, seed: int) -> IntegerGraph:
    rng = np.random.default_rng(seed)
    experts = 7 if graph.expert_bits == 4 else 127
    blocks = []
    for block in graph.blocks:
        changes: dict[str, object] = {
            name: extreme(rng, linear, 16)
            for name in ("qkv", "proj", "fc1", "fc2")
            if (linear := getattr(block, name)) is not None
        }
        changes["gates"] = {task: extreme(rng, gate, 9) for task, gate in block.gates.items()}
        for name in ("expert_fc1", "expert_fc2"):
            changes[name] = tuple(extreme(rng, linear, 17, experts) for linear in getattr(block, name))
        blocks.append(dataclasses.replace(block, **changes))
    return dataclasses.replace(graph, patch_embed=extreme(rng, graph.patch_embed, 14), blocks=tuple(blocks))


@pytest.mark.parametrize("expert_bits", [8, 4])
def test_saturation_and_extreme_pixels(config, expert_bits, check, seed):
    model = small_model()
    bundle = build_bundle(saturated(random_graph(model, seed, expert_bits), seed), config)
    trace = {}
    with open_verified(bundle, quiet=True) as verifier:
        for name, image in images(model, seed).items():
            check(verifier, image, "segmentation")
            trace[name] = expect(bundle, image, "segmentation").trace
    values = trace["extremes"]
    clamped = {
        key
        for key, value in values.items()
        if key.endswith((".q", ".k", ".v", ".fc1", "embed"))
        and np.isin(np.abs(np.asarray(value, int)), [127, 32767]).mean() > 0.5
    }
    assert any(key.endswith(".q") for key in clamped)  # the case is what its name says


def test_flat_attention_of_many_tokens(check, seed):
    """577 tokens, as of a ViT at 384 pixels, with equal scores: the sum of the exponentials reaches 2^17 and P.V's
    accumulators 2^24, which no model of a preset's 256 tokens can."""
    config = dataclasses.replace(PRESETS["tiny"], name="long", max_tokens=1024, score_depth=8192)
    model = small_model(
        image_height=96,
        image_width=96,
        dim=16,
        depth=1,
        heads=1,
        mlp_hidden=16,
        num_experts=0,
        top_k=0,
        expert_hidden=0,
    )
    bundle = build_bundle(flat_attention(random_graph(model, seed)), config)
    with open_verified(bundle, quiet=True) as verifier:
        result = check(verifier, images(model, seed)["random"], "segmentation")
    trace = expect(bundle, images(model, seed)["random"], "segmentation").trace
    probabilities, values = (np.asarray(trace[f"blocks.0.{name}"], int) for name in ("probabilities", "v"))
    assert probabilities.sum(-1).min() == 577 * 255 >= 1 << 17  # the case is what its name says
    assert np.abs(probabilities[0] @ values).max() >= 1 << 24
    assert result.comparison.values > 577 * 577
