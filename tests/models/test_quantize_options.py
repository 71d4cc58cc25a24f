"""What post-training quantization can be told: bits, powers of two, ranges and what may be left out."""

import dataclasses
import itertools

import numpy as np
import pytest

from edgemoe_models import float_reference
from edgemoe_models.config import TaskConfig
from edgemoe_models.integer import reference
from edgemoe_models.ptq.layers import InputScale, make_linear
from edgemoe_models.ptq.observation import observe
from edgemoe_models.ptq.options import DEFAULT, RANGES
from edgemoe_models.ptq.quantize import QuantizeError, QuantizeOptions, quantize
from edgemoe_models.ptq.search import (
    attention_scales,
    channel_ranges,
    refit_weights,
    tensor_range,
)
from edgemoe_models.random_weights import random_images, random_state
from support.small_models import to_quantize

SMALL = to_quantize(
    TaskConfig("segmentation", "segmentation", 7, head_hidden=30, cells=2), TaskConfig("depth", "depth", 1)
)
PLAIN = QuantizeOptions(ranges="min-max", equalize=False, correct_bias=False, refit=False)


@pytest.fixture(scope="module")
def state():
    return random_state(SMALL)


def _relative_error(state, graph):
    """Root mean square error over deviation, mean of the tasks."""
    images = random_images(SMALL, 4)
    errors = []
    for task in SMALL.tasks:
        wanted = float_reference.forward(state, SMALL, images, task.name)
        found = np.stack([reference.run(graph, image, task.name) for image in images])
        error = found * graph.heads[task.name].output_scale - wanted
        errors.append(np.sqrt(np.square(error).mean() / np.square(wanted - wanted.mean((0, 1))).mean()))
    return np.mean(errors)


@pytest.mark.parametrize(
    ("options", "worst"),
    [
        (QuantizeOptions(power_of_two=True), 0.3),
        (QuantizeOptions(expert_bits=4), 0.4),
        (QuantizeOptions(expert_bits=4, power_of_two=True), 0.4),
        (QuantizeOptions(ranges="min-max"), 0.3),
        (QuantizeOptions(ranges="percentile"), 0.3),
        (QuantizeOptions(equalize=False), 0.3),
        (QuantizeOptions(correct_bias=False), 0.3),
        (QuantizeOptions(per_channel=False), 0.3),
        (QuantizeOptions(refit=False), 0.3),
        (dataclasses.replace(PLAIN, per_channel=False, expert_bits=4, power_of_two=True), 0.8),
    ],
)
def test_options(state, options, worst):
    """Every option gives a graph that passes its checks, near the float model; the graph is as the option says."""
    graph = quantize(state, SMALL, random_images(SMALL, 6, 100), options)
    graph.bound_check()
    assert _relative_error(state, graph) < worst
    assert graph.expert_bits == options.expert_bits
    experts = [linear for name, linear, _ in graph.linears() if ".experts." in name]
    assert max(np.abs(linear.weight).max() for linear in experts) == (7 if options.expert_bits == 4 else 127)
    if options.power_of_two:
        assert all((linear.multiplier == 1 << 15).all() for _, linear, _ in graph.linears())
        scalars = [(block.score.multiplier, block.context.multiplier) for block in graph.blocks]
        assert set(itertools.chain(*scalars)) == {1 << 15}
        outputs = [graph.residual_scale, *(head.output_scale for head in graph.heads.values())]
        assert (np.frexp(outputs)[0] == 0.5).all()
    if not options.per_channel and not options.power_of_two:
        ratios = [linear.multiplier / 2.0 ** linear.shift.astype(int) for linear in experts]
        assert all(np.ptp(ratio) == 0 for ratio in ratios)


def test_default_is_the_best():
    """With enough pictures: refitting 40 inputs to the 78 tokens of 6 pictures would follow their noise."""
    images = random_images(SMALL, 32, 100)
    best = plain = 0.0
    for state in (random_state(SMALL, seed) for seed in range(3)):
        best += _relative_error(state, quantize(state, SMALL, images, DEFAULT))
        plain += _relative_error(state, quantize(state, SMALL, images, PLAIN))
    assert best < 0.75 * plain


def test_ranges(rng):
    x = rng.standard_normal((4000, 8)).astype(np.float32)
    x[7, 3] = 90.0
    scales = {ranges: tensor_range(x, QuantizeOptions(ranges=ranges)).scale for ranges in RANGES}
    assert scales["min-max"] == pytest.approx(90 / 127)
    assert scales["percentile"] < 0.2 * scales["min-max"]
    assert scales["mse"] < scales["min-max"]


