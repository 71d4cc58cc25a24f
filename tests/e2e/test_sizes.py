"""Large models for their accelerator, on the RTL: every tensor equals the integer reference."""

import dataclasses

import numpy as np
import pytest

from edgemoe.compiler import CompilerOptions, build_bundle
from edgemoe.compiler.cuts import HeadParts
from edgemoe.configs import find_config
from edgemoe.runtime.verify import open_verified
from edgemoe_hw.primitives.memory import memory_parts
from edgemoe_hw.spec.config import PRESETS
from edgemoe_models.random_weights import random_images
from support.random_graphs import random_graph, small_model
from support.sizes import LARGEST, SIZES, vit

#: Beside the largest of each variant, which are their memories' limits: those that the issue of sizes names.
CASES = [
    *(("kv260-large", size) for size in SIZES),  # which takes all of them
    *((config, size) for config, sizes in LARGEST.items() for size in sizes if config != "kv260-large"),
    ("pynq-z2-large", "vit-tiny-256"),
    ("kv260", "vit-small-224"),
    ("zcu104", "vit-small-224"),
    ("zcu102-large", "vit-base-224"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("config", "size"), CASES)
def test_a_block(config, size, check):
    """Simulators of these configurations take minutes to build."""
    bundle = build_bundle(random_graph(SIZES[size]), find_config(config))
    with open_verified(bundle, quiet=True) as verifier:
        check(verifier, random_images(SIZES[size], 1, seed=3)[0], "classification")


#: The large variants' limits with a small array, for models as wide or with as many tokens, but not both.
LIMITS = dataclasses.replace(
    PRESETS["tiny"], name="limits", lanes_k=16, max_dim=768, max_tokens=577, weight_depth=1024, residual_depth=4096
)
MODELS = {
    "768 channels, 12 heads": vit("wide", 768, 32, 32),
    "257 tokens, patches of 14": vit("patches-14", 64, patch=14),
}


@pytest.mark.parametrize("name", MODELS)
def test_limits_of_the_large_variants(name, check):
    bundle = build_bundle(random_graph(MODELS[name]), LIMITS)
    with open_verified(bundle, quiet=True) as verifier:
        check(verifier, random_images(MODELS[name], 1, seed=3)[0], "classification")


def test_keys_and_values_of_some_heads_at_a_time(check, seed):
    """Five heads in three parts; scores of few queries at once; rows of both memories beyond a multiple of 1024."""
    model = small_model(image_height=36, image_width=36, dim=100, heads=5)
    config = dataclasses.replace(
        PRESETS["tiny"], name="parts", weight_depth=176, score_depth=176, act_depth=3200, residual_depth=1066
    )
    assert [len(heads) for heads in HeadParts.of(model, config).split(config.weight_depth)] == [2, 2, 1]
    assert [len(memory_parts(depth, "auto")) for depth in (config.act_depth, config.residual_depth)] == [2, 2]
    assert model.num_tokens * -(-model.dim // config.epilogue_lanes) == config.residual_depth
    bundle = build_bundle(random_graph(model, seed), config, CompilerOptions(group_tokens=16))
    image = np.random.default_rng(seed).integers(0, 256, (36, 36, 3)).astype(np.uint8)
    with open_verified(bundle, stall=0.3, seed=seed, quiet=True) as verifier:
        for task in bundle.tasks:
            check(verifier, image, task)
