"""Networks that timm makes itself: each is imported and equals timm's own forward, or is refused with its reason."""

import re

import numpy as np
import pytest
import safetensors.numpy

from edgemoe_models import float_reference
from edgemoe_models.importers import ImportOptions, ImportRefused, import_checkpoint
from edgemoe_models.integer.postprocess import arrange
from support.foreign_libraries import draw_weights, foreign, pixels, state_of

#: Keeps a network small, whatever its name says of its size.
SMALL = {"img_size": 64, "depth": 2, "embed_dim": 96, "num_heads": 3, "num_classes": 11}
P14 = SMALL | {"img_size": 56}
#: By a name of timm's, or of a line of this table: changes of the arguments, and options of the import.
EQUAL = {
    "vit_tiny_patch16_224": ({"img_size": 224, "depth": 2}, {}),
    "vit_tiny_patch16_384": ({"img_size": 96, "depth": 2, "num_classes": 7}, {}),
    "vit_small_patch16_224": ({"img_size": 64, "depth": 2}, {}),
    "vit_small_patch32_224": ({"img_size": 64, "depth": 2}, {}),
    "vit_small_patch8_224": (SMALL | {"img_size": 32}, {}),
    "vit_small_patch16_36x1_224": (SMALL, {}),
    "vit_base_patch16_224": ({"img_size": 32, "depth": 1}, {}),
    "vit_base_patch8_224": (SMALL | {"img_size": 32}, {}),
    "vit_base_patch32_224": (SMALL | {"img_size": 96}, {}),
    "vit_base_patch16_224_miil": (SMALL, {}),
    "vit_large_patch16_224": ({"img_size": 32, "depth": 1}, {}),
    "vit_huge_patch14_224": (P14, {}),
    "deit_tiny_patch16_224": ({"img_size": 64, "depth": 2}, {}),
    "deit_small_patch16_224": ({"img_size": 64, "depth": 2}, {}),
    "deit_base_patch16_224": (SMALL, {}),
    "deit_tiny_distilled_patch16_224": ({"img_size": 64, "depth": 2}, {}),
    "deit_small_distilled_patch16_224": (SMALL, {}),
    "deit_base_distilled_patch16_384": (SMALL, {}),
    "deit3_small_patch16_224": ({"img_size": 64, "depth": 2}, {}),
    "deit3_medium_patch16_224": ({"img_size": 64, "depth": 2}, {}),
    "deit3_base_patch16_384": (SMALL, {}),
    "deit3_huge_patch14_224": (P14, {}),
    "vit_small_patch14_dinov2": ({"img_size": 56, "depth": 2}, {}),
    "vit_base_patch14_dinov2": (P14, {}),
    "vit_small_patch14_reg4_dinov2": ({"img_size": 56, "depth": 2}, {}),
    "vit_large_patch14_reg4_dinov2": (P14 | {"num_classes": 0}, {}),
    "vit_medium_patch16_gap_256": ({"img_size": 64, "depth": 2}, {}),
    "vit_medium_patch16_gap_384": (SMALL, {}),
    "vit_base_patch16_gap_224": (SMALL, {}),
    "vit_huge_patch14_gap_224": (P14, {}),
    "vit_little_patch16_reg4_gap_256": ({"img_size": 64, "depth": 2}, {}),
    "vit_little_patch16_reg1_gap_256": (SMALL, {}),
    "vit_wee_patch16_reg1_gap_256": (SMALL, {}),
    "vit_medium_patch16_reg4_gap_256": (SMALL, {}),
    "vit_mediumd_patch16_reg4_gap_256": (SMALL, {}),
    "vit_betwixt_patch16_reg4_gap_256": ({"img_size": 64, "depth": 1}, {}),
    "vit_base_patch16_reg4_gap_256": (SMALL, {}),
    "vit_so150m_patch16_reg4_gap_256": (SMALL, {}),
    "vit_so150m2_patch16_reg1_gap_256": (SMALL, {}),
    "vit_base_patch16_siglip_gap_224": (SMALL, {}),
    "vit_so400m_patch14_siglip_gap_224": (P14, {}),
    "eva_large_patch14_196": (P14, {"pool": "avg"}),
    "flexivit_small": (SMALL, {}),
    "test_vit": ({"num_classes": 5}, {}),
    "test_vit2": ({"num_classes": 5}, {}),
    "no head": ("vit_tiny_patch16_224", {"img_size": 64, "depth": 2, "num_classes": 0}, {}),
    "no head, distilled": ("deit_tiny_distilled_patch16_224", SMALL | {"num_classes": 0}, {}),
    "no head, mean before the norm": ("vit_little_patch16_reg4_gap_256", SMALL | {"num_classes": 0}, {}),
    "mean after the norm": ("vit_tiny_patch16_224", SMALL | {"global_pool": "avg", "fc_norm": False}, {"pool": "avg"}),
    "mean before the norm": ("vit_tiny_patch16_224", SMALL | {"global_pool": "avg"}, {}),
    "class token, norm behind it": ("vit_tiny_patch16_224", SMALL | {"fc_norm": True}, {"pool": "cls"}),
    "no bias of queries": ("vit_tiny_patch16_224", SMALL | {"qkv_bias": False}, {}),
    "no bias of projections": ("vit_tiny_patch16_224", SMALL | {"proj_bias": False}, {}),
    "LayerScale": ("vit_tiny_patch16_224", SMALL | {"init_values": 1e-5}, {}),
    "registers with positions": ("vit_tiny_patch16_224", SMALL | {"reg_tokens": 3}, {"trained_grid": "4x4"}),
    "SiLU": ("vit_tiny_patch16_224", SMALL | {"act_layer": "silu"}, {}),
    "ReLU": ("vit_tiny_patch16_224", SMALL | {"act_layer": "relu"}, {}),
    "QuickGELU": ("vit_tiny_patch16_224", SMALL | {"act_layer": "quick_gelu"}, {}),
    "wide pictures": ("vit_tiny_patch16_224", SMALL | {"img_size": (32, 96)}, {"trained_grid": "2x6"}),
}
#: What is refused, and the words that say why.
REFUSED = {
    "vit_tiny_patch16_dinov3_qkvb": (SMALL, {}, "(RoPE), where ours are added to the tokens"),
    "vit_small_patch16_dinov3": (SMALL, {}, "(RoPE), where ours are added to the tokens"),
    "vit_small_patch16_rope_224": (SMALL, {}, "(RoPE), where ours are added to the tokens"),
    "vit_small_patch16_rope_mixed_224": (SMALL, {}, "(RoPE), where ours are added to the tokens (rope.freqs)"),
    "vit_small_patch16_rope_ape_224": (SMALL, {}, "say so with --positions learned"),
    "eva02_tiny_patch14_224": (P14, {}, "a gated MLP (SwiGLU)"),
    "eva_giant_patch14_224": (P14, {}, "queries and values with a bias, keys without"),
    "beit_base_patch16_224": (SMALL, {}, "relative position biases of the attention scores"),
    "beitv2_base_patch16_224": (SMALL, {}, "relative position biases"),
    "vit_relpos_small_patch16_224": (SMALL, {}, "relative position biases"),
    "vit_srelpos_small_patch16_224": (SMALL, {}, "relative position biases"),
    "vit_base_patch16_rpn_224": (SMALL, {}, "may have its LayerNorms behind attention and MLP"),
    "vit_small_patch16_18x2_224": (SMALL, {}, "parallel attentions and MLPs in a block"),
    "vit_pwee_patch16_reg1_gap_256": (SMALL, {}, "attention and MLP of a block in parallel"),
    "vit_dwee_patch16_reg1_gap_256": (SMALL | {"num_heads": 2}, {}, "differential attention"),
    "vit_base_patch32_clip_224": (SMALL, {}, "a LayerNorm before the first block, as CLIP has it"),
    "vit_base_patch16_siglip_224": (SMALL, {}, "attention pooling before the head"),
    "vit_base_patch16_xp_224": (SMALL, {}, "RMSNorm or a LayerNorm without bias"),
    "vit_giant_patch14_dinov2": (P14, {}, "a gated MLP (SwiGLU)"),
    "vit_small_r26_s32_224": ({"depth": 1, "img_size": 64}, {}, "a stem of several convolutions, as a hybrid has it"),
    "vit_base_mci_224": ({"depth": 1, "img_size": 64}, {}, "a stem of several convolutions"),
    "test_vit3": ({}, {}, "attention pooling before the head"),
    "test_vit4": ({}, {}, "RMSNorm or a LayerNorm without bias"),
    "samvit_base_patch16": (SMALL, {}, "relative position biases"),
    "swin_tiny_patch4_window7_224": ({}, {}, "windows of attention, and a pyramid of stages"),
    "pvt_v2_b0": ({}, {}, "a pyramid of stages"),
    "hiera_tiny_224": ({}, {}, "a change of width between blocks (a pyramid of stages)"),
    "xcit_nano_12_p16_224": ({}, {}, "attention of the class token apart from the patches'"),
    "cait_xxs24_224": ({"depth": 1}, {}, "attention of the class token apart from the patches'"),
    "convit_tiny": ({"depth": 1}, {}, "attention by position (ConViT)"),
    "mobilevit_xxs": ({}, {}, "a pyramid of stages"),
    "levit_128s": ({}, {}, "a pyramid of stages"),
    "resnet18": ({}, {}, "a convolutional network"),
    "qk-norm": ("vit_tiny_patch16_224", SMALL | {"qk_norm": True}, {}, "norms of queries and keys (qk-norm)"),
    "hard swish": ("vit_tiny_patch16_224", SMALL | {"act_layer": "hard_swish"}, {}, "is not the exact GELU, SiLU"),
    "SiLU in a gated MLP": ("vit_giant_patch14_dinov2", P14 | {"act_layer": "silu"}, {}, "a gated MLP (SwiGLU)"),
    "RMSNorm": ("vit_tiny_patch16_224", SMALL | {"norm_layer": "rmsnorm"}, {}, "RMSNorm or a LayerNorm without bias"),
    "approximate GELU": (
        "vit_tiny_patch16_224",
        SMALL | {"act_layer": "gelu_tanh"},
        {},
        "'gelu_tanh' is not the exact",
    ),
    "grey pictures": ("vit_tiny_patch16_224", SMALL | {"in_chans": 1}, {}, "an input of 1 channels, ours takes RGB"),
    "heads not said": ("test_vit", {}, {"heads": None}, "give --heads"),
}


