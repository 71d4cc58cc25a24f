"""Names behind wrappers' prefixes, and state dicts inside other dictionaries: understood and said, or chosen."""

import argparse
import collections
import re

import numpy as np
import pytest
import safetensors.numpy

from edgemoe_models.importers import ImportOptions, ImportRefused, import_checkpoint
from edgemoe_models.importers.names import plain_names

torch = pytest.importorskip("torch", reason="torch is not installed: torch files are not read")

from support.foreign_checkpoints import HEADS, save_torch, timm_tensors  # noqa: E402

OPTIONS = ImportOptions(heads=HEADS)
PLAIN = timm_tensors()


def equal(first, second) -> bool:
    return first.config == second.config and all(np.array_equal(a, second.state[n]) for n, a in first.state.items())


@pytest.fixture(scope="module")
def wanted(tmp_path_factory):
    path = tmp_path_factory.mktemp("plain") / "vit.safetensors"
    safetensors.numpy.save_file(PLAIN, path)
    return import_checkpoint(path, OPTIONS)


def imported(folder, tensors, **options):
    safetensors.numpy.save_file(tensors, folder / "x.safetensors")
    return import_checkpoint(folder / "x.safetensors", ImportOptions(heads=HEADS, **options))


# --- Prefixes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "prefix",
    [
        "model.",
        "module.",
        "_orig_mod.",
        "backbone.",
        "encoder.",
        "net.",
        "model.module.",
        "module.model.backbone.encoder.",
    ]
    + ["_orig_mod.module.model.", "model._orig_mod.", "vit.", "a.b.c.d."],
)
def test_wrappers_prefixes_are_taken_off_and_said(tmp_path, wanted, prefix):
    found = imported(tmp_path, {prefix + name: value for name, value in PLAIN.items()})
    assert equal(found, wanted)
    left = prefix.replace("_orig_mod.", "")
    assert (f"names begin with {left}, which a wrapper put there: taken off" in found.notes) == bool(left)
    said = "what torch.compile and other wrappers put between names was taken out of them"
    assert (said in found.notes) == ("_orig_mod" in prefix)


@pytest.mark.parametrize("between", ["_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module."])
def test_wrappers_of_single_blocks(tmp_path, wanted, between):
    tensors = {re.sub(r"^(blocks\.\d\.)", rf"\1{between}", name): value for name, value in PLAIN.items()}
    assert equal(imported(tmp_path, tensors), wanted)


def test_a_head_beside_the_backbone(tmp_path, wanted):
    tensors = {f"model.{'' if name.startswith('head') else 'encoder.'}{name}": value for name, value in PLAIN.items()}
    assert equal(imported(tmp_path, tensors), wanted)


@pytest.mark.parametrize(
    "roots", [("student.", "teacher."), ("model.net.", "model.ema."), ("", "ema_model."), ("a.", "a_b.")]
)
def test_several_networks(tmp_path, wanted, roots):
    tensors = {}
    for factor, root in enumerate(roots, 1):
        tensors |= {root + name: value * np.float32(factor) for name, value in PLAIN.items()}
    with pytest.raises(ImportRefused, match=r"the file holds 2 networks, .*choose one with --prefix"):
        imported(tmp_path, tensors)
    chosen = imported(tmp_path, tensors, prefix=roots[0])
    assert equal(chosen, wanted) and any(note.endswith("left out") for note in chosen.notes)
    other = imported(tmp_path, tensors, prefix=roots[1].rstrip("."))
    assert np.array_equal(other.state["cls_token"], 2 * wanted.state["cls_token"])
    with pytest.raises(ImportRefused, match="no network's names begin with 'other.'; there are: "):
        imported(tmp_path, tensors, prefix="other")


def test_two_names_that_become_one():
    tensors = {name: np.zeros(1) for name in ("model.patch_embed.proj.weight", "model.norm.bias", "norm.bias")}
    with pytest.raises(ImportRefused, match="model.norm.bias and norm.bias are both norm.bias without"):
        plain_names(tensors)


