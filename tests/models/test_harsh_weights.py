"""Weights with the published network's statistics, and how much of it quantization with default options keeps."""

import numpy as np
import pytest

from edgemoe_models import float_reference
from edgemoe_models.float_reference import state_shapes
from edgemoe_models.harsh_weights import HARSH, SMALL_HARSH, harsh_state
from edgemoe_models.integer import reference
from edgemoe_models.ptq.options import QuantizeOptions
from edgemoe_models.ptq.quantize import quantize
from edgemoe_models.random_weights import random_images

CONFIG = SMALL_HARSH
SEEDS = (0, 1)
CALIBRATION, UNSEEN = 0, 20_000  # first seeds of scenes
FLAT = range(4, 6)  # blocks


@pytest.fixture(scope="module")
def states():
    return [harsh_state(CONFIG, seed) for seed in SEEDS]


def _unseen(count=6):
    """Scenes that calibration has not seen; of every third the brightness, of every other third the contrast is
    another one."""
    images = random_images(CONFIG, count, UNSEEN).astype(np.float64)
    images[1::3] *= 0.6
    images[2::3] = np.clip((images[2::3] - 128) * 1.4 + 128, 0, 255)
    return np.rint(images).astype(np.uint8)


@pytest.fixture(scope="module")
def seen(states):
    observed = {}
    float_reference.forward(states[0], CONFIG, _unseen(), "depth", observed)
    return observed


def test_equal_seeds_give_equal_tensors(states):
    assert {name: value.shape for name, value in states[0].items()} == state_shapes(CONFIG)
    assert all(value.dtype == np.float32 and np.isfinite(value).all() for value in states[0].values())
    again = harsh_state(CONFIG, SEEDS[0])
    assert all(np.array_equal(value, again[name]) for name, value in states[0].items())
    assert not np.array_equal(states[0]["blocks.1.moe.w1"], states[1]["blocks.1.moe.w1"])


def test_statistics(states, seen):
    for i in (0, 2, 4):
        peaks = np.abs(seen[f"blocks.{i}.hidden"]).max(0)
        assert peaks.max() > 10 * np.median(peaks) and 8 < peaks.max() / np.median(peaks) < 25
        assert (peaks < peaks.max() / 8).mean() > 0.5
    gains = [float(states[0][f"blocks.{i}.norm2.weight"].max()) for i in range(CONFIG.depth)]
    assert 10 < max(gains) <= 15 and gains[-1] > 2 * gains[0]


def test_context_is_the_pictures_alone_where_attention_is_flat(seen):
    for i in range(CONFIG.depth):
        context = seen[f"blocks.{i}.context"]
        context = context - context.mean(0)
        of_pictures = context.reshape(-1, CONFIG.num_tokens, CONFIG.dim).mean(1)
        share = np.square(of_pictures).mean() / np.square(context).mean()
        assert share > 0.95 if i in FLAT else share < 0.8


def _errors(state, options=QuantizeOptions()):  # noqa: B008 # it is frozen
    """Of unseen scenes and all tasks: relative error of the last tokens, agreement of the first gate."""
    graph = quantize(state, CONFIG, random_images(CONFIG, 16, CALIBRATION), options)
    images, errors, same = _unseen(), [], []
    for task in CONFIG.tasks:
        wanted, found = {}, {}
        float_reference.forward(state, CONFIG, images, task.name, wanted)
        reference.run_batch(graph, images, task.name, found)
        last = f"blocks.{CONFIG.depth - 1}.residual2"
        error = (found[last] * graph.residual_scale - wanted[last]).reshape(len(images), -1)
        size = np.square(wanted[last].reshape(len(images), -1)).sum(1)
        errors.append(np.sqrt(np.square(error).sum(1) / size).mean())
        pairs = zip(wanted["blocks.1.queues"], found["blocks.1.queues"], strict=True)
        same.append(sum(len(np.intersect1d(*pair)) for pair in pairs) / (len(error) * CONFIG.num_tokens * CONFIG.top_k))
    return float(np.mean(errors)), float(np.mean(same))


def test_accuracy(states):
    """The goal is at most 8 % (stretch: 5 %) and a first gate that agrees for 97 %, with HARSH.

    Reached by the small one: 7.6 % and 97.5 %. Before activations had a shift a channel it was 10.0 %, before ranges
    were judged on halves 11.4 % and 96.5 %.
    """
    found = [_errors(state) for state in states]
    assert np.mean([error for error, _ in found]) < 0.08
    assert np.mean([same for _, same in found]) > 0.97
    plain = [_errors(state, QuantizeOptions(ranges="min-max", equalize=False))[0] for state in states]
    assert np.mean([error for error, _ in found]) < 0.75 * np.mean(plain)


def test_published_shape():
    assert (HARSH.dim, HARSH.depth, HARSH.num_tokens, HARSH.num_experts) == (192, 12, 129, 16)
