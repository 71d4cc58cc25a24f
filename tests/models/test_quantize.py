"""The float reference against torch, and post-training quantization against the float reference."""

import dataclasses
import json
import math

import numpy as np
import pytest
import safetensors.numpy

from edgemoe_models import float_reference
from edgemoe_models.arithmetic import ops
from edgemoe_models.checkpoint import LARGEST_WEIGHT, CheckpointError, load_checkpoint
from edgemoe_models.config import ACTIVATIONS, PRESETS, ModelConfig, TaskConfig
from edgemoe_models.graph.file import graph_bytes, read_graph
from edgemoe_models.integer import reference
from edgemoe_models.integer.postprocess import arrange, decode_output, postprocess, upsample
from edgemoe_models.ptq.activations import SMALLEST_UNIT, activation_scale_of, activation_scales, fit_activation
from edgemoe_models.ptq.layers import (
    InputScale,
    fixed_point,
    make_linear,
    make_norm,
)
from edgemoe_models.ptq.quantize import QuantizeError, QuantizeOptions, quantize, quantize_checkpoint
from edgemoe_models.ptq.search import attention_scales, channel_ranges
from edgemoe_models.random_weights import random_images, random_state
from edgemoe_models.trained_weights import weights_path

MIXED = ModelConfig(
    name="mixed",
    image_height=24,
    image_width=40,
    patch=8,
    dim=40,
    depth=4,
    heads=2,
    mlp_hidden=72,
    num_experts=5,
    top_k=3,
    expert_hidden=44,
    tasks=(
        TaskConfig("segmentation", "segmentation", 7, head_hidden=30, cells=2),
        TaskConfig("depth", "depth", 1, cells=4),
        TaskConfig("normals", "normals", 3),
        TaskConfig("label", "classification", 10),
    ),
)

#: Of the deviation of the outputs. Random networks magnify rounding errors, and 40 channels average little out:
#: trained ones come to about 0.02 to 0.05.
LARGEST_ERROR = 0.2


@pytest.fixture(scope="module")
def state():
    return random_state(MIXED)


# --- Float reference -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", [task.name for task in MIXED.tasks])
def test_float_reference_equals_torch(state, task):
    torch = pytest.importorskip("torch", reason="torch is not installed: the float reference is not compared with it")
    from edgemoe_models.m3vit import M3ViT

    model = M3ViT(MIXED).eval()
    model.load_state_dict({name: torch.from_numpy(value) for name, value in state.items()})
    images = random_images(MIXED, 3)
    with torch.no_grad():
        inputs = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 256
        raw, full = model.raw(inputs, task).numpy(), model(inputs, task).numpy()
    ours = float_reference.forward(state, MIXED, images, task)
    ours = np.stack([arrange(MIXED, task, rows) for rows in ours])
    assert ours.shape == raw.shape
    np.testing.assert_allclose(ours, raw, atol=2e-4 * np.abs(raw).max())
    if MIXED.task(task).is_dense:
        ours = np.stack([upsample(image, MIXED.image_height, MIXED.image_width) for image in ours])
        np.testing.assert_allclose(ours, full, atol=2e-4 * np.abs(raw).max())


# --- Scales ----------------------------------------------------------------------------------------------------------


def test_fixed_point_is_normalised_and_near():
    ratios = np.array([1.0, 0.9999999, 2.0**-30, 3e-4, 0.5, 32000.0])
    multiplier, shift = fixed_point(ratios)
    assert ((multiplier >= 2**15) & (multiplier.astype(int) < 2**16)).all()
    np.testing.assert_allclose(multiplier / 2.0 ** shift.astype(int), ratios, rtol=2**-16)


@pytest.mark.parametrize("ratio", [0.0, 2.0**-40, 2.0**17, float("nan"), float("inf")])
def test_fixed_point_refuses_what_does_not_fit(ratio):
    with pytest.raises(QuantizeError, match="a ratio of scales must be in"):
        fixed_point(np.array([ratio]))


