"""The integer graph's file, its refusals and its accumulator bound."""

import dataclasses
import json

import numpy as np
import pytest
import safetensors
import safetensors.numpy

from edgemoe_models.config import ModelConfig, TaskConfig
from edgemoe_models.graph.file import (
    METADATA_KEY,
    digest,
    graph_bytes,
    parse_graph,
    read_graph,
    read_outline,
    write_graph,
)
from edgemoe_models.graph.integer_graph import GraphError
from edgemoe_models.integer import reference
from edgemoe_models.ptq.quantize import quantize
from edgemoe_models.random_weights import random_images, random_state


@pytest.fixture(scope="module")
def graph():
    config = ModelConfig(
        name="odd",
        image_height=12,
        image_width=20,
        patch=4,
        dim=24,
        depth=2,
        heads=2,
        mlp_hidden=20,
        num_experts=3,
        top_k=2,
        expert_hidden=10,
        tasks=(
            TaskConfig("segmentation", "segmentation", 3, head_hidden=14, cells=2),
            TaskConfig("label", "classification", 5),
        ),
    )
    return quantize(random_state(config), config, random_images(config, 2))


def test_load_returns_what_was_saved(graph, tmp_path):
    write_graph(graph, tmp_path / "a")
    loaded = read_graph(tmp_path / "a")
    write_graph(loaded, tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert loaded.config == graph.config and loaded.residual_scale == graph.residual_scale
    image = random_images(graph.config, 1, 7)[0]
    for task in graph.config.tasks:
        expected, found = {}, {}
        reference.run(graph, image, task.name, expected)
        reference.run(loaded, image, task.name, found)
        assert expected.keys() == found.keys()
        for name, value in expected.items():
            for a, b in zip(value, found[name], strict=True):
                assert np.array_equal(a, b), name


def test_bytes_are_the_files(graph, tmp_path):
    write_graph(graph, tmp_path / "a")
    content = graph_bytes(graph)
    assert content == (tmp_path / "a").read_bytes() == graph_bytes(parse_graph(content))
    with pytest.raises(GraphError, match="^not a readable graph file"):
        parse_graph(content[:-1])
    config, scalars = read_outline(content)
    assert config == graph.config and scalars["residual_scale"] == graph.residual_scale


def test_int4_experts_are_saved_and_loaded(graph, tmp_path):
    def narrow(linears):
        return tuple(dataclasses.replace(linear, weight=(linear.weight >> 5) | 1, bits=4) for linear in linears)

    blocks = tuple(
        dataclasses.replace(b, expert_fc1=narrow(b.expert_fc1), expert_fc2=narrow(b.expert_fc2)) for b in graph.blocks
    )
    (qkv,) = narrow([blocks[0].qkv])
    blocks = (dataclasses.replace(blocks[0], qkv=qkv), *blocks[1:])
    narrowed = dataclasses.replace(graph, blocks=blocks)
    write_graph(narrowed, tmp_path / "a")
    loaded = read_graph(tmp_path / "a")
    assert loaded.expert_bits == 4 and loaded.int4_layers == ("blocks.0.qkv",)
    for (_, expected, _), (_, found, _) in zip(narrowed.linears(), loaded.linears(), strict=True):
        assert np.array_equal(expected.weight, found.weight) and expected.bits == found.bits


def test_only_some_layers_may_have_four_bits(graph):
    """And of experts all or none: they share what a program's commands are made for."""
    head = next(iter(graph.heads))
    small = dataclasses.replace(graph.heads[head].out, weight=graph.heads[head].out.weight >> 5, bits=4)
    with pytest.raises(GraphError, match=f"heads.{head}: this layer's weights have 8 bits, not 4"):
        dataclasses.replace(graph, heads=graph.heads | {head: dataclasses.replace(graph.heads[head], out=small)})
    moe = next(i for i, block in enumerate(graph.blocks) if block.is_moe)
    first, *others = graph.blocks[moe].expert_fc1
    changed = (dataclasses.replace(first, weight=np.zeros_like(first.weight), bits=4), *others)
    blocks = [*graph.blocks]
    blocks[moe] = dataclasses.replace(blocks[moe], expert_fc1=changed)
    with pytest.raises(GraphError, match=r"all experts' weights must have the same bits, not \[4, 8\]"):
        dataclasses.replace(graph, blocks=tuple(blocks))


def test_trace_has_every_tensor_in_its_shape(graph):
    trace = {}
    raw = reference.run(graph, random_images(graph.config, 1)[0], "segmentation", trace)
    t, d, h, e = 16, 24, 2, 3
    shapes = {"embed": (t, d), "norm": (t - 1, d)}
    shapes |= {"heads.segmentation.hidden": (t - 1, 14), "heads.segmentation": (t - 1, 12)}
    per_token = ("norm1", "q", "k", "v", "context", "residual1", "norm2", "residual2")
    for i in range(2):
        shapes |= {f"blocks.{i}.{x}": (t, d) for x in per_token}
        shapes |= {f"blocks.{i}.{x}": (h, t, t) for x in ("scores", "probabilities")}
        shapes[f"blocks.{i}.score_max"] = (h, t)
    shapes |= {"blocks.0.hidden": (t, 20), "blocks.1.gate_logits": (t, e)}
    shapes |= {f"blocks.1.experts.{j}.hidden": (len(trace["blocks.1.queues"][j]), 10) for j in range(e)}
    assert {n: v.shape for n, v in trace.items() if not isinstance(v, list)} == shapes
    assert [len(s) for s in trace["blocks.1.gate_scores"]] == [len(q) for q in trace["blocks.1.queues"]]
    assert np.array_equal(raw, trace["heads.segmentation"])


def test_only_the_cls_row_reaches_a_classification_head(graph):
    trace = {}
    raw = reference.run(graph, random_images(graph.config, 1)[0], "label", trace)
    assert raw.shape == (1, 5) and trace["norm"].shape == (1, 24)


@pytest.mark.parametrize(
    "image", [np.zeros((12, 20), np.uint8), np.zeros((20, 12, 3), np.uint8), np.zeros((12, 20, 3), np.float32), [[0]]]
)
def test_run_refuses_another_image(graph, image):
    with pytest.raises(ValueError, match=r"image must be uint8 \[12, 20, 3\] \(height, width, RGB\), not"):
        reference.run(graph, image, "label")


def test_run_refuses_an_unknown_task(graph):
    with pytest.raises(ValueError, match="task must be one of .*'label'.*, not 'depth'"):
        reference.run(graph, np.zeros((12, 20, 3), np.uint8), "depth")


# --- Files that must be refused --------------------------------------------------------------------------------------


def _refused(path, match):
    with pytest.raises(GraphError, match=match) as caught:
        read_graph(path)
    assert str(path) in str(caught.value)


def _rewrite(path, change):
    """Save a file again with changed tensors and metadata, sha256 as it was."""
    with safetensors.safe_open(path, framework="numpy") as file:
        document = json.loads(file.metadata()[METADATA_KEY])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # a handle, no mapping
    change(tensors, document)
    path.write_bytes(safetensors.numpy.save(tensors, {METADATA_KEY: json.dumps(document)}))


def _resign(path, change):
    """Like _rewrite, with the sha256 made right: only the checks behind it can refuse."""

    def sign(tensors, document):
        change(tensors, document)
        document.pop("sha256")
        document["sha256"] = digest(tensors, document)

    _rewrite(path, sign)


@pytest.fixture
def path(graph, tmp_path):
    write_graph(graph, tmp_path / "model.graph")
    return tmp_path / "model.graph"


@pytest.mark.parametrize("length", [0, 5, 100, 5000, -1])
def test_load_refuses_a_truncated_file(path, length):
    path.write_bytes(path.read_bytes()[:length])
    _refused(path, "not a readable graph file .*; copy it again, or quantize the checkpoint again")


def test_load_refuses_a_missing_file(tmp_path):
    _refused(tmp_path / "none", "not a readable graph file")


def test_load_refuses_a_flipped_bit(path):
    data = bytearray(path.read_bytes())
    data[-100] ^= 4
    path.write_bytes(data)
    _refused(path, "do not match its sha256, the file is damaged")


def test_load_refuses_another_safetensors_file(path):
    path.write_bytes(safetensors.numpy.save({"x": np.zeros(3)}, {"format": "pt"}))
    _refused(path, "no integer graph; quantize the float checkpoint first")


def test_load_refuses_another_version(path):
    _rewrite(path, lambda tensors, document: document.update(version=99))
    _refused(path, "graph format 99, but this edgemoe reads 3; quantize the checkpoint again")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_load_refuses_metadata_that_is_not_finite(path, value):
    with pytest.raises(GraphError, match=r"which is no finite number\); quantize the checkpoint again"):
        _rewrite(path, lambda tensors, document: document["scalars"].update(residual_scale=value))
        read_graph(path)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda t, d: t.pop("blocks.0.qkv.weight"), "the graph lacks 'blocks.0.qkv.weight'"),
        (lambda t, d: t.update(extra=np.zeros(1)), r"unexpected tensors \['extra'\]"),
        (lambda t, d: t["patch_embed.weight"].fill(-128), r"tensor patch_embed.weight must lie in -127..127"),
        (lambda t, d: t.update({"norm.gamma": np.zeros(24)}), r"norm.gamma must be int16 \[24\], not float64 \[24\]"),
        (lambda t, d: t.update({"norm.gamma": np.zeros(23, np.int16)}), r"must be int16 \[24\], not int16 \[23\]"),
        (lambda t, d: d["scalars"].update({"norm.shift": 32}), r"norm.shift must be an integer in 0..31, not 32"),
        (lambda t, d: d["scalars"].update({"residual_scale": 0.0}), "residual_scale must be positive and finite"),
        (lambda t, d: d["config"].update(dim=25), "heads must divide dim"),
        (lambda t, d: d.pop("config"), "the graph lacks 'config'"),
        (lambda t, d: d["scalars"].update({"blocks.0.qkv.bits": 6}), r"qkv: bits must be one of \(8, 4\), not 6"),
        (lambda t, d: d["scalars"].update({"blocks.0.qkv.bits": 4}), r"qkv: with 4 bits .* must lie in -7..7"),
        (lambda t, d: t["scale.norm"].fill(np.nan), "scale of norm must be positive and finite"),
        (lambda t, d: t.update({"scale.norm": np.ones(24)}), "scale of norm must be positive and finite"),
        (lambda t, d: d["scalars"].update({"norm.shift": True}), "norm.shift must be an integer in 0..31, not True"),
        (lambda t, d: d["scalars"].update({"norm.shifts": 1}), r"unexpected scalars \['norm.shifts'\]"),
        (lambda t, d: d.update(scalars=[]), r"scalars must be an object, not \[\]"),
        (lambda t, d: d.update(version=2.0), "graph format 2.0, but this edgemoe reads 3"),
        (lambda t, d: d["config"].update(depth=10**9), "depth must be at most 256, not 1000000000"),
        (lambda t, d: d["config"].update(tasks=[{}] * 1000), "TaskConfig must have the fields"),
    ],
)
def test_load_refuses_an_inconsistent_graph(path, change, match):
    _resign(path, change)
    _refused(path, match)


# --- The accumulator bound -------------------------------------------------------------------------------------------


def test_bound_check_names_layer_channel_and_excess(graph):
    weight = np.zeros_like(graph.patch_embed.weight)
    weight[5] = 127
    bias = np.zeros_like(graph.patch_embed.bias)
    bias[5] = 2**24 - 255 * 127 * 48
    bad = dataclasses.replace(graph, patch_embed=dataclasses.replace(graph.patch_embed, weight=weight, bias=bias))
    with pytest.raises(GraphError, match="patch_embed: .* channel 5 may reach 16777216, 1 more than the 24 bits"):
        bad.bound_check()
    bias[5] -= 1
    bad.bound_check()


def test_bound_check_covers_attention(graph):
    """1036 tokens are the most that P.V's 26-bit accumulators take: more than an accelerator can have."""
    config = dataclasses.replace(graph.config, image_height=180, image_width=92)
    assert config.num_tokens == 1036
    dataclasses.replace(graph, config=config).bound_check()
    config = dataclasses.replace(graph.config, image_height=112, image_width=148)
    with pytest.raises(GraphError, match=r"blocks.\*.context: .* 28814 more than the 25 bits allow \(1037 tokens"):
        dataclasses.replace(graph, config=config).bound_check()
