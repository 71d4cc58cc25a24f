"""Weights rounded together, and which layers do with 4 bits."""

import numpy as np
import pytest

from edgemoe_models.config import TaskConfig
from edgemoe_models.ptq import relevance
from edgemoe_models.ptq.options import QuantizeError, QuantizeOptions
from edgemoe_models.ptq.quantize import quantize
from edgemoe_models.ptq.rounding import round_together, spread
from edgemoe_models.random_weights import random_images, random_state
from support.small_models import to_quantize

CONFIG = to_quantize(TaskConfig("segmentation", "segmentation", 4))


def correlated(rng, rows=600, inputs=40):
    """Integer-valued rows of inputs that vary together, some more than others."""
    mixture = rng.normal(0, 1, (inputs, inputs)) * np.linspace(0.2, 3, inputs)
    return np.clip(np.rint(rng.normal(0, 8, (rows, inputs)) @ mixture), -127, 127)


def error(x, weight, integers):
    return np.square((x - x.mean(0)) @ (weight - integers).T).mean()


def test_rounding_together_loses_less_on_rows_that_it_has_not_seen(rng):
    x, weight = correlated(rng, 1200), rng.normal(0, 3, (30, 40))
    found = round_together(weight, spread(x[:600]), 127)
    assert np.array_equal(found, np.rint(found)) and np.abs(found - weight).max() > 0.5
    assert error(x[600:], weight, found) < 0.6 * error(x[600:], weight, np.rint(weight))


def test_inputs_that_do_not_vary_together_round_to_the_nearest(rng):
    weight = rng.normal(0, 3, (5, 12))
    assert np.array_equal(round_together(weight, np.diag(rng.uniform(1, 9, 12)), 127), np.rint(weight))


def test_no_weight_leaves_its_format(rng):
    weight = rng.normal(0, 6, (20, 40))
    assert np.abs(round_together(weight, spread(correlated(rng)), 7)).max() == 7


def test_spread_of_few_and_of_constant_rows_can_be_used(rng):
    for x in (np.zeros((64, 40)), np.ones((64, 40)), correlated(rng, 8)):
        covariance = spread(x)
        assert np.linalg.eigvalsh(covariance).min() > 0
        assert np.isfinite(round_together(rng.normal(0, 3, (4, 40)), covariance, 127)).all()


def test_it_comes_near_to_the_best_of_all_roundings_of_two_inputs(rng):
    """With two inputs there are few enough to try all."""
    sums = np.zeros(3)
    for _ in range(50):
        x = np.rint(rng.normal(0, 20, (300, 1)) @ rng.normal(0, 1, (1, 2)) + rng.normal(0, 4, (300, 2)))
        weight, covariance = rng.normal(0, 3, (1, 2)), spread(x)

        def loss(w, weight=weight, covariance=covariance):
            return ((w - weight) @ covariance @ (w - weight).T).item()

        near = [np.rint(weight) + [[a, b]] for a in (-1, 0, 1) for b in (-1, 0, 1)]
        sums += loss(round_together(weight, covariance, 127)), loss(np.rint(weight)), min(map(loss, near))
    assert sums[2] <= sums[0] < (sums[1] + sums[2]) / 2


def test_relevance_is_the_harm_that_four_bits_do():
    state, images = random_state(CONFIG), random_images(CONFIG, 2)
    errors = dict(relevance.int4_errors(state, CONFIG, images, QuantizeOptions()))
    dense = [i for i in range(CONFIG.depth) if not CONFIG.is_moe(i)]
    names = {f"blocks.{i}.{part}" for i in range(CONFIG.depth) for part in ("qkv", "proj")}
    assert set(errors) == names | {f"blocks.{i}.{part}" for i in dense for part in ("fc1", "fc2")}
    assert all(value > 0 for value in errors.values())
    name = f"blocks.{dense[0]}"
    coarse = state | {f"{name}.mlp.fc1.weight": relevance.rounded_weights(state[f"{name}.mlp.fc1.weight"], 4)}
    again = dict(relevance.int4_errors(coarse, CONFIG, images, QuantizeOptions()))
    assert again[f"{name}.fc1"] < 1e-6 < errors[f"{name}.fc1"]  # it has 4 bits already


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_share_of_the_weights_has_four_bits(share):
    state, images = random_state(CONFIG), random_images(CONFIG, 4)
    graph = quantize(state, CONFIG, images, QuantizeOptions(int4_share=share))
    layers = {
        n: layer for n, layer, _ in graph.linears() if n.rpartition(".")[2] in relevance.LAYERS and "experts" not in n
    }
    layers = {name: layer for name, layer in layers.items() if name.startswith("blocks.")}
    small = sum(layer.weight.size for layer in layers.values() if layer.bits == 4)
    every = sum(layer.weight.size for layer in layers.values())
    assert share - 0.25 <= small / every <= share
    assert graph.expert_bits == 8 and set(graph.int4_layers) <= set(layers)
    if share == 1:
        assert set(graph.int4_layers) == set(layers)
    errors = dict(relevance.int4_errors(state, CONFIG, images, QuantizeOptions()))
    if 0 < share < 1:  # what was taken does less harm a weight than what was not
        harm = {name: errors[name] / layer.weight.size for name, layer in layers.items()}
        assert np.median([harm[n] for n in graph.int4_layers]) < np.median([harm[n] for n in layers])


def test_a_share_is_no_count():
    with pytest.raises(QuantizeError, match=r"int4_share must be in 0..1, not 4"):
        QuantizeOptions(int4_share=4)