def test_smooth_moves_an_outlier_channel_into_the_weights(rng):
    x = rng.standard_normal((300, 32)).astype(np.float32)
    x[:, 3] *= 40
    weight = rng.standard_normal((50, 32)).astype(np.float32)
    found = channel_ranges(x, [weight])
    a, scale = found.factors, found.scale
    assert a[3] > 4 * np.median(a)
    plain = np.full(32, np.abs(x).max() / 127)
    errors = [(np.rint(x / unit).clip(-127, 127) * unit - x) @ weight.T for unit in (a * scale, plain)]
    assert np.square(errors[0]).mean() < 0.3 * np.square(errors[1]).mean()


def test_attention_scales_do_not_clip_what_matters(rng):
    q, k = (rng.standard_normal((2, 60, 2, 16)).astype(np.float32) for _ in range(2))
    q[..., 1, 5] += 30  # a channel that is large for every token: clipping it would scale all scores
    a, s_q, s_k = attention_scales(q, k, 0.25)
    a = a.reshape(2, 16)
    rounded = [np.clip(np.rint(x / s), -127, 127) * s for x, s in ((q * a, s_q), (k / a, s_k))]
    scores, wanted = (np.einsum("bqhd,bkhd->bhqk", *pair) * 0.25 for pair in (rounded, (q, k)))
    assert np.abs((scores - scores.mean(-1, keepdims=True)) - (wanted - wanted.mean(-1, keepdims=True))).max() < 0.5


def test_make_linear_keeps_within_the_accumulator():
    weight = np.sign(np.random.default_rng(0).standard_normal((4, 768))).astype(np.float32)  # no row has a tail
    inputs = InputScale(np.zeros(768), np.full(768, 1 / 256), np.zeros(768))
    linear = make_linear(weight, np.array([0.0, 20.0, -30.0, 0.0]), inputs, 1e-3, max_activation=255)
    assert linear.bounds(255).max() < 2**24
    x = np.random.default_rng(1).integers(0, 256, (20, 768))
    acc = x @ linear.weight.T.astype(np.int64) + linear.bias
    ours = acc * linear.multiplier / 2.0 ** linear.shift.astype(int) * 1e-3
    np.testing.assert_allclose(ours, x / 256 @ weight.T + [0, 20, -30, 0], rtol=0.01, atol=0.15)
    assert linear.bias[1] > 0 > linear.bias[2]


def test_make_linear_and_make_norm_take_zero_weights():
    inputs = InputScale(np.zeros(8), np.ones(8), np.zeros(8))
    linear = make_linear(np.zeros((3, 8)), np.zeros(3), inputs, 0.1)
    assert not linear.weight.any() and not linear.bias.any()
    norm = make_norm(np.zeros(8), np.zeros(8), inputs, 1e-3, 1e-6)
    assert not norm.gamma.any() and not norm.beta.any()


# --- Whole models ----------------------------------------------------------------------------------------------------


def _relative_error(state, graph, task, images):
    """Root mean square error of the outputs over the deviation of the float ones."""
    wanted = float_reference.forward(state, graph.config, images, task)
    found = np.stack([reference.run(graph, image, task) for image in images]) * graph.heads[task].output_scale
    return np.sqrt(np.square(found - wanted).mean() / np.square(wanted - wanted.mean((0, 1))).mean())


@pytest.mark.parametrize("seed_of_weights", [0, 1])
def test_integer_outputs_are_near_the_float_ones(seed_of_weights):
    state = random_state(MIXED, seed_of_weights)
    graph = quantize(state, MIXED, random_images(MIXED, 8, 100))
    images = random_images(MIXED, 4)
    for task in MIXED.tasks:
        assert _relative_error(state, graph, task.name, images) < LARGEST_ERROR, task.name


