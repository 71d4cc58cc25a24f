"""Networks that transformers and torchvision make themselves: imported, they equal their own forward."""

import json
import re
from collections import OrderedDict

import numpy as np
import pytest
import safetensors.numpy

from edgemoe_models import float_reference
from edgemoe_models.importers import ImportOptions, ImportRefused, import_checkpoint
from edgemoe_models.importers.options import IMAGENET_MEAN, IMAGENET_STD
from edgemoe_models.integer.postprocess import arrange
from support.foreign_libraries import draw_weights, foreign, pixels, state_of

HALF = (0.5, 0.5, 0.5)
SMALL = {"hidden_size": 96, "num_hidden_layers": 2, "num_attention_heads": 3, "image_size": 64, "patch_size": 16}
NAMES = {0: "cat", 1: "tin  opener", 2: "dog"}
#: Of transformers: the class, its config's class, and what differs from SMALL.
HUGGING_FACE = {
    "ViT": ("ViTForImageClassification", "ViTConfig", {"intermediate_size": 200, "id2label": NAMES}),
    "ViT without bias": ("ViTForImageClassification", "ViTConfig", {"qkv_bias": False}),
    "ViT without head": ("ViTModel", "ViTConfig", {"layer_norm_eps": 1e-5}),
    "DeiT": ("DeiTForImageClassification", "DeiTConfig", {"id2label": NAMES}),
    "DeiT with both heads": ("DeiTForImageClassificationWithTeacher", "DeiTConfig", {"id2label": NAMES}),
    "DINOv2": ("Dinov2ForImageClassification", "Dinov2Config", {"id2label": NAMES}),
    "DINOv2 without head": ("Dinov2Model", "Dinov2Config", {}),
    "DINOv2 with registers": ("Dinov2WithRegistersModel", "Dinov2WithRegistersConfig", {"num_register_tokens": 3}),
    "DINOv2 with registers and head": (
        "Dinov2WithRegistersForImageClassification",
        "Dinov2WithRegistersConfig",
        {"id2label": NAMES},
    ),
    "MSN": ("ViTMSNForImageClassification", "ViTMSNConfig", {"id2label": NAMES}),
}


def hugging_face(line, **more):
    transformers = foreign("transformers")
    model, config, changes = HUGGING_FACE[line]
    return draw_weights(getattr(transformers, model)(getattr(transformers, config)(**(SMALL | changes | more))))


def original(model, image, mean, std):
    import torch

    normal = torch.from_numpy(((image / 255 - np.array(mean)) / np.array(std)).transpose(2, 0, 1))[None]
    with torch.no_grad():
        found = model.double()(normal)
    if torch.is_tensor(found):
        return found[0].numpy()
    return (found.last_hidden_state[0, 0] if hasattr(found, "last_hidden_state") else found.logits[0]).numpy()


def ours(imported, image):
    config, (task,) = imported.config, imported.config.tasks
    return arrange(config, task.name, float_reference.forward(imported.state, config, image[None], task.name)[0])


def assert_equal(imported, model, mean=HALF, std=HALF):
    image = pixels(imported.config.image_height, imported.config.image_width)
    found, wanted = ours(imported, image), original(model, image, mean, std)
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() < 1e-5 * np.abs(wanted).max()


@pytest.mark.parametrize("line", HUGGING_FACE)
def test_a_folder_of_hugging_face(tmp_path, line):
    model = hugging_face(line)
    model.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_mean": HALF, "image_std": HALF}))
    imported = import_checkpoint(tmp_path, ImportOptions())
    assert_equal(imported, model)
    config, (task,) = imported.config, imported.config.tasks
    assert config.heads == 3 and config.eps == model.config.layer_norm_eps
    named = "id2label" in HUGGING_FACE[line][2]
    assert task.kind == ("features" if "without head" in line or line.endswith("registers") else "classification")
    assert task.labels == (("cat", "tin opener", "dog") if named else ())
    assert not any("assumed" in note for note in imported.notes)


@pytest.mark.parametrize("line", ["ViT", "DeiT with both heads", "DINOv2"])
def test_its_weights_alone_under_the_names_in_memory(tmp_path, line):
    """What a training loop saves: no config beside it, a wrapper's prefix, and transformers' own newer names."""
    model = hugging_face(line)
    path = tmp_path / "x.safetensors"
    safetensors.numpy.save_file({f"model.{name}": value for name, value in state_of(model).items()}, path)
    options = ImportOptions(heads=3, mean=HALF, std=HALF, eps=model.config.layer_norm_eps)
    assert_equal(import_checkpoint(path, options), model)
    with pytest.raises(ImportRefused, match="give the number of heads"):
        import_checkpoint(path, ImportOptions())


