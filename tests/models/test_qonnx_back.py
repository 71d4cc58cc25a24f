"""A QONNX file of ours gives its integer graph back, with whatever names; another's or a changed one is refused."""

import re

import numpy as np
import pytest

from edgemoe_models.config import TaskConfig
from edgemoe_models.graph.file import read_graph
from edgemoe_models.importers import ImportOptions, ImportRefused, import_checkpoint, save_imported
from edgemoe_models.integer import reference
from support.random_graphs import random_graph, small_model

onnx = pytest.importorskip("onnx", reason="onnx is not installed: no QONNX file is read")
from edgemoe_models.export_onnx.model import export  # noqa: E402
from edgemoe_models.export_onnx.read_back import ReadBackError, read_back  # noqa: E402

PLAIN = {"num_experts": 0, "top_k": 0, "expert_hidden": 0}
MODELS = {
    "experts": (small_model(), 8),
    "int4 experts": (small_model(), 4),
    "SiLU": (small_model(activation="silu"), 8),
    "no experts": (small_model(**PLAIN), 8),
    "pooled": (small_model(tasks=(TaskConfig("classification", "classification", 5, pool="avg"),), prefix_tokens=3), 8),
    "two heads": (
        small_model(tasks=(TaskConfig("classification", "classification", 5, pool="cls-dist"),), prefix_tokens=2),
        8,
    ),
    "finished by the host": (
        small_model(tasks=(TaskConfig("classification", "features", 5, pool="avg-norm"),), prefix_tokens=0, **PLAIN),
        8,
    ),
}


def image(config, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (config.image_height, config.image_width, 3)).astype(np.uint8)


def renamed(model):
    """Every tensor, node and constant under another name: as a tool that rewrites names leaves it."""
    names = {}

    def new(name):
        return names.setdefault(name, f"t{len(names)}") if name else name

    graph = model.graph
    for node in graph.node:
        node.input[:] = [new(name) for name in node.input]
        node.output[:] = [new(name) for name in node.output]
        node.name = ""
    for values in (graph.initializer, graph.input, graph.output):
        for value in values:
            value.name = new(value.name)
    del graph.value_info[:]
    return model


@pytest.mark.parametrize("form", MODELS)
def test_it_computes_the_same_bits(form):
    config, bits = MODELS[form]
    graph = random_graph(config, expert_bits=bits)
    for task in config.tasks:
        found = read_back(renamed(export(graph, task.name)))
        assert found.expert_bits == bits and found.config.activation == config.activation
        assert [task.name for task in found.config.tasks] == [task.name]
        trace, wanted = {}, {}
        raw = reference.run(found, image(config), task.name, trace)
        np.testing.assert_array_equal(raw, reference.run(graph, image(config), task.name, wanted))
        assert trace.keys() == wanted.keys()
        for name, value in wanted.items():
            for one, other in zip(value, trace[name], strict=True):
                np.testing.assert_array_equal(one, other)
        assert found.heads[task.name].output_scale == pytest.approx(graph.heads[task.name].output_scale)


def test_import_writes_the_graph(tmp_path):
    graph = random_graph(small_model())
    onnx.save(export(graph, "segmentation"), tmp_path / "x.onnx")
    imported = import_checkpoint(tmp_path / "x.onnx", ImportOptions())
    assert any("its integer graph" in note for note in imported.notes)
    (path,) = save_imported(imported, tmp_path / "x.onnx", tmp_path / "y.safetensors")
    found, config = read_graph(path), small_model()
    assert [task.name for task in found.config.tasks] == ["segmentation"]
    np.testing.assert_array_equal(
        reference.run(found, image(config), "segmentation"), reference.run(graph, image(config), "segmentation")
    )
    with pytest.raises(ImportRefused, match=re.escape("is quantized already: leave --image-height out")):
        import_checkpoint(tmp_path / "x.onnx", ImportOptions(image_height=12, image_width=16))


def test_from_the_command_line_to_a_bundle(edgemoe, tmp_path):
    onnx.save(export(random_graph(small_model()), "classification"), tmp_path / "x.onnx")
    text = edgemoe.ok("import", tmp_path / "x.onnx", "--out", tmp_path / "y.safetensors")
    assert "nodes are those of edgemoe export" in text and "\nIt fits pynq-z2, zcu102, tiny, " in text
    text = edgemoe.ok(
        "compile", "--model", tmp_path / "y.safetensors", "--config", "tiny", "--out", tmp_path / "z.emoe"
    )
    assert "tasks classification" in text
    (tmp_path / "bad.onnx").write_bytes(b"nothing")
    edgemoe("import", tmp_path / "bad.onnx", "--out", tmp_path / "w.safetensors").refused("no readable ONNX file")
    assert not (tmp_path / "w.safetensors").exists()


def changed(change):
    model = export(random_graph(small_model()), "classification")
    change(model)
    return model


def set_operator(model):
    model.graph.node[5].op_type = "Sub" if model.graph.node[5].op_type != "Sub" else "Add"


def swap_inputs(model):
    node = next(node for node in model.graph.node if node.op_type == "MatMul" and node.input[0] != node.input[1])
    node.input[:] = [node.input[1], node.input[0]]


def set_table(model):
    """A constant that is the arithmetic's and not the graph's."""
    tables = [t for t in model.graph.initializer if list(t.dims) == [1 << 14]]
    tables[0].CopyFrom(onnx.numpy_helper.from_array(np.ones(1 << 14), tables[0].name))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_operator, "where export writes"),
        (swap_inputs, "reads another tensor than export's"),
        (set_table, "has other constants than export writes"),
        (lambda model: model.graph.node.pop(), "it ends before a node"),
        (lambda model: model.graph.node.append(model.graph.node[-1]), "nodes more than export writes"),
        (lambda model: setattr(model.metadata_props[0], "value", "{"), "its metadata is damaged"),
    ],
)
def test_what_is_not_ours_is_refused(change, message):
    with pytest.raises(ReadBackError, match=re.escape(message)):
        read_back(changed(change))