def test_scales_dequantize_the_trace(state):
    graph = quantize(state, MIXED, random_images(MIXED, 4, 100))
    image = random_images(MIXED, 1)
    observed, trace = {}, {}
    float_reference.forward(state, MIXED, image, "depth", observed)
    reference.run(graph, image[0], "depth", trace)
    for name in ("embed", "blocks.0.norm1", "blocks.0.context", "blocks.0.residual1", "blocks.0.hidden", "norm"):
        ours, wanted = trace[name] * graph.scales[name], observed[name]
        ours, wanted = ours - ours.mean(0), wanted - wanted.mean(0)  # means may have moved into biases
        assert np.square(ours - wanted).mean() < 0.03 * np.square(wanted).mean(), name


def test_experts_without_calibration_tokens_still_work(state):
    """One calibration image, and a gate that no token sends to expert 2: its layers take the layer's ranges."""
    changed = dict(state)
    for i in (1, 3):
        for task in MIXED.tasks:
            gate = changed[f"blocks.{i}.moe.gate.{task.name}"].copy()
            gate[2] = gate[[0, 1, 3, 4]].mean(0)  # never among the top three of five? made sure below
            changed[f"blocks.{i}.moe.gate.{task.name}"] = gate
    config = dataclasses.replace(MIXED, top_k=1)
    observed = {}
    float_reference.forward(changed, config, random_images(config, 1), "depth", observed)
    assert len(observed["blocks.1.queues"][2]) == 0
    graph = quantize(changed, config, random_images(config, 1))
    weight, linear = changed["blocks.1.moe.w1"][2], graph.blocks[1].expert_fc1[2]
    correlation = np.corrcoef(
        (linear.weight * (linear.multiplier / 2.0 ** linear.shift.astype(int))[:, None]).ravel(),
        (weight * graph.scales["blocks.1.norm2"]).ravel(),
    )[0, 1]
    assert correlation > 0.999


def test_vit_without_experts(rng):
    config = dataclasses.replace(
        PRESETS["deit-tiny"],
        name="vit",
        image_height=32,
        image_width=48,
        patch=16,
        dim=48,
        depth=3,
        mlp_hidden=96,
        tasks=(TaskConfig("classification", "classification", 20),),
    )
    state = random_state(config)
    graph = quantize(state, config, random_images(config, 8, 100))
    raw = reference.run(graph, random_images(config, 1)[0], "classification")
    assert raw.shape == (1, 20) and decode_output(graph, "classification", raw).shape == (20,)


def test_half_precision_weights_are_taken(state):
    half = {name: value.astype(np.float16) for name, value in state.items()}
    assert quantize(half, MIXED, random_images(MIXED, 1)).config == MIXED


# --- Refusals --------------------------------------------------------------------------------------------------------


def _with(state, name, change):
    changed = dict(state)
    changed[name] = change(changed[name].copy())
    return changed


def _set_nan(value):
    value.flat[3] = np.nan
    return value


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda s: _with(s, "blocks.1.moe.w1", _set_nan), "blocks.1.moe.w1 holds 1 NaN or infinite values"),
        (lambda s: _with(s, "norm.bias", lambda v: v + np.inf), "norm.bias holds 40 NaN or infinite values"),
        (lambda s: _with(s, "cls_token", lambda v: v[:5]), r"cls_token must have the shape \[40\], not \[5\]"),
        (lambda s: _with(s, "cls_token", lambda v: v.astype(int)), "cls_token must be floating point, not int64"),
        (lambda s: {n: v for n, v in s.items() if n != "norm.weight"}, r"state dict lacks norm.weight \[40\]"),
        (lambda s: s | {"extra": np.zeros(1)}, "unexpected tensor extra; is it a checkpoint of mixed"),
        (lambda s: _with(s, "norm.weight", lambda v: v * np.float32(1e30)), "norm.weight holds values up to"),
    ],
)
def test_quantize_refuses_a_broken_state(state, change, match):
    with pytest.raises(CheckpointError, match=match):
        quantize(change(state), MIXED, random_images(MIXED, 1))


