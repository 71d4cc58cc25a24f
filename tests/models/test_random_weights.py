"""Random weights must be as hard as trained ones: sharp attention, outliers, uneven experts."""

import numpy as np
import pytest

from edgemoe_models import float_reference
from edgemoe_models.config import PRESETS
from edgemoe_models.float_reference import state_shapes
from edgemoe_models.random_weights import random_images, random_state

CONFIG = PRESETS["m3vit-micro"]


@pytest.fixture(scope="module")
def seen():
    observed = {}
    float_reference.forward(random_state(CONFIG), CONFIG, random_images(CONFIG, 2, 50), "depth", observed)
    return observed


def test_equal_seeds_give_equal_tensors_and_others_differ():
    first, again, other = random_state(CONFIG, 3), random_state(CONFIG, 3), random_state(CONFIG, 4)
    assert {name: value.shape for name, value in first.items()} == state_shapes(CONFIG)
    assert all(value.dtype == np.float32 and np.isfinite(value).all() for value in first.values())
    assert all(np.array_equal(value, again[name]) for name, value in first.items())
    assert not any(np.array_equal(value, other[name]) for name, value in first.items())


def test_attention_is_neither_flat_nor_one_hot(seen):
    for i in range(CONFIG.depth):
        p = float_reference.softmax(seen[f"blocks.{i}.scores"] * np.log(2))
        perplexity = np.exp(-(p * np.log(p + 1e-12)).sum(-1).mean())
        assert 3 < perplexity < 0.8 * CONFIG.num_tokens


def test_some_channels_are_outliers(seen):
    peaks = np.abs(seen["blocks.1.norm1"]).max(0)
    assert peaks.max() > 3 * np.median(peaks)


def test_experts_are_unevenly_loaded(seen):
    for i in range(1, CONFIG.depth, 2):
        loads = sorted(len(queue) for queue in seen[f"blocks.{i}.queues"])
        average = 2 * CONFIG.num_tokens * CONFIG.top_k / CONFIG.num_experts
        assert loads[0] < average / 3 and loads[-1] > 1.5 * average
        assert sum(load > 0 for load in loads) >= CONFIG.num_experts // 2


def test_images_are_deterministic():
    assert np.array_equal(random_images(CONFIG, 2, 9), random_images(CONFIG, 2, 9))
