"""What networks have that a plain Vision Transformer has not, known by names of tensors, and said in words."""

from __future__ import annotations

import re
from collections.abc import Iterable

from edgemoe_models.importers.files import Tensors

_ROPE = "positions that rotate queries and keys (RoPE), where ours are added to the tokens"
_RELATIVE = "relative position biases of the attention scores, where ours are added to the tokens"
#: Tensors of variants that compute something else, by their names under timm's own, and what they are.
_PARTS = {
    r"attn_pool\.": "attention pooling before the head",
    r"rope\.|rotary": _ROPE,
    r"(.*\.)?(shared_)?rel_pos(\.|_)|.*\.relative_position|relative_position_bias": _RELATIVE,
    r".*\.attn\.[qkv]_bias": "queries and values with a bias, keys without (BEiT's and EVA's attention)",
    r".*\.attn\.[qk]_norm\.": "norms of queries and keys (qk-norm)",
    r".*\.attn\.(norm|sub_norm)\.": "a norm of the attention's output before its projection",
    r".*\.attn\.lambda_": "differential attention (the difference of two softmaxes)",
    r".*\.mlp\.(fc1_g|fc1_x|w12|w3|w1|w2|gate_proj)\b": "a gated MLP (SwiGLU)",
    r".*\.mlp\.norm\.": "a norm inside the MLP",
    r"blocks\.\d+\.(attns|ffns)\.": "parallel attentions and MLPs in a block, where ours follow one another",
    r"blocks\.\d+\.(in_proj|in_norm)\.": "attention and MLP of a block in parallel, where ours follow one another",
    r"blocks\.\d+\.(norm3|crossattn|attn2)\.": "a second attention in a block",
    r"blocks\.\d+\.\d+\.": "stages of blocks (a pyramid)",
    r"blocks\.\d+\.proj\.": "a change of width between blocks (a pyramid of stages)",
    r"norm_pre\.": "a LayerNorm before the first block, as CLIP has it",
    r"patch_embed\.(backbone|norm|proj\.\d|conv\w*)": "a stem of several convolutions, as a hybrid has it",
    r"head\.(fc|mlp|0)\.|pre_logits\.": "a head of more than one linear layer",
    r"neck\.": "a convolutional neck behind the blocks, as SAM has it",
    r"patch_generator\.|embeds\.": "an embedding of pictures of any size (NaFlexViT, RADIO)",
}
#: Networks of other kinds, by a name of theirs, and what hinders them.
_KINDS = {
    r"^patch_embed\.backbone\.": "a stem of several convolutions, as a hybrid has it",
    r"^layers\.\d+\.blocks\.": "windows of attention, and a pyramid of stages",
    r"(^|\.)(stages\.\d+|stage\d+|patch_embeds?\d*\.\d|downsample_layers)\.": "a pyramid of stages, each with "
    "fewer tokens than the one before",
    r"^blocks\.\d+\.attn\.(pos_proj|gating_param)": "attention by position (ConViT)",
    r"(^|\.)blocks_token_only\.|cls_attn_blocks\.": "attention of the class token apart from the patches' (CaiT, XCiT)",
    r"(^|\.)vision_model\.|transformer\.resblocks\.|visual\.": "CLIP's or SigLIP's parts (a LayerNorm before the first "
    "block, or attention pooling)",
    r"(^|\.)rope_|rotary": _ROPE,
    r"(^|\.)(conv_stem|stem|convnet|features\.\d+|layer1\.0)\.|(^|\.)(bn1|conv1)\.weight$": "convolutions beside the "
    "patches' (a convolutional network, or stages of one)",
    r"(^|\.)attention_biases|attention_bias_idxs": _RELATIVE,
}


def other_parts(tensors: Tensors) -> list[str]:
    """What this network (of timm's names) has that ours has not, each with the first tensor that shows it."""
    problems = []
    for pattern, what in _PARTS.items():
        names = sorted(name for name in tensors if re.match(pattern, name))
        if names:
            problems.append(f"{what} ({names[0]}{', ...' if len(names) > 1 else ''})")
    return [*problems, *_shapes(tensors)]


def _shapes(tensors: Tensors) -> list[str]:
    """What shapes and missing tensors tell."""
    problems = []
    weight = tensors["patch_embed.proj.weight"]
    if weight.shape[1:2] not in ((3,), ()):
        problems.append(f"an input of {weight.shape[1]} channels, ours takes RGB (patch_embed.proj.weight)")
    if _is_gated(tensors):
        problems.append("a gated MLP (SwiGLU), of which blocks.0.mlp.fc1 has both halves")
    norms = [name for name in tensors if re.fullmatch(r"(blocks\.0\.norm1|fc_norm|norm)\.weight", name)]
    if alone := [name for name in norms if name.replace("weight", "bias") not in tensors]:
        rms = "RMSNorm or a LayerNorm without bias, where ours have one"
        if "blocks.0.norm1.bias" not in tensors or alone == ["fc_norm.weight"]:
            problems.append(f"{rms} ({sorted(alone)[0]})")
    if "pos_embed" not in tensors and not problems:
        problems.append(
            "no position embeddings (pos_embed): its positions are relative or rotate queries and keys (RoPE), where "
            "ours are added to the tokens"
        )
    return problems


def _is_gated(tensors: Tensors) -> bool:
    """Whether the first layer of an MLP gives twice what the second takes."""
    shapes = [tensors[name].shape for name in (f"blocks.0.mlp.fc{n}.weight" for n in (1, 2)) if name in tensors]
    return len(shapes) == 2 and len(shapes[0]) == len(shapes[1]) == 2 and shapes[0][0] == 2 * shapes[1][1]


def other_kind(names: Iterable[str]) -> str:
    """What kind of network has these names, where it is none that can be imported; "" where that is not known."""
    listed = list(names)
    return next((what for pattern, what in _KINDS.items() if any(re.search(pattern, name) for name in listed)), "")