def test_the_largest_weights_do_not_overflow(state):
    """float64 holds whatever weights of the largest size allowed make of an image."""
    largest = {name: np.full_like(value, LARGEST_WEIGHT) for name, value in state.items()}
    for i, name in enumerate(n for n in largest if n.endswith(("weight", "w1", "w2"))):
        largest[name][..., i % 2 :: 2] *= -1
    for task in MIXED.tasks:
        assert np.isfinite(float_reference.forward(largest, MIXED, random_images(MIXED, 1), task.name)).all()


def test_quantize_refuses_other_images(state):
    with pytest.raises(QuantizeError, match=r"must be uint8 \[B, 24, 40, 3\], not uint8 \[1, 40, 24, 3\]"):
        quantize(state, MIXED, np.zeros((1, 40, 24, 3), np.uint8))


def test_quantize_checkpoint(state, tmp_path):
    path = tmp_path / "model.safetensors"
    safetensors.numpy.save_file(state, path, {"config": MIXED.to_json()})
    images = random_images(MIXED, 2)
    assert graph_bytes(quantize_checkpoint(path, images)) == graph_bytes(quantize(state, MIXED, images))


def test_trained_weights_lose_little():
    """The committed m3vit-micro on unseen scenes: every task's picture near the float model's."""
    path = weights_path("m3vit-micro")
    state, config = load_checkpoint(path)
    graph = quantize_checkpoint(path)
    images = random_images(config, 4)  # of the validation split
    for task in config.tasks:
        found, wanted = [], []
        for image, rows in zip(images, float_reference.forward(state, config, images, task.name), strict=True):
            ours = decode_output(graph, task.name, reference.run(graph, image, task.name))
            found.append(postprocess(config, task.name, ours))
            wanted.append(postprocess(config, task.name, arrange(config, task.name, rows)))
        if task.kind == "depth":
            assert np.sqrt(np.square(np.subtract(found, wanted)).mean()) < 0.15  # metres
        elif task.kind == "normals":
            assert (np.asarray(found) * wanted).sum(-1).mean() > 0.99  # cosine
        else:
            assert np.equal(found, wanted).mean() > 0.97


@pytest.mark.parametrize(
    ("write", "match"),
    [
        (lambda path, state: path.write_bytes(b"no"), "not a readable safetensors checkpoint"),
        (lambda path, state: safetensors.numpy.save_file(state, path), "is a safetensors file of another project"),
        (lambda path, state: safetensors.numpy.save_file(state, path, {"config": "{"}), "its config is wrong"),
        (lambda path, state: safetensors.numpy.save_file(state, path, {"config": json.dumps({"name": 1})}), "is wrong"),
        (lambda path, state: safetensors.numpy.save_file({}, path, {"config": MIXED.to_json()}), "lacks cls_token"),
    ],
)
def test_load_checkpoint_refuses(state, tmp_path, write, match):
    path = tmp_path / "model.safetensors"
    write(path, state)
    with pytest.raises(CheckpointError, match=match) as caught:
        load_checkpoint(path)
    assert str(path) in str(caught.value)


def test_the_unit_never_cuts_the_table(state):
    shrunk = (".mlp.fc1.weight", ".moe.w1")
    small = {name: value * (1e-3 if name.endswith(shrunk) else 1) for name, value in state.items()}
    graph = quantize(small, MIXED, random_images(MIXED, 2))
    for trace, scale, _ in activation_scales(graph):
        assert scale.unit >= np.float32(SMALLEST_UNIT["gelu"]), trace


def test_channels_of_unlike_ranges_get_shifts_of_their_own(rng):
    """Two of 64 channels reach 15 times further than the others: a scale for all would leave these a few steps."""
    reach = np.where(np.arange(64) < 2, 15.0, 1.0)
    x = np.abs(rng.normal(0, 0.3, (400, 64))) * reach
    weight = rng.normal(0, 1, (32, 64)) / reach  # all channels matter alike
    scale, (shift,) = fit_activation("gelu", [x], [weight], QuantizeOptions())
    assert set(shift[:2]) == {3} and shift[2:].max() <= 1
    inputs = scale.inputs(x, shift)
    found = inputs.mean + inputs.integers(x, inputs.mean, inputs.unit) * inputs.unit
    error = np.square((found - x) @ weight.T).mean() / np.square(x @ weight.T).mean()
    one = np.clip(np.rint(x / (x.max() / 127)), -127, 127) * (x.max() / 127)
    assert error < np.square((one - x) @ weight.T).mean() / np.square(x @ weight.T).mean() / 8


