"""timm's checkpoints: logits are the original's; refusals name all; what the file does not say is said."""

import re
from fractions import Fraction

import numpy as np
import pytest
import safetensors.numpy

from edgemoe_models import float_reference
from edgemoe_models.importers import ImportOptions, ImportRefused, import_checkpoint
from edgemoe_models.importers.options import IMAGENET_MEAN, IMAGENET_STD

torch = pytest.importorskip("torch", reason="torch is not installed: importers are not compared with it")
from support.foreign_checkpoints import (  # noqa: E402
    DIM,
    HEADS,
    F,
    normalised,
    picture,
    plain_tokens,
    timm_tensors,
)


@pytest.fixture
def timm_file(tmp_path):
    path = tmp_path / "vit.safetensors"
    safetensors.numpy.save_file(timm_tensors(), path)
    return path


@pytest.mark.parametrize(("mean", "std"), [(None, None), ((0.5, 0.5, 0.5), (0.5, 0.4, 0.6))])
def test_timm_logits_equal_the_original_on_normalised_pixels(timm_file, mean, std):
    imported = import_checkpoint(timm_file, ImportOptions(heads=HEADS, mean=mean, std=std))
    image, tensors = picture(12, 12), timm_tensors()
    pixels = normalised(image, mean or IMAGENET_MEAN, std or IMAGENET_STD)
    x = F.layer_norm(plain_tokens(tensors, pixels), (DIM,), eps=1e-6)[0].numpy()
    logits = (x * tensors["norm.weight"] + tensors["norm.bias"]) @ tensors["head.weight"].T + tensors["head.bias"]
    found = float_reference.forward(imported.state, imported.config, image[None], "classification")[0, 0]
    np.testing.assert_allclose(found, logits, atol=1e-4)


def changed(path, changes):
    """The timm checkpoint with tensors replaced, or removed where None."""
    tensors = {name: value for name, value in (timm_tensors() | changes).items() if value is not None}
    safetensors.numpy.save_file(tensors, path)
    return path


def test_all_problems_are_in_one_message(tmp_path):
    wrong = {
        "blocks.1.norm1.bias": None,
        "blocks.0.attn.qkv.bias": np.zeros(3, np.float32),
        "blocks.0.extra": np.zeros(DIM, np.float32),
    }
    with pytest.raises(
        ImportRefused,
        match=re.escape(
            "the checkpoint does not fit. missing: blocks.1.norm1.bias [24]. of a wrong shape: blocks.0.attn.qkv.bias "
            "must be [72], not [3]. not understood: blocks.0.extra"
        ),
    ):
        import_checkpoint(changed(tmp_path / "a.safetensors", wrong), ImportOptions(heads=HEADS))


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        (
            {"dist_token": np.zeros((1, 1, DIM)), "head_dist.weight": np.zeros((6, DIM))},
            {},
            "missing: head_dist.bias [6]",
        ),
        ({"fc_norm.weight": np.ones(DIM), "fc_norm.bias": np.ones(DIM)}, {}, "two LayerNorms behind its blocks"),
        ({"cls_token": None, "pos_embed": np.zeros((1, 9, DIM))}, {"pool": "cls"}, "so --pool cannot be cls"),
        (
            {"reg_token": np.zeros((1, 5, DIM)), "cls_token": None},
            {},
            "5 position embeddings besides those before them have no obvious arrangement",
        ),
        ({"head.weight": None}, {}, "has no classification head (head.weight): timm makes it with num_classes above 0"),
        ({"head.weight": None, "fc.weight": np.zeros((3, DIM))}, {}, "; fc.weight may be one: rename it"),
        ({"norm.bias": np.full(DIM, np.nan, np.float32)}, {}, "norm.bias holds 24 NaN or infinite values"),
        ({"pos_embed": np.zeros((1, 8, DIM), np.float32)}, {}, "7 position embeddings besides the class token's"),
        ({}, {"heads": None}, "the width 24 is no multiple of 64"),
        ({}, {"heads": 5}, "--heads must divide the width 24, not be 5"),
        ({}, {"image_height": 12}, "--image-height and --image-width go together"),
        (
            {},
            {"image_height": 13, "image_width": 12},
            "--image-height must be a multiple of the patches' 4",
        ),
        ({}, {"std": (0.0, 1.0, 1.0)}, "--std positive"),
        ({}, {"top_k": 2, "fill_missing": 1}, "the format timm has no use for --fill-missing, --top-k"),
        ({"patch_embed.proj.weight": None, "patch_embed.weight": np.zeros(3)}, {}, "checkpoint of edgemoe already"),
        ({"patch_embed.proj.weight": None}, {}, "the names are neither timm's nor M3ViT's"),
    ],
)
def test_timm_refusals(tmp_path, changes, options, message):
    path = changed(tmp_path / "a.safetensors", changes)
    with pytest.raises(ImportRefused, match=re.escape(message)):
        import_checkpoint(path, ImportOptions(**({"heads": HEADS} | options)))


