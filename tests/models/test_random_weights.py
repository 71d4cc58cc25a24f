"""Random weights must be as trained ones: sharp attention, outliers, loads that a balance loss would accept."""

import dataclasses
import itertools

import numpy as np
import pytest

from edgemoe_models import float_reference
from edgemoe_models.config import PRESETS
from edgemoe_models.exact.functions import softmax
from edgemoe_models.float_reference import state_shapes
from edgemoe_models.random_weights import random_images, random_state

CONFIG = PRESETS["m3vit-micro"]
SMALL = dataclasses.replace(CONFIG, depth=2)
PICTURES = 4
UNSEEN = 10_000  # the first demonstration scene: gates settle on others


@pytest.fixture(scope="module")
def seen():
    """What each task's tokens were on pictures that the gates have not seen."""
    observed, state = {}, random_state(CONFIG, 3)
    for task in CONFIG.tasks:
        float_reference.forward(
            state, CONFIG, random_images(CONFIG, PICTURES, UNSEEN), task.name, observed.setdefault(task.name, {})
        )
    return observed


def test_equal_seeds_give_equal_tensors_and_others_differ():
    first, again, other = random_state(SMALL, 3), random_state(SMALL, 3), random_state(SMALL, 4)
    assert {name: value.shape for name, value in first.items()} == state_shapes(SMALL)
    assert all(value.dtype == np.float32 and np.isfinite(value).all() for value in first.values())
    assert all(np.array_equal(value, again[name]) for name, value in first.items())
    assert not any(np.array_equal(value, other[name]) for name, value in first.items())


def test_attention_is_neither_flat_nor_one_hot(seen):
    for i in range(CONFIG.depth):
        p = softmax(seen["depth"][f"blocks.{i}.scores"] * np.log(2))
        perplexity = np.exp(-(p * np.log(p + 1e-12)).sum(-1).mean())
        assert 3 < perplexity < 0.8 * CONFIG.num_tokens


def test_some_channels_are_outliers(seen):
    peaks = np.abs(seen["depth"]["blocks.1.norm1"]).max(0)
    assert peaks.max() > 3 * np.median(peaks)


@pytest.mark.parametrize("task", [task.name for task in CONFIG.tasks])
def test_every_picture_uses_its_experts_evenly(seen, task):
    """As the trained m3vit-micro does, whose busiest expert has 1.5 to 1.9 times a picture's mean."""
    for i in filter(CONFIG.is_moe, range(CONFIG.depth)):
        owners = [queue // CONFIG.num_tokens for queue in seen[task][f"blocks.{i}.queues"]]
        loads = np.stack([np.bincount(owner, minlength=PICTURES) for owner in owners], 1)  # [pictures, experts]
        assert loads.min() > 0
        assert (loads.max(1) / loads.mean(1)).mean() < 2


def test_gate_logits_are_centred_and_vary_with_the_token(seen):
    for task in CONFIG.tasks:
        logits = seen[task.name]["blocks.1.gate_logits"]
        assert np.abs(logits.mean(0)).max() < 0.3
        assert (0.7 < logits.std(0)).all() and (logits.std(0) < 1.4).all()


def test_tasks_have_gates_of_their_own(seen):
    logits = [seen[task.name]["blocks.1.gate_logits"] for task in CONFIG.tasks]
    assert not any(np.allclose(one, other) for one, other in itertools.combinations(logits, 2))


def test_images_are_deterministic():
    assert np.array_equal(random_images(CONFIG, 2, 9), random_images(CONFIG, 2, 9))
