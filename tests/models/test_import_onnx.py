"""ONNX files that torch.onnx writes of other libraries' networks: imported by their graphs' structure, or refused."""

import re

import numpy as np
import pytest

from edgemoe_models.importers import ImportOptions, ImportRefused, import_checkpoint
from support.foreign_libraries import draw_weights, foreign

onnx = pytest.importorskip("onnx", reason="onnx is not installed: no ONNX file is imported")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: imported graphs are not compared with it")

TIMM = {"img_size": 64, "depth": 2, "embed_dim": 96, "num_heads": 3, "num_classes": 11}
HUGGING_FACE = {"hidden_size": 96, "num_hidden_layers": 2, "num_attention_heads": 3, "image_size": 64}
#: Of each network the library, its constructor and what differs from the above, then pool, tokens before the patches.
NETWORKS = {
    "ViT": ("timm", "vit_tiny_patch16_224", {}, "cls", 1),
    "no head": ("timm", "vit_tiny_patch16_224", {"num_classes": 0}, "cls", 1),
    "distilled DeiT": ("timm", "deit_tiny_distilled_patch16_224", {}, "cls-dist", 2),
    "DeiT-III": ("timm", "deit3_small_patch16_224", {}, "cls", 1),
    "DINOv2 with registers": ("timm", "vit_small_patch14_reg4_dinov2", {"img_size": 56, "num_classes": 0}, "cls", 5),
    "mean before the norm": ("timm", "vit_little_patch16_reg4_gap_256", {}, "avg-norm", 4),
    "mean after the norm": ("timm", "vit_medium_patch16_gap_256", {}, "avg", 0),
    "ViT of Hugging Face": ("transformers", "ViTForImageClassification", {}, "cls", 1),
    "backbone of Hugging Face": ("transformers", "ViTModel", {}, "cls", 1),
    "DeiT of Hugging Face": ("transformers", "DeiTForImageClassificationWithTeacher", {}, "cls-dist", 2),
    "DINOv2 of Hugging Face": ("transformers", "Dinov2ForImageClassification", {"patch_size": 16}, "cls-avg", 1),
    "torchvision": ("torchvision.models", "VisionTransformer", {}, "cls", 1),
}
#: How they are exported: with TorchScript or torch.export, and the version of ONNX's operators.
EXPORTERS = [(False, 14), (False, 17), (True, 18)]
#: All of them, and GELU as one operator in three.
CASES = [(line, *exporter) for line in NETWORKS for exporter in EXPORTERS]
CASES += [(line, True, 20) for line in ("ViT", "torchvision", "DINOv2 of Hugging Face")]


def network(library, name, changes, **more):
    module = foreign(library)
    if library == "timm":
        return draw_weights(module.create_model(name, **(TIMM | changes | more)))
    if library == "transformers":
        kind = re.sub(r"(ForImageClassification.*|Model)$", "Config", name)
        return draw_weights(getattr(module, name)(getattr(module, kind)(**(HUGGING_FACE | changes | more))))
    return draw_weights(module.VisionTransformer(64, 16, 2, 3, 96, 200, num_classes=7))


def export(model, path, dynamo, opset, size=64):
    import torch

    picture = torch.zeros(1, 3, size, size)
    torch.onnx.export(
        model, (picture,), str(path), opset_version=opset, dynamo=dynamo, verbose=False, input_names=["picture"]
    )
    return path


@pytest.mark.filterwarnings("ignore")  # of the exporters
@pytest.mark.parametrize(("line", "dynamo", "opset"), CASES)
def test_a_graph_is_recognised(tmp_path, line, dynamo, opset):
    library, name, changes, pool, prefix = NETWORKS[line]
    model = network(library, name, changes)
    path = export(model, tmp_path / "x.onnx", dynamo, opset, changes.get("img_size", 64))
    imported = import_checkpoint(path, ImportOptions())
    config, (task,) = imported.config, imported.config.tasks
    assert (task.pool, config.prefix_tokens, config.heads, config.depth) == (pool, prefix, 3, 2)
    assert task.kind == ("features" if "no head" in line or "backbone" in line or "registers" in line else task.kind)
    report = " ".join(imported.notes)
    assert re.search(r"(\d+) of \d+ nodes mapped: patch embedding of 4 x 4 patches", report)
    assert float(re.search(r"2 random pictures: relative difference (\S+?)(;|$| )", report)[1]) < 1e-4
    assert "assumed" not in report