def test_weights_in_several_files(tmp_path):
    model = hugging_face("ViT")
    model.save_pretrained(tmp_path, max_shard_size="200KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    imported = import_checkpoint(tmp_path, ImportOptions(mean=HALF, std=HALF))
    assert_equal(imported, model)


def test_torchvision(tmp_path):
    models = foreign("torchvision.models")
    model = draw_weights(models.VisionTransformer(64, 16, 2, 3, 96, 200, num_classes=7))
    path = tmp_path / "x.safetensors"
    safetensors.numpy.save_file(state_of(model), path)
    with pytest.raises(ImportRefused, match="give the number of heads"):
        import_checkpoint(path, ImportOptions())
    imported = import_checkpoint(path, ImportOptions(heads=3))
    assert_equal(imported, model, IMAGENET_MEAN, IMAGENET_STD)
    assert not any("assumed" in note for note in imported.notes)


def test_torchvision_vit_b_16(tmp_path):
    models = foreign("torchvision.models")
    model = models.vit_b_16()
    first = dict(list(model.encoder.layers.named_children())[:1])  # one block is enough
    model.encoder.layers = type(model.encoder.layers)(OrderedDict(first))
    path = tmp_path / "x.safetensors"
    safetensors.numpy.save_file(state_of(draw_weights(model)), path)
    imported = import_checkpoint(path, ImportOptions())
    assert imported.config.heads == 12 and imported.config.image_height == 224
    assert_equal(imported, model, IMAGENET_MEAN, IMAGENET_STD)


# --- Configs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "swin"}, "the network 'swin', which has windows of attention, and a pyramid of stages"),
        ({"model_type": "beit"}, "which has relative position biases"),
        ({"model_type": "pvt"}, "which has a pyramid of stages"),
        ({"model_type": "bert"}, "the network 'bert', not one of vit, deit"),
        ({"model_type": "dinov2", "use_swiglu_ffn": True}, "a gated MLP (SwiGLU, use_swiglu_ffn)"),
        ({"model_type": "vit", "num_attention_heads": 0}, "num_attention_heads in config.json must be 1 to 256, not 0"),
        ({"architecture": "vit_base_patch16_siglip_224", "global_pool": "map"}, "the pooling 'map' before the head"),
        ({"hello": 1}, "has neither 'model_type' (Hugging Face) nor 'architecture' (timm)"),
        ([1], "must hold a JSON object"),
    ],
)
def test_configs_that_are_refused(tmp_path, config, message):
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ImportRefused, match=re.escape(message)):
        import_checkpoint(tmp_path, ImportOptions())


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "it has none"),
        ({"a.safetensors": "", "b.safetensors": ""}, "it has several (a.safetensors, b.safetensors)"),
        ({"model.safetensors.index.json": '{"weight_map": {"a": "../../x"}}'}, "must name files beside it"),
        ({"model.safetensors.index.json": "{"}, "model.safetensors.index.json is damaged"),
    ],
)
def test_folders_without_weights(tmp_path, files, message):
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(ImportRefused, match=re.escape(message)):
        import_checkpoint(tmp_path, ImportOptions())


def test_a_config_is_not_contradicted(tmp_path):
    model = hugging_face("ViT")
    model.save_pretrained(tmp_path)
    with pytest.raises(ImportRefused, match=re.escape("config.json says 3 heads, --heads 6: leave --heads out")):
        import_checkpoint(tmp_path, ImportOptions(heads=6))
    text = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(text | {"hidden_act": "gelu_new"}))
    with pytest.raises(ImportRefused, match="the activation 'gelu_new' is not the exact GELU"):
        import_checkpoint(tmp_path, ImportOptions())
    (tmp_path / "config.json").write_text(json.dumps(text | {"hidden_act": "relu"}))
    message = "config.json says that the activation is ReLU, --activation silu: leave --activation out"
    with pytest.raises(ImportRefused, match=re.escape(message)):
        import_checkpoint(tmp_path, ImportOptions(activation="silu"))


@pytest.mark.parametrize(
    ("name", "kind"), [("silu", "silu"), ("swish", "silu"), ("relu", "relu"), ("quick_gelu", "quick-gelu")]
)
def test_a_folders_activation_is_taken(tmp_path, name, kind):
    model = hugging_face("ViT", hidden_act=name)
    model.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_mean": HALF, "image_std": HALF}))
    imported = import_checkpoint(tmp_path, ImportOptions())
    assert imported.config.activation == kind
    assert_equal(imported, model)


def test_a_folder_of_timm(tmp_path):
    timm = foreign("timm")
    model = draw_weights(timm.create_model("deit_tiny_patch16_224", depth=1, img_size=64, num_classes=3))
    config = {
        "architecture": "deit_tiny_patch16_224",
        "num_classes": 3,
        "global_pool": "token",
        "pretrained_cfg": {"mean": list(HALF), "std": list(HALF), "input_size": [3, 64, 64]},
        "label_names": ["a", "b", "c"],
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    safetensors.numpy.save_file(state_of(model), tmp_path / "model.safetensors")
    imported = import_checkpoint(tmp_path, ImportOptions())
    assert imported.config.tasks[0].labels == ("a", "b", "c")
    assert_equal(imported, model)
    told = config | {"model_args": {"act_layer": "silu"}}
    (tmp_path / "config.json").write_text(json.dumps(told))
    assert import_checkpoint(tmp_path, ImportOptions()).config.activation == "silu"
    (tmp_path / "config.json").write_text(json.dumps(config | {"architecture": "vit_small_patch16_rope_ape_224"}))
    with pytest.raises(ImportRefused, match=re.escape("positions that rotate queries and keys (RoPE)")):
        import_checkpoint(tmp_path, ImportOptions())