#: Tensors that other networks have, each with what is said of it.
OTHERS = {
    "attention pooling": ({"attn_pool.latent": (1, 1, DIM)}, "attention pooling before the head"),
    "norms of queries": ({"blocks.0.attn.q_norm.weight": (12,)}, "norms of queries and keys"),
    "BEiT": (
        {"blocks.0.attn.q_bias": (DIM,)},
        "queries and values with a bias, keys without (BEiT's and EVA's attention)",
    ),
    "RoPE": ({"rope.freqs": (2, 2, 2, 6)}, "positions that rotate queries and keys (RoPE)"),
    "relative": ({"pos_embed": None}, "no position embeddings (pos_embed)"),
    "RMSNorm": ({"blocks.0.norm1.bias": None, "blocks.1.norm1.bias": None}, "RMSNorm or a LayerNorm without bias"),
    "parallel": ({"blocks.0.attns.0.attn.qkv.weight": (72, DIM)}, "parallel attentions and MLPs in a block"),
    "SwiGLU": ({"blocks.0.mlp.w12.weight": (8, DIM)}, "a gated MLP"),
    "CLIP": ({"norm_pre.weight": (DIM,)}, "a LayerNorm before the first block, as CLIP has it"),
    "hybrid": ({"patch_embed.backbone.stem.conv.weight": (3, 3)}, "a stem of several convolutions"),
    "grey": ({"patch_embed.proj.weight": (DIM, 1, 4, 4)}, "an input of 1 channels, ours takes RGB"),
    "two at once": (
        {"norm_pre.weight": (DIM,), "blocks.0.attn.q_norm.weight": (12,)},
        "as CLIP has it (norm_pre.weight)",
    ),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_networks_are_refused_by_what_they_are(tmp_path, kind):
    shapes, message = OTHERS[kind]
    changes = {name: shape if shape is None else np.zeros(shape, np.float32) for name, shape in shapes.items()}
    with pytest.raises(ImportRefused, match=f"what ours has not: .*{re.escape(message)}"):
        import_checkpoint(changed(tmp_path / "a.safetensors", changes), ImportOptions(heads=HEADS))


def test_queries_without_bias(tmp_path):
    without = {f"blocks.{i}.attn.qkv.bias": None for i in range(2)}
    zeros = {name: np.zeros(3 * DIM, np.float32) for name in without}
    first = import_checkpoint(changed(tmp_path / "a.safetensors", without), ImportOptions(heads=HEADS))
    second = import_checkpoint(changed(tmp_path / "b.safetensors", zeros), ImportOptions(heads=HEADS))
    assert all(np.array_equal(value, second.state[name]) for name, value in first.state.items())
    assert "queries, keys and values have no bias: zero" in first.notes
    with pytest.raises(ImportRefused, match=re.escape("missing: blocks.0.attn.qkv.bias [72]")):  # one of two is damage
        import_checkpoint(changed(tmp_path / "c.safetensors", {"blocks.0.attn.qkv.bias": None}), ImportOptions(heads=2))


def test_every_first_token_has_a_row(tmp_path):
    """Registers have no position of their own here, the class token has: DINOv2's own files are so."""
    registers = np.arange(3 * DIM, dtype=np.float32).reshape(1, 3, DIM) / 100
    path = changed(tmp_path / "a.safetensors", {"register_tokens": registers, "mask_token": np.zeros((1, DIM))})
    imported = import_checkpoint(path, ImportOptions(heads=HEADS))
    plain = import_checkpoint(changed(tmp_path / "b.safetensors", {}), ImportOptions(heads=HEADS))
    assert imported.config.prefix_tokens == 4 and imported.config.num_tokens == 13
    assert imported.unused == ("mask_token",)
    np.testing.assert_array_equal(imported.state["pos_embed"][1:4], registers[0])
    np.testing.assert_array_equal(imported.state["pos_embed"][[0, *range(4, 13)]], plain.state["pos_embed"])


# --- What the file does not say ------------------------------------------------------------------------------------


def test_assumptions_are_said_in_one_line(timm_file):
    (note,) = [note for note in import_checkpoint(timm_file, ImportOptions(heads=HEADS)).notes if "assumed" in note]
    assert note == (
        "assumed, because the file does not say: a head that reads the class token (--pool), the exact GELU "
        "(--activation), LayerNorm's eps 1e-06 (--eps)"
    )
    given = ImportOptions(heads=HEADS, pool="cls", activation="GELU", eps=1e-5)
    imported = import_checkpoint(timm_file, given)
    assert imported.config.eps == 1e-5 and not any("assumed" in note for note in imported.notes)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("gelu", "gelu"), ("SiLU", "silu"), ("swish", "silu"), ("relu", "relu"), ("quick_gelu", "quick-gelu")]
    + [("QuickGELU", "quick-gelu"), ("quick-gelu", "quick-gelu")],
)
def test_activations_by_all_their_names(timm_file, name, kind):
    imported = import_checkpoint(timm_file, ImportOptions(heads=HEADS, activation=name))
    assert imported.config.activation == kind and not any("GELU" in note for note in imported.notes)