#: What exporters make of activations: x * Sigmoid(x), x * Sigmoid(1.702 x), Relu.
ACTIVATIONS = {
    "SiLU of timm": ("timm", {"act_layer": "silu"}, "silu"),
    "SiLU of Hugging Face": ("transformers", {"hidden_act": "silu"}, "silu"),
    "QuickGELU of timm": ("timm", {"act_layer": "quick_gelu"}, "quick-gelu"),
    "QuickGELU of Hugging Face": ("transformers", {"hidden_act": "quick_gelu"}, "quick-gelu"),
    "ReLU of timm": ("timm", {"act_layer": "relu"}, "relu"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("line", ACTIVATIONS)
@pytest.mark.parametrize(("dynamo", "opset"), [(False, 14), (True, 18)])
def test_activations_are_recognised(tmp_path, line, dynamo, opset):
    """The import compares its network with onnxruntime's outputs, and is refused where they differ."""
    library, changes, kind = ACTIVATIONS[line]
    names = {"timm": "vit_tiny_patch16_224", "transformers": "ViTForImageClassification"}
    path = export(network(library, names[library], changes), tmp_path / "x.onnx", dynamo, opset)
    imported = import_checkpoint(path, ImportOptions())
    assert imported.config.activation == kind
    assert f"({line.split()[0]})" in " ".join(imported.notes)


def test_activations_as_one_operator():
    """``Swish`` of opset 24 and ONNX Runtime's ``QuickGelu``, which no exporter here writes."""
    from edgemoe_models.importers.onnx_graph import operators, values

    norm = values.Norm(2, 3, None, np.ones(3), np.zeros(3), 1e-6)
    layer = operators.linear(values.whole(norm, 2, 3), np.ones((4, 3)), np.zeros(4))
    cases = [
        ("Gelu", {}, "gelu"),
        ("Relu", {}, "relu"),
        ("Swish", {}, "silu"),
        ("Swish", {"alpha": 1.702}, "quick-gelu"),
    ]
    cases += [("QuickGelu", {}, "quick-gelu"), ("QuickGelu", {"alpha": 1.0}, "silu")]
    for operator, attributes, kind in cases:
        assert operators.activation(layer, operator, attributes).source.kind == kind
    with pytest.raises(values.Unmapped, match="sigmoid of 1.5 x"):
        operators.activation(layer, "Swish", {"alpha": 1.5})
    with pytest.raises(values.Unmapped, match="Relu of something else than a linear layer"):
        operators.activation(np.ones(3), "Relu", {})
    with pytest.raises(values.Unmapped, match="a gated MLP"):
        operators.activation(layer.at(layer.index[:, :2]), "Swish", {})


@pytest.mark.filterwarnings("ignore")
def test_blocks_of_different_activations(tmp_path):
    import torch

    model = network("timm", "vit_tiny_patch16_224", {"act_layer": "silu"})
    model.blocks[1].mlp.act = torch.nn.ReLU()
    with pytest.raises(ImportRefused, match="MLPs of SiLU and of ReLU, where ours have one activation"):
        import_checkpoint(export(model, tmp_path / "x.onnx", False, 17), ImportOptions())


@pytest.mark.filterwarnings("ignore")
def test_a_sigmoid_of_another_slope(tmp_path):
    import torch

    class Steep(torch.nn.Module):
        def forward(self, x):
            return x * torch.sigmoid(1.6 * x)

    model = network("timm", "vit_tiny_patch16_224", {})
    for block in model.blocks:
        block.mlp.act = Steep()
    with pytest.raises(ImportRefused, match=re.escape("SiLU, ReLU and QuickGELU: sigmoid of 1.6 x")):
        import_checkpoint(export(model, tmp_path / "x.onnx", False, 17), ImportOptions())


@pytest.mark.filterwarnings("ignore")
def test_attention_that_is_not_fused(tmp_path):
    layers = foreign("timm.layers")
    layers.set_fused_attn(False)
    try:
        model = network("timm", "vit_tiny_patch16_224", {})
    finally:
        layers.set_fused_attn(True)
    imported = import_checkpoint(export(model, tmp_path / "x.onnx", False, 13), ImportOptions())
    assert imported.config.heads == 3
    eager = network("transformers", "ViTForImageClassification", {}, attn_implementation="eager")
    assert import_checkpoint(export(eager, tmp_path / "y.onnx", False, 13), ImportOptions()).config.heads == 3


@pytest.mark.filterwarnings("ignore")
def test_normalization_in_the_graph_and_another_size(tmp_path):
    """The picture's own constants are folded, and position embeddings resampled as those of a state dict."""
    import torch

    class Whole(torch.nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, x):
            mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in ((0.4, 0.5, 0.6), (0.2, 0.3, 0.4)))
            return self.model((x - mean) / std).softmax(-1)

    model = network("timm", "vit_tiny_patch16_224", {})
    path = export(Whole(model), tmp_path / "x.onnx", False, 17)
    zero, one = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    whole = import_checkpoint(path, ImportOptions(mean=zero, std=one))
    plain = import_checkpoint(
        export(model, tmp_path / "y.onnx", False, 17), ImportOptions(mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
    )
    for name, value in plain.state.items():
        np.testing.assert_allclose(whole.state[name], value, atol=1e-5)
    wide = import_checkpoint(path, ImportOptions(mean=zero, std=one, image_height=32, image_width=128))
    assert wide.config.grid == (2, 8) and any("resampled from 4 x 4 to 2 x 8" in note for note in wide.notes)


#: What is refused: the network, and words on the first node that has no counterpart.
REFUSED = {
    "approximate GELU": (
        "timm",
        "vit_tiny_patch16_224",
        {"act_layer": "gelu_tanh"},
        "powers of a layer, as in the approximation by tanh",
    ),
    "hard swish": (
        "timm",
        "vit_tiny_patch16_224",
        {"act_layer": "hard_swish"},
        "an activation other than the exact GELU, SiLU, ReLU and QuickGELU",
    ),
    "gated SiLU": (
        "timm",
        "vit_giant_patch14_dinov2",
        {"img_size": 56, "act_layer": "silu"},
        "an activation of some channels of a layer: a gated MLP",
    ),
    "RMSNorm": (
        "timm",
        "vit_tiny_patch16_224",
        {"norm_layer": "rmsnorm"},
        "squares of the tokens, as RMSNorm has them",
    ),
    "qk-norm": (
        "timm",
        "vit_tiny_patch16_224",
        {"qk_norm": True},
        "a norm of queries, keys or another layer's outputs",
    ),
    "CLIP": ("timm", "vit_base_patch32_clip_224", {}, "one before the first block, as CLIP has it"),
    "post-norm": ("timm", "vit_base_patch16_rpn_224", {}, "post-norm"),
    "RoPE": ("timm", "vit_small_patch16_rope_ape_224", {}, "RoPE"),
    "relative bias": ("timm", "vit_relpos_small_patch16_224", {}, "relative position biases"),
    "parallel": ("timm", "vit_pwee_patch16_reg1_gap_256", {}, "MLP and attention in parallel"),
    "SwiGLU": ("timm", "vit_giant_patch14_dinov2", {"img_size": 56}, "a gated MLP"),
    "a pyramid": ("timm", "resnet18", {"img_size": None}, "not patches"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("line", REFUSED)
def test_the_first_node_without_a_counterpart_is_named(tmp_path, line):
    library, name, changes, message = REFUSED[line]
    if name == "resnet18":
        model = draw_weights(foreign("timm").create_model(name))
    else:
        model = network(library, name, changes)
    dynamo = line in ("RoPE", "RMSNorm")  # the other exporter fails
    path = export(model, tmp_path / "x.onnx", dynamo, 18 if dynamo else 17, changes.get("img_size") or 64)
    with pytest.raises(ImportRefused, match=r"node \d+ '.*' .*" + re.escape(message)):
        import_checkpoint(path, ImportOptions())


def model_of(nodes, constants=(), size=(1, 3, 8, 8)):
    helper = onnx.helper
    picture = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, size)
    output = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
    tensors = [onnx.numpy_helper.from_array(value, name) for name, value in constants]
    graph = helper.make_graph(nodes, "graph", [picture], [output], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def node(operator, *inputs, **attributes):
    return onnx.helper.make_node(operator, inputs, ["y"], **attributes)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: model_of([node("Identity", "x")], size=(2, 3, 8, 8)), "must be [batch, 3, height, width]"),
        (lambda: model_of([node("Identity", "x")], size=("n", 3, "h", 8)), "not [0, 3, 0, 8] (0 is one that varies)"),
        (lambda: model_of([node("Identity", "x")]), "the output 'y'"),
        (lambda: model_of([node("Sin", "x")]), "node 0 'y' (Sin): an operator that no plain Vision Transformer has"),
        (lambda: model_of([node("MatMul", "x", "w")], [("w", np.ones((8, 2), np.float32))]), "neither a LayerNorm's"),
        (
            lambda: model_of([node("Conv", "x", "w", strides=[2, 2])], [("w", np.ones((4, 3, 3, 3), np.float32))]),
            "not patches",
        ),
        (lambda: model_of([node("Identity", "w")], [("w", np.ones(2, np.float32))]), "does not depend on the picture"),
        (lambda: model_of([node("Reshape", "x", "w")], [("w", np.array([7]))]), "its shapes do not fit"),
        (lambda: model_of([node("Identity", "z")]), "an input that no node computes"),
        (
            lambda: model_of([node("ConstantOfShape", "w")], [("w", np.array([1 << 20, 1 << 20]))]),
            "1,099,511,627,776 elements",
        ),
        (lambda: model_of([node("Expand", "x", "w")], [("w", np.array([1 << 20, 3, 8, 8]))]), "it would have"),
        (lambda: model_of([node("Identity", "x")], size=(1, 3, 4096, 8)), "with a fixed height and width, not"),
    ],
)
def test_graphs_that_are_none(tmp_path, model, message):
    path = tmp_path / "x.onnx"
    onnx.save(model(), path)
    with pytest.raises(ImportRefused, match=re.escape(message)):
        import_checkpoint(path, ImportOptions())


def test_files_that_are_none(tmp_path):
    (tmp_path / "x.onnx").write_bytes(b"no model at all")
    (tmp_path / "y.onnx").write_bytes(b"")
    for name in "xy":
        with pytest.raises(ImportRefused, match="no readable ONNX file"):
            import_checkpoint(tmp_path / f"{name}.onnx", ImportOptions())


def test_options_that_a_graph_answers_itself(tmp_path):
    (tmp_path / "x.onnx").write_bytes(b"x")
    with pytest.raises(ImportRefused, match=re.escape("the format onnx has no use for --heads, --pool")):
        import_checkpoint(tmp_path / "x.onnx", ImportOptions(heads=3, pool="cls"))
