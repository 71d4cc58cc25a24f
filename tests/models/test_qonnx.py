"""The QONNX export equals the integer reference on every tensor, under onnxruntime and under qonnx's executor."""

import dataclasses

import numpy as np
import pytest

from edgemoe_models.config import ModelConfig, TaskConfig
from edgemoe_models.graph.file import write_graph
from edgemoe_models.integer import reference
from edgemoe_models.ptq.quantize import quantize
from edgemoe_models.random_weights import random_images, random_state
from support.random_graphs import flat_attention, random_graph, small_model

onnx = pytest.importorskip("onnx", reason="onnx is not installed: the QONNX export is not tested")
from edgemoe_models.export_onnx.check import compare, onnxruntime_executor  # noqa: E402
from edgemoe_models.export_onnx.model import export  # noqa: E402
from edgemoe_models.export_onnx.writer import OnnxGraph  # noqa: E402

TINY = ModelConfig(
    name="tiny",
    image_height=16,
    image_width=24,
    patch=8,
    dim=24,
    depth=2,
    heads=2,
    mlp_hidden=40,
    num_experts=4,
    top_k=2,
    expert_hidden=28,
    tasks=(
        TaskConfig("segmentation", "segmentation", 5, head_hidden=20, cells=2),
        TaskConfig("label", "classification", 10),
    ),
)


@pytest.fixture(scope="module")
def graph():
    return quantize(random_state(TINY), TINY, random_images(TINY, 4))


def with_expert_bits(graph, bits):
    """The graph with its experts' weights clipped to ``bits`` bits: other outputs, the same functions."""
    limit = 2 ** (bits - 1) - 1

    def clip(layers):
        return tuple(dataclasses.replace(x, weight=x.weight.clip(-limit, limit), bits=bits) for x in layers)

    blocks = tuple(
        dataclasses.replace(b, expert_fc1=clip(b.expert_fc1), expert_fc2=clip(b.expert_fc2)) for b in graph.blocks
    )
    return dataclasses.replace(graph, blocks=blocks)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("task", [task.name for task in TINY.tasks])
def test_every_tensor_is_equal_under_onnxruntime(graph, task, bits):
    graph = with_expert_bits(graph, bits)
    result = compare(export(graph, task), graph, task, random_images(TINY, 4, seed=50))
    assert result.is_exact, f"{result.worst} differs by {result.largest}"
    assert result.tensors > 35


def test_every_tensor_is_equal_under_qonnx(graph):
    result = compare(export(graph, "label"), graph, "label", random_images(TINY, 1, seed=50), "qonnx")
    assert result.is_exact, f"{result.worst} differs by {result.largest}"


def test_many_tokens_with_flat_attention_are_exact():
    """577 tokens, as of a ViT at 384 pixels: P.V's sums reach 2^24, where float32 knows even numbers only."""
    model = small_model(
        image_height=96, image_width=96, dim=8, depth=1, heads=1, mlp_hidden=8, num_experts=0, top_k=0, expert_hidden=0
    )
    graph = flat_attention(random_graph(model, seed=3))
    trace = {}
    image = np.random.default_rng(0).integers(0, 256, (96, 96, 3)).astype(np.uint8)
    reference.run(graph, image, "segmentation", trace)
    p, v = trace["blocks.0.probabilities"][0].astype(int), trace["blocks.0.v"].astype(int)
    assert np.abs(p @ v).max() > 2**24
    exported = export(graph, "segmentation")
    result = compare(exported, graph, "segmentation", image[None])
    assert result.is_exact, f"{result.worst} differs by {result.largest}"
    types = {value.name: value.type.tensor_type.elem_type for value in exported.graph.value_info}
    products = [types[node.output[0]] for node in exported.graph.node if node.op_type == "MatMul"]
    assert products.count(onnx.TensorProto.DOUBLE) == 1  # P.V alone


def test_a_changed_weight_is_found(graph):
    model = export(graph, "label")
    other = dataclasses.replace(graph, pos_embed=(graph.pos_embed + np.int16(1)))
    result = compare(model, other, "label", random_images(TINY, 1))
    assert not result.is_exact and result.largest >= 1 and result.worst


def test_gate_prefers_the_lower_expert_of_equal_logits(graph):
    """All gate weights zero: every token visits experts 0 and 1, whose scores are those of the reference."""
    gate = graph.blocks[1].gates["label"]
    equal = dataclasses.replace(gate, weight=np.zeros_like(gate.weight), bias=np.zeros_like(gate.bias))
    block = dataclasses.replace(graph.blocks[1], gates={**graph.blocks[1].gates, "label": equal})
    tied = dataclasses.replace(graph, blocks=(graph.blocks[0], block))
    assert compare(export(tied, "label"), tied, "label", random_images(TINY, 2)).is_exact


@pytest.mark.parametrize(("signed", "highest"), [(True, 3.0), (False, 7.0)])
def test_quant_function_equals_qonnx(signed, highest):
    """The definition that the file carries for onnxruntime, against qonnx's: ties, negatives, both ends."""
    from qonnx.custom_op.general.intquant import int_quant

    x = np.arange(-20, 21) / 4
    writer = OnnxGraph()
    y = writer.quant("x", 3, scale=0.5, signed=signed)
    model = writer.model("quant", {"x": x.shape}, {y: x.shape}, {})
    found = onnxruntime_executor(model, [y])({"x": x.astype(np.float32)})[y]
    bits = np.float32(3)
    assert np.array_equal(found, int_quant(x, 0.5, 0.0, bits, signed, signed, "ROUND"))
    assert found.max() == highest * 0.5


def test_weights_and_activations_are_quant_nodes(graph):
    """Each weight and each linear layer's input comes from Quant; the experts' bit width is in the file."""
    model = export(with_expert_bits(graph, 4), "label")
    constants = {x.name: onnx.numpy_helper.to_array(x) for x in model.graph.initializer}
    weights = {
        constants[node.input[0]].shape: int(constants[node.input[3]])
        for node in model.graph.node
        if node.op_type == "Quant" and node.input[0] in constants
    }
    assert weights[24, 28] == weights[28, 24] == 4
    assert weights[24, 72] == weights[24, 40] == 8


def test_command_line(edgemoe, graph, tmp_path):
    path, out = tmp_path / "tiny.safetensors", tmp_path / "new" / "tiny.onnx"
    write_graph(graph, path)
    arguments = ["export", "--model", path, "--out", out, "--task"]
    assert "2 images, 36 tensors" in edgemoe.ok(*arguments, "label", "--check", 2)
    onnx.checker.check_model(out)
    edgemoe(*arguments, "depth").refused("edgemoe: task must be one of ['segmentation', 'label'], not 'depth'\n")
    edgemoe(*arguments, "label", "--executor", "x").refused("executor must be one of onnxruntime, qonnx, not 'x'")
    missing = tmp_path / "none.safetensors"
    edgemoe("export", "--model", missing, "--task", "label", "--out", out).refused("none.safetensors")