def test_what_an_activation_stands_for():
    scale = activation_scale_of("gelu", 0.01)
    shift = np.arange(4, dtype=np.uint8)
    q = np.arange(-300, 2048)
    for s in shift:
        real = scale.centre(shift)[s] + ops.activate(q, scale.activation.table, s) * scale.step(shift)[s]
        exact = np.array([0.5 * v * math.erfc(-v / math.sqrt(2)) for v in q * scale.unit])
        inside = exact <= scale.largest(shift)[s]
        assert np.abs(real - exact)[inside].max() <= 0.76 * scale.step(shift)[s]
    assert scale.shifts(scale.largest(shift)).tolist() == [0, 1, 2, 3]
    assert scale.shifts(np.array([0.0, 1e9])).tolist() == [0, 3]


def test_a_layer_that_saw_little_gets_the_coarsest_shift(rng):
    rows = [np.abs(rng.normal(0, 1, (n, 8))) for n in (0, 10, 200)]
    _, shifts = fit_activation("gelu", rows, [rng.normal(0, 1, (4, 8))] * 3, QuantizeOptions())
    assert (shifts[0] == 3).all() and (shifts[1] == 3).all() and (shifts[2] < 3).all()


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_every_activation_quantizes_as_well_as_gelu(tmp_path, kind):
    """Its graph beside its own float model, which equals torch's, on pictures that calibration did not see."""
    config = dataclasses.replace(MIXED, activation=kind)
    state, images = random_state(config), random_images(config, 4, seed=9)
    graph = quantize(state, config, random_images(config, 8))
    (tmp_path / "x").write_bytes(graph_bytes(graph))
    assert read_graph(tmp_path / "x").config.activation == kind
    for task in config.tasks[:3]:  # of all patches: 0.13 to 0.14 with GELU
        wanted = float_reference.forward(state, config, images, task.name)
        rows = [reference.run(graph, image, task.name).reshape(wanted[0].shape) for image in images]
        error = np.stack(rows) * graph.heads[task.name].output_scale - wanted
        assert np.square(error).mean() < LARGEST_ERROR**2 * wanted.var(), task.name
    for trace, scale, _ in activation_scales(graph):
        assert scale.unit >= np.float32(SMALLEST_UNIT[kind]), trace
    _equals_torch(config, state, images)


def _equals_torch(config, state, images):
    torch = pytest.importorskip("torch", reason="torch is not installed: the float reference is not compared with it")
    from edgemoe_models.m3vit import M3ViT

    model = M3ViT(config).eval()
    model.load_state_dict({name: torch.from_numpy(value) for name, value in state.items()})
    with torch.no_grad():
        found = model.raw(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 256, "segmentation").numpy()
    rows = float_reference.forward(state, config, images, "segmentation")
    ours = np.stack([arrange(config, "segmentation", row) for row in rows])
    assert np.abs(found - ours).max() < 1e-4 * np.abs(ours).max()


def test_a_dead_relu_is_quantized(state):
    """A layer of which no output is above zero has no range: ReLU's table would do with any unit."""
    config = dataclasses.replace(MIXED, activation="relu")
    dead = {
        name: (np.zeros_like(value) if name.endswith("mlp.fc1.weight") else value - 1.0)
        if name.startswith("blocks.0.mlp.fc1")
        else value
        for name, value in state.items()
    }
    graph = quantize(dead, config, random_images(config, 2))
    trace = reference.run(graph, random_images(config, 1, seed=5)[0], "depth")
    assert np.isfinite(trace).all()