def test_names_without_a_network_are_left_alone():
    tensors = {"model.a": np.zeros(1), "model.b": np.zeros(1)}
    assert plain_names(tensors) == (tensors, ())


@pytest.mark.parametrize(
    ("name", "whose"),
    [
        ("layers.0.blocks.0.norm1.weight", "what ours has not: windows of attention, and a pyramid"),
        ("stages.0.blocks.0.weight", "what ours has not: a pyramid of stages"),
        ("vision_model.encoder.weight", "what ours has not: CLIP's or SigLIP's parts"),
        ("layer.0.rope_embeddings.weight", "what ours has not: positions that rotate queries and keys (RoPE)"),
        ("conv1.weight", "what ours has not: convolutions beside the patches'"),
        (
            "other.0.weight",
            "neither timm's nor M3ViT's, Hugging Face's or torchvision's of a plain ViT, but other.0.weight",
        ),
    ],
)
def test_other_libraries_names(tmp_path, name, whose):
    with pytest.raises(ImportRefused, match=re.escape(whose)):
        imported(tmp_path, {name: np.zeros(1, np.float32)})


# --- Nested dictionaries ----------------------------------------------------------------------------------------------


def torch_state(factor: float = 1.0):
    return collections.OrderedDict((name, torch.from_numpy(value) * factor) for name, value in PLAIN.items())


@pytest.mark.parametrize(
    "nest",
    [
        lambda state: state,
        lambda state: {"model": state},
        lambda state: {"state_dict": state, "epoch": 3, "optimizer": {"state": {0: {"step": torch.ones(1)}}}},
        lambda state: {"model_state_dict": state},
        lambda state: {"module": state},
        lambda state: {"model": {"state_dict": state}},
        lambda state: {"state_dict": {f"module.{name}": value for name, value in state.items()}},
    ],
)
def test_where_scripts_keep_the_state_dict(tmp_path, wanted, nest):
    torch.save(nest(torch_state()), tmp_path / "x.pth.tar")
    assert equal(import_checkpoint(tmp_path / "x.pth.tar", OPTIONS), wanted)


def test_safetensors_under_another_name(tmp_path, wanted):
    safetensors.numpy.save_file(PLAIN, tmp_path / "pytorch_model.bin")
    assert equal(import_checkpoint(tmp_path / "pytorch_model.bin", OPTIONS), wanted)
    save_torch(tmp_path / "x.safetensors", PLAIN)
    assert equal(import_checkpoint(tmp_path / "x.safetensors", OPTIONS), wanted)


def test_several_state_dicts(tmp_path, wanted):
    path = tmp_path / "x.pth"
    torch.save({"model_ema": torch_state(2), "model": torch_state(), "mine": {"best": torch_state(3)}}, path)
    found = import_checkpoint(path, OPTIONS)
    assert equal(found, wanted)
    assert "the tensors under 'model'; the file also has 'model_ema', 'mine.best' (--key)" in found.notes
    for key, factor in (("model_ema", 2), ("mine.best", 3), ("model", 1)):
        other = import_checkpoint(path, ImportOptions(heads=HEADS, key=key))
        assert np.array_equal(other.state["cls_token"], factor * wanted.state["cls_token"])
    with pytest.raises(ImportRefused, match="under 'other'; there are: 'model_ema', 'model', 'mine.best'"):
        import_checkpoint(path, ImportOptions(heads=HEADS, key="other"))
    safetensors.numpy.save_file(PLAIN, tmp_path / "y.safetensors")
    with pytest.raises(ImportRefused, match="a safetensors file has no keys"):
        import_checkpoint(tmp_path / "y.safetensors", ImportOptions(heads=HEADS, key="model"))


def test_an_unknown_key_is_not_guessed(tmp_path, wanted):
    torch.save({"mine": torch_state()}, tmp_path / "x.pth")
    with pytest.raises(ImportRefused, match="the state dict may be under 'mine': say so with --key"):
        import_checkpoint(tmp_path / "x.pth", OPTIONS)
    assert equal(import_checkpoint(tmp_path / "x.pth", ImportOptions(heads=HEADS, key="mine")), wanted)