def network(name, arguments):
    timm = foreign("timm")
    return draw_weights(timm.create_model(name, **arguments))


def options_for(model, changes):
    """What a user with this network in hand would say: what its file does not."""
    usual = model.pretrained_cfg
    said = {"mean": tuple(usual["mean"]), "std": tuple(usual["std"])}
    block = getattr(model, "blocks", [None])[0] if hasattr(model, "blocks") else None
    if hasattr(getattr(block, "attn", None), "num_heads"):
        said["heads"] = block.attn.num_heads
        said["eps"] = block.norm1.eps
        activation = getattr(block.mlp, "act", None)
        said["activation"] = said_of(activation)
    return ImportOptions(**(said | changes))


def said_of(activation):
    """timm's name of an activation."""
    name = type(activation).__name__
    tanh = getattr(activation, "approximate", "none") == "tanh" or name == "GELUTanh"
    return "gelu_tanh" if tanh else {"QuickGELU": "quick_gelu"}.get(name, name.lower())


def saved(tmp_path, model):
    path = tmp_path / "x.safetensors"
    safetensors.numpy.save_file(state_of(model), path)
    return path


def forward(model, image):
    import torch

    usual = model.pretrained_cfg
    normal = ((image / 255 - np.array(usual["mean"])) / np.array(usual["std"])).transpose(2, 0, 1)
    with torch.no_grad():
        return model.double()(torch.from_numpy(normal)[None])[0].numpy()


