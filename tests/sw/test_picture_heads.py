"""Tokens before the patches, heads of the whole picture: float model, PyTorch, integers, programs, QONNX agree."""

import re

import numpy as np
import pytest

from edgemoe.bundle import Bundle
from edgemoe.compiler import CompilerOptions, build_bundle
from edgemoe.layout import gather_outputs, pack_patches
from edgemoe.reports.findings import finding
from edgemoe.reports.legends import colours
from edgemoe.reports.pictures import save_predictions
from edgemoe.runtime.driver import Driver
from edgemoe.runtime.platforms.null import NullPlatform
from edgemoe_hw.spec.config import PRESETS
from edgemoe_models import float_reference
from edgemoe_models.config import ModelConfig, TaskConfig
from edgemoe_models.integer import reference
from edgemoe_models.integer.postprocess import arrange, decode_output
from edgemoe_models.model_image import patchify
from edgemoe_models.ptq.quantize import quantize
from edgemoe_models.random_weights import random_images, random_state
from edgemoe_sim.command_model import POLICIES, FunctionalModel
from edgemoe_sim.trace import TraceChecker
from support.random_graphs import random_graph, small_model

#: Tokens before the patches, and what the head reads.
FORMS = [
    (0, "avg"),
    (1, "avg"),
    (5, "avg"),
    (0, "avg-norm"),
    (3, "avg-norm"),
    (2, "cls-dist"),
    (5, "cls-avg"),
    (4, "cls"),
]
PLAIN = {"num_experts": 0, "top_k": 0, "expert_hidden": 0}


def model_of(prefix, pool, kind="classification", **changes):
    return small_model(tasks=(TaskConfig("whole", kind, 11, pool=pool),), prefix_tokens=prefix, **changes)


def pixels(model, seed=3):
    return np.random.default_rng(seed).integers(0, 256, (model.image_height, model.image_width, 3)).astype(np.uint8)


@pytest.mark.parametrize("group", [2, 5])
@pytest.mark.parametrize(("prefix", "pool"), FORMS)
def test_programs_compute_what_the_reference_does(prefix, pool, group):
    model = model_of(prefix, pool)
    graph, image, expected = random_graph(model), pixels(model), {}
    bundle = build_bundle(graph, PRESETS["tiny"], CompilerOptions(group_tokens=group))
    bundle.check()
    outputs = reference.run(graph, image, "whole", expected)
    info = bundle.task("whole")
    checker = TraceChecker(bundle.config, info.program, info.trace, [expected], model.heads, model.num_tokens)
    source = pack_patches(bundle.config, patchify(image, model.patch))
    device = FunctionalModel(
        bundle.config, bundle.data.tobytes(), source, info.output_bytes, POLICIES["random"], 1, checker.check
    )
    memory = device.run(info.program)
    rows = gather_outputs(info.outputs, memory, info.output_rows, info.output_channels)
    assert checker.result.mismatches == 0, checker.result.first_mismatch
    assert {"embed", "blocks.1.residual2"} <= checker.result.tensors
    if pool == "avg-norm":
        assert rows.shape == (model.num_patches, model.dim)
        np.testing.assert_array_equal(rows, expected["blocks.1.residual2"][prefix:])
        rows = reference.run_head(graph, rows[None], "whole")[0]
    np.testing.assert_array_equal(rows, outputs)
    driver = Driver(NullPlatform(bundle.config), bundle)
    driver.memory.outputs[0].array[: len(memory)] = np.frombuffer(bytes(memory), np.uint8)
    found = driver.unpack("whole", 0)
    driver.close()
    assert found.dtype == np.int16
    np.testing.assert_array_equal(found, outputs)


@pytest.mark.parametrize(("prefix", "pool"), FORMS)
def test_integers_follow_the_float_model(prefix, pool):
    model = model_of(prefix, pool, **PLAIN)
    state, images = random_state(model), random_images(model, 16)
    outputs = np.stack(
        [arrange(model, "whole", rows) for rows in float_reference.forward(state, model, images, "whole")]
    )
    graph = quantize(state, model, images)
    found = np.stack([decode_output(graph, "whole", raw) for raw in reference.run_batch(graph, images, "whole")])
    assert found.shape == outputs.shape == (16, 11)
    assert np.abs(found - outputs).max() < 0.15 * np.abs(outputs).max()


