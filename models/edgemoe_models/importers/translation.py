"""Names of Hugging Face's, torchvision's and DINOv2's own Vision Transformers as timm's, for the same tensors."""

from __future__ import annotations

import re

import numpy as np

from edgemoe_models.importers.files import Tensors
from edgemoe_models.importers.options import ImportRefused

_HUGGING_FACE = (
    (
        r"(?:^|(?<=\.))(?:vit|deit|dinov2|dinov2_with_registers)\.(?=embeddings\.|encoder\.|layers\.|layernorm\.|pooler\.)",
        "",
    ),
    (r"embeddings\.(cls_token|mask_token)$", r"\1"),
    (r"embeddings\.distillation_token$", "dist_token"),
    (r"embeddings\.register_tokens$", "reg_token"),
    (r"embeddings\.position_embeddings$", "pos_embed"),
    (r"embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"(?:encoder\.layer|(?:encoder\.)?layers)\.(\d+)\.", r"blocks.\1."),
    (r"attention\.attention\.(?=query|key|value)", "attention."),
    (r"attention\.(?:query|q_proj)\.", "attn.q."),
    (r"attention\.(?:key|k_proj)\.", "attn.k."),
    (r"attention\.(?:value|v_proj)\.", "attn.v."),
    (r"attention\.(?:output\.dense|o_proj)\.", "attn.proj."),
    (r"intermediate\.dense\.", "mlp.fc1."),
    (r"(?<=\d\.)output\.dense\.", "mlp.fc2."),
    (r"mlp\.weights_in\.", "mlp.w12."),
    (r"layernorm_before\.", "norm1."),
    (r"layernorm_after\.", "norm2."),
    (r"layer_scale([12])\.lambda1$", r"ls\1.gamma"),
    (r"(?:^|(?<=\.))layernorm\.", "norm."),
    (r"(?:^|(?<=\.))(?:cls_)?classifier\.", "head."),
    (r"(?:^|(?<=\.))distillation_classifier\.", "head_dist."),
)
_TORCHVISION = (
    (r"(?:^|(?<=\.))class_token$", "cls_token"),
    (r"(?:^|(?<=\.))conv_proj\.", "patch_embed.proj."),
    (r"encoder\.pos_embedding$", "pos_embed"),
    (r"encoder\.layers\.encoder_layer_(\d+)\.", r"blocks.\1."),
    (r"ln_([12])\.", r"norm\1."),
    (r"self_attention\.in_proj_(weight|bias)$", r"attn.qkv.\1"),
    (r"self_attention\.out_proj\.", "attn.proj."),
    (r"mlp\.(?:0|linear_1)\.", "mlp.fc1."),
    (r"mlp\.(?:3|linear_2)\.", "mlp.fc2."),
    (r"encoder\.ln\.", "norm."),
    (r"heads\.head\.", "head."),
    (r"heads\.pre_logits\.", "pre_logits."),
)
_DINOV2 = ((r"(?:^|(?<=\.))register_tokens$", "reg_token"),)
#: By format, the part of a name by which it is known.
_MARKS = {
    "huggingface": re.compile(r"(^|\.)embeddings\.patch_embeddings\.projection\.weight$"),
    "torchvision": re.compile(r"(^|\.)encoder\.layers\.encoder_layer_0\."),
}


def known_format(tensors: Tensors) -> str | None:
    """``huggingface`` or ``torchvision``, where the names are theirs."""
    return next((name for name, mark in _MARKS.items() if any(mark.search(key) for key in tensors)), None)


def as_timm(tensors: Tensors, format_name: str | None) -> Tensors:
    """The tensors under timm's names, with whatever wrappers have put before them.

    Raises:
        ImportRefused: two tensors would have one name
    """
    rules = {"huggingface": _HUGGING_FACE, "torchvision": _TORCHVISION}.get(format_name or "", _DINOV2)
    renamed: Tensors = {}
    for old, array in tensors.items():
        new = old
        for pattern, replacement in rules:
            new = re.sub(pattern, replacement, new)
        if new in renamed:
            raise ImportRefused(f"{old} and another tensor would both be {new} in timm's names")
        renamed[new] = array
    return renamed


def join_queries(tensors: Tensors) -> Tensors:
    """Queries, keys and values of each block as one layer, where they are three: rows of q, then k, then v.

    Raises:
        ImportRefused: one of the three is missing, or has another form
    """
    result = {name: array for name, array in tensors.items() if not re.search(r"\.attn\.[qkv]\.(weight|bias)$", name)}
    for name in tensors:
        if (match := re.fullmatch(r"(.*\.attn\.)[qkv]\.(weight|bias)", name)) is None:
            continue
        parts = [f"{match[1]}{part}.{match[2]}" for part in "qkv"]
        if missing := [part for part in parts if part not in tensors]:
            raise ImportRefused(f"the checkpoint has {name}, but lacks {', '.join(missing)}")
        shapes = {tensors[part].shape for part in parts}
        if len(shapes) > 1:
            raise ImportRefused(f"{', '.join(parts)} must have one shape, not {', '.join(map(str, shapes))}")
        result[f"{match[1]}qkv.{match[2]}"] = np.concatenate([tensors[part] for part in parts])
    return result