def parts(line, table):
    entry = table[line]
    return entry if isinstance(entry[0], str) else (line, *entry)


@pytest.mark.parametrize("line", EQUAL)
def test_it_equals_its_original(tmp_path, line):
    name, arguments, changes = parts(line, EQUAL)
    model = network(name, arguments)
    imported = import_checkpoint(saved(tmp_path, model), options_for(model, changes))
    config = imported.config
    image = pixels(config.image_height, config.image_width)
    (task,) = config.tasks
    found = arrange(config, task.name, float_reference.forward(imported.state, config, image[None], task.name)[0])
    wanted = forward(model, image)
    activation = {"SiLU": "silu", "ReLU": "relu", "QuickGELU": "quick-gelu"}.get(line, "gelu")
    assert config.activation == activation
    assert found.shape == wanted.shape and task.kind == ("features" if arguments.get("num_classes") == 0 else task.kind)
    assert np.abs(found - wanted).max() < 1e-5 * np.abs(wanted).max()


@pytest.mark.parametrize(
    "line",
    ["vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224", "deit3_base_patch16_384", "vit_base_patch14_dinov2"]
    + ["vit_large_patch14_reg4_dinov2", "vit_little_patch16_reg1_gap_256", "vit_so150m_patch16_reg4_gap_256"],
)
def test_positions_are_resampled_as_timm_does(tmp_path, line):
    """Whichever tokens have a position: from 4 x 4 patches to 2 x 8, which are as many, and to 3 x 5."""
    name, arguments, _ = parts(line, EQUAL)
    model = network(
        name, SMALL | {"img_size": 56 if "patch14" in name else 64, **({"num_classes": 0} if "large" in name else {})}
    )
    path, (side, _) = saved(tmp_path, model), model.patch_embed.patch_size
    for rows, columns in ((2, 8), (3, 5)):
        height, width = rows * side, columns * side
        changes = {"image_height": height, "image_width": width, "trained_grid": "4x4"}
        imported = import_checkpoint(path, options_for(model, changes))
        other = network(name, SMALL | {"img_size": 4 * side, "num_classes": model.num_classes})
        other.load_state_dict(model.state_dict())
        other.set_input_size((height, width))
        image = pixels(height, width)
        (task,) = imported.config.tasks
        rows_found = float_reference.forward(imported.state, imported.config, image[None], task.name)[0]
        found, wanted = arrange(imported.config, task.name, rows_found), forward(other, image)
        assert np.abs(found - wanted).max() < 1e-5 * np.abs(wanted).max()


@pytest.mark.parametrize("line", REFUSED)
def test_it_is_refused_with_its_reason(tmp_path, line):
    name, arguments, changes, message = parts(line, REFUSED)
    model = network(name, arguments)
    with pytest.raises(ImportRefused, match=re.escape(message)):
        import_checkpoint(saved(tmp_path, model), options_for(model, changes))


def test_there_are_enough_of_them():
    assert len(EQUAL) >= 40 and len(REFUSED) >= 30