@pytest.mark.parametrize(("prefix", "pool"), FORMS)
def test_pytorch_agrees(prefix, pool):
    torch = pytest.importorskip("torch", reason="torch is not installed: the float model is not compared with it")
    from edgemoe_models.m3vit import M3ViT

    model = model_of(prefix, pool, **PLAIN)
    state, images = random_state(model), random_images(model, 2)
    network = M3ViT(model)
    network.load_state_dict({name: torch.tensor(value) for name, value in state.items()})
    with torch.no_grad():
        found = network(torch.tensor(images.transpose(0, 3, 1, 2).astype(np.float32) / 256), "whole").numpy()
    outputs = [arrange(model, "whole", rows) for rows in float_reference.forward(state, model, images, "whole")]
    np.testing.assert_allclose(found, outputs, atol=1e-4)


@pytest.mark.parametrize(("prefix", "pool"), FORMS)
def test_qonnx_computes_the_same_bits(prefix, pool):
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: exported models are not run")
    from edgemoe_models.export_onnx.check import compare
    from edgemoe_models.export_onnx.model import export

    model = model_of(prefix, pool)
    graph = random_graph(model)
    result = compare(export(graph, "whole"), graph, "whole", pixels(model)[None])
    assert result.is_exact and result.tensors > 20, result


def test_the_host_finishes_what_the_device_has_written(tmp_path):
    import edgemoe

    model = model_of(2, "avg-norm", "features", **PLAIN)
    bundle = build_bundle(random_graph(model), PRESETS["tiny"])
    bundle.save(tmp_path / "features.emoe")
    bundle = Bundle.load(tmp_path / "features.emoe")
    image = pixels(model)
    with edgemoe.open("reference", bundle) as accelerator:
        found = accelerator.run(image, "whole")
    assert isinstance(found, edgemoe.Features) and found.raw.shape == (1, 11)
    np.testing.assert_array_equal(found.vector, decode_output(bundle.graph(), "whole", found.raw))
    assert found.values is found.vector and re.fullmatch(r"11 features of norm [\d.e+-]+", finding(found))
    save_predictions(tmp_path / "x", image, {"whole": found})
    assert not list(tmp_path.glob("*.png")) and colours({"whole": found}) == {}  # there is nothing to look at


@pytest.mark.parametrize(
    ("prefix", "task", "message"),
    [
        (1, {"pool": "max"}, "TaskConfig.pool must be one of"),
        (0, {}, "prefix_tokens must be at least 1 for the pool 'cls' of the task whole"),
        (1, {"pool": "cls-dist"}, "prefix_tokens must be at least 2"),
        (1, {"pool": "avg", "head_hidden": 8}, "is of linear heads of the whole picture"),
        (1, {"labels": ("a", "b")}, "must name the 11 classes of a classification, not be 2"),
        (1, {"labels": ("x" * 257,) * 11}, "1 to 256 printable letters"),
        (1, {"labels": ["a"] * 11}, "must be a tuple of texts"),
        (-1, {}, "prefix_tokens must be an integer of at least 0"),
    ],
)
def test_what_a_config_may_not_say(prefix, task, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        small_model(tasks=(TaskConfig("whole", "classification", 11, **task),), prefix_tokens=prefix)


def test_older_files_have_none_of_these_fields():
    plain = small_model()
    assert "prefix_tokens" not in plain.to_json() and "pool" not in plain.to_json() and "labels" not in plain.to_json()
    labels = tuple(f"class {number}" for number in range(11))
    named = small_model(tasks=(TaskConfig("whole", "classification", 11, pool="avg", labels=labels),), prefix_tokens=3)
    assert ModelConfig.from_json(named.to_json()) == named