def test_ranges_hold_on_the_other_half(rng):
    """Rows of a picture that are all alike say little about a channel's range: half of the pictures show how little."""
    pictures, tokens = 12, 30
    x = np.repeat(rng.standard_normal((pictures, 1, 16)), tokens, 1).reshape(-1, 16)
    v = x + 0.5 * rng.standard_normal(x.shape)
    weight = rng.standard_normal((24, 16))
    halves = np.arange(len(x)) >= len(x) // 2
    unseen = rng.standard_normal((2000, 16))

    def loss(found):
        scale = found.factors * found.scale
        error = np.clip(np.rint(unseen / scale), -127, 127) * scale - unseen
        return np.square(error @ weight.T).mean()

    own, judged = channel_ranges(x, [weight]), channel_ranges(x, [weight], halves=halves, bound=v)
    assert own.clipping is None and 0 <= judged.clipping < 0.1
    assert loss(judged) < 0.5 * loss(own)
    assert judged.scale * judged.factors.mean() < 2 * np.abs(v).max() / 127
    tensor = tensor_range(x, DEFAULT, halves)
    assert tensor.scale >= tensor_range(x, DEFAULT).scale and 0 <= tensor.clipping < 0.1


def test_no_halves_of_few_pictures():
    images = random_images(SMALL, 3)
    observed = observe(random_state(SMALL), SMALL, images)
    assert observed.halves("blocks.0.v") is None
    observed = observe(random_state(SMALL), SMALL, random_images(SMALL, 5))
    assert observed.rows.keys() == observed.second_half.keys()
    assert all(len(rows) == len(observed.second_half[name]) for name, rows in observed.rows.items())
    assert observed.halves("blocks.0.v").mean() == pytest.approx(0.4)
    assert len(observed.halves("blocks.1.experts.0.input", "blocks.1.experts.1.hidden")) == sum(
        len(observed.rows[f"blocks.1.experts.{name}"]) for name in ("0.input", "1.hidden")
    )


def test_refit_weights(rng):
    """Inputs that were rounded coarsely still tell about each other's errors; noise changes nothing."""
    x = rng.standard_normal((2000, 2)) @ rng.standard_normal((2, 12))
    weight = rng.standard_normal((5, 12))
    rounded, unseen = np.rint(x[:1000]), np.rint(x[1000:])
    refitted = refit_weights(weight, rounded, x[:1000] @ weight.T + 3.0)
    errors = [np.var(unseen @ w.T - x[1000:] @ weight.T) for w in (refitted, weight)]
    assert errors[0] < 0.5 * errors[1]
    noise = rng.standard_normal((100, 5))
    assert refit_weights(weight, x[:100], x[:100] @ weight.T + noise) is weight


def test_power_of_two_scales(rng):
    options = QuantizeOptions(power_of_two=True)
    x = rng.standard_normal((200, 16)).astype(np.float32) * np.exp(rng.standard_normal(16)).astype(np.float32)
    found = channel_ranges(x, [rng.standard_normal((20, 16)).astype(np.float32)], options)
    a, s = found.factors, found.scale
    q, k = (rng.standard_normal((2, 20, 2, 8)).astype(np.float32) for _ in range(2))
    balance, s_q, s_k = attention_scales(q, k, 0.3, options)
    for scale in (a, s, balance, s_q, s_k, tensor_range(x, options).scale):
        assert (np.frexp(scale)[0] == 0.5).all()
    assert options.rounded(np.array([0.25, 0.26, 0.5])).tolist() == [0.25, 0.5, 0.5]


def test_power_of_two_keeps_within_the_accumulator():
    weight = np.sign(np.random.default_rng(0).standard_normal((4, 768))).astype(np.float32)
    inputs = InputScale(np.zeros(768), np.full(768, 1 / 256), np.zeros(768))
    bias = np.array([0.0, 20.0, -30.0, 0.0])
    linear = make_linear(weight, bias, inputs, 2.0**-10, QuantizeOptions(power_of_two=True), max_activation=255)
    assert linear.bounds(255).max() < 2**24 and (linear.multiplier == 1 << 15).all()


@pytest.mark.parametrize(
    ("wrong", "match"),
    [({"expert_bits": 6}, "expert_bits must be 4 or 8, not 6"), ({"ranges": "max"}, "ranges must be one of min-max")],
)
def test_refusals(wrong, match):
    with pytest.raises(QuantizeError, match=match):
        QuantizeOptions(**wrong)