def test_dictionaries_that_contain_themselves(tmp_path):
    content = {"model": {}, "state_dict": {}}
    content["model"]["model"] = content["state_dict"]["model"] = content
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(ImportRefused):
        import_checkpoint(tmp_path / "x.pth", OPTIONS)


@pytest.mark.parametrize(
    ("told", "heads"),
    [
        ({"args": {"num_heads": HEADS, "lr": 0.1}}, HEADS),
        ({"hyper_parameters": {"n_heads": HEADS, "schedule": [1, 2]}}, HEADS),
        ({"config": {"heads": "two", "num_attention_heads": 1000}}, None),
        ({"args": [1, 2]}, None),
    ],
)
def test_the_number_of_heads_is_taken_from_what_a_script_kept(tmp_path, wanted, told, heads):
    torch.save({"model": torch_state(), **told}, tmp_path / "x.pth")
    if heads is None:
        with pytest.raises(ImportRefused, match="give the number of heads"):
            import_checkpoint(tmp_path / "x.pth", ImportOptions())
        return
    found = import_checkpoint(tmp_path / "x.pth", ImportOptions())
    assert found.config.heads == heads and equal(found, wanted)
    with pytest.raises(ImportRefused, match="the file's own arguments says 2 heads, --heads 3"):
        import_checkpoint(tmp_path / "x.pth", ImportOptions(heads=3))


def test_the_activation_is_taken_from_what_a_script_kept(tmp_path):
    for told in ({"act_layer": "silu"}, {"num_heads": HEADS, "hidden_act": "swish"}):
        torch.save({"model": torch_state(), "args": told}, tmp_path / "x.pth")
        options = ImportOptions(heads=None if "num_heads" in told else HEADS)
        assert import_checkpoint(tmp_path / "x.pth", options).config.activation == "silu"
    torch.save({"model": torch_state(), "args": {"act_layer": "mish"}}, tmp_path / "x.pth")
    with pytest.raises(ImportRefused, match="the activation 'mish' is not the exact GELU"):
        import_checkpoint(tmp_path / "x.pth", ImportOptions(heads=HEADS))


def test_what_a_script_kept_says_what_tensors_do_not(tmp_path):
    torch.save({"model": torch_state(), "args": {"model": "vit_small_patch16_rope_ape_224"}}, tmp_path / "x.pth")
    with pytest.raises(ImportRefused, match=re.escape("(RoPE)")):
        import_checkpoint(tmp_path / "x.pth", OPTIONS)


# --- Files that are not loaded ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "kept"),
    [
        (lambda: {"model": torch_state(), "args": argparse.Namespace(lr=1)}, "['model']"),
        (lambda: {"args": argparse.Namespace(model="model"), "epoch": 1, "model": dict(torch_state())}, "['model']"),
        (lambda: {"epoch": 3, "state_dict": torch_state(), "x": argparse.Namespace()}, "['state_dict']"),
        (lambda: {"optimizer": {"state": {}}, "my net": torch_state(), "x": argparse.Namespace()}, "['my net']"),
        (lambda: {**torch_state(), "args": argparse.Namespace()}, ""),
        (lambda: torch.nn.Linear(2, 2), ".state_dict()"),
        (lambda: {"args": argparse.Namespace()}, "['state_dict']"),
    ],
)
@pytest.mark.parametrize("protocol", [2, 4])
def test_the_advice_names_the_files_own_key(tmp_path, make, kept, protocol):
    torch.save(make(), tmp_path / "x.pth", pickle_protocol=protocol)
    advice = f"save its state dict alone: torch.save(torch.load(FILE, weights_only=False){kept}, NEW)"
    with pytest.raises(ImportRefused, match=re.escape(advice)):
        import_checkpoint(tmp_path / "x.pth", OPTIONS)
