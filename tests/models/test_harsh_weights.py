"""Weights with the published network's statistics, and how much of it quantization with default options keeps."""

import numpy as np
import pytest

from edgemoe_models import float_reference
from edgemoe_models.float_reference import state_shapes
from edgemoe_models.harsh_weights import HARSH, SMALL_HARSH, harsh_state
from edgemoe_models.studies import harsh

CONFIG = SMALL_HARSH
SEEDS = (0, 1)
FLAT = range(4, 6)  # blocks


@pytest.fixture(scope="module")
def states():
    return [harsh_state(CONFIG, seed) for seed in SEEDS]


@pytest.fixture(scope="module")
def seen(states):
    observed = {}
    float_reference.forward(states[0], CONFIG, harsh.unseen_images(CONFIG), "depth", observed)
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


@pytest.fixture(scope="module")
def rows():
    variants = ("ours", "weights to the nearest", "min-max, no equalization", "all blocks 4-bit")
    found = harsh.compare("small", 2, {name: harsh.VARIANTS[name] for name in variants})
    return {row["variant"]: row for row in found}


def test_accuracy(rows):
    """The issue's goals, at most 8 % in the last tokens and a first gate that agrees for 97 %, with default options."""
    assert rows["ours"]["final"] < 0.08 and rows["ours"]["first_gate"] > 0.97


def test_each_part_is_worth_having(rows):
    assert rows["ours"]["final"] < rows["weights to the nearest"]["final"]
    assert rows["ours"]["final"] < 0.75 * rows["min-max, no equalization"]["final"]
    assert rows["ours"]["final"] < rows["all blocks 4-bit"]["final"] < 0.3


def test_command(edgemoe, tmp_path, monkeypatch):
    row = {"variant": "ours", "block0": 0.01, "final": 0.08, "first_gate": 0.97, "gates": 0.9}
    monkeypatch.setattr(harsh, "compare", lambda model, seeds: [row | {"model": model, "seeds": seeds}])
    text = edgemoe.ok("study", "harsh", "--model", "tiny", "--seeds", 1, "--json", tmp_path / "rows.json")
    assert "harsh weights, tiny, 1 seed:" in text and "8.0 %" in text and (tmp_path / "rows.json").exists()
    edgemoe("study", "harsh", "--model", "large").refused("model must be one of small, tiny, not 'large'", code=2)


def test_published_shape():
    assert (HARSH.dim, HARSH.depth, HARSH.num_tokens, HARSH.num_experts) == (192, 12, 129, 16)