def of_width(width):
    sizes = {DIM: width, 3 * DIM: 3 * width}
    return {
        name: np.zeros([sizes.get(n, n) for n in array.shape], np.float32) for name, array in timm_tensors().items()
    }


def test_the_number_of_heads_is_said_when_it_is_assumed(tmp_path):
    imported = import_checkpoint(changed(tmp_path / "a.safetensors", of_width(192)), ImportOptions())
    assert imported.config.heads == 3 and any("3 attention heads of 64 (--heads)" in note for note in imported.notes)


def test_the_number_of_heads_is_asked_for_where_networks_differ(tmp_path):
    path = changed(tmp_path / "a.safetensors", of_width(64))
    with pytest.raises(ImportRefused, match=re.escape("networks of the width 64 differ in it: give --heads")):
        import_checkpoint(path, ImportOptions())
    assert import_checkpoint(path, ImportOptions(heads=2)).config.heads == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pool": "max"}, "--pool must be cls or avg, not 'max'"),
        ({"norm": "post"}, "LayerNorms behind attention and MLP (post-norm), where ours stand before them"),
        ({"norm": "none"}, "--norm must be pre or post, not 'none'"),
        ({"positions": "rope"}, "positions that rotate queries and keys (RoPE)"),
        ({"activation": "gelu_tanh"}, "the activation 'gelu_tanh' is not the exact GELU, SiLU, ReLU or QuickGELU"),
        ({"activation": "hard_swish"}, "the activation 'hard_swish' is not the exact GELU, SiLU, ReLU or QuickGELU"),
        ({"eps": 0.0}, "ModelConfig.eps must be"),
    ],
)
def test_what_the_accelerator_cannot_do_is_refused(timm_file, options, message):
    with pytest.raises(ImportRefused, match=re.escape(message)):
        import_checkpoint(timm_file, ImportOptions(heads=HEADS, **options))


def test_another_eps_is_computed_with(timm_file):
    image = picture(12, 12)
    outputs = [
        float_reference.forward(imported.state, imported.config, image[None], "classification")
        for imported in (import_checkpoint(timm_file, ImportOptions(heads=HEADS, eps=eps)) for eps in (1e-6, 1e-1))
    ]
    assert np.abs(outputs[0] - outputs[1]).max() > 0.01


def test_files_with_objects_or_damage_are_refused(tmp_path):
    torch.save({"state_dict": {}, "epoch": Fraction(1, 2)}, tmp_path / "objects.pth")
    (tmp_path / "text.pth").write_text("this is no checkpoint")
    (tmp_path / "text.safetensors").write_text("this is no checkpoint")
    for name, message in (
        ("objects.pth", "could run code"),
        ("text.pth", "no readable torch file"),
        ("text.safetensors", "not a safetensors file"),
        ("none.pth", "no such file or folder"),
    ):
        with pytest.raises(ImportRefused, match=message):
            import_checkpoint(tmp_path / name, ImportOptions())
