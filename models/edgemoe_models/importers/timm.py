"""timm's and DeiT's Vision Transformers (names of ``timm.models.vision_transformer``)."""

from __future__ import annotations

import math
import re

import numpy as np

from edgemoe_models.config import ModelConfig, TaskConfig
from edgemoe_models.importers.assumptions import Assumptions
from edgemoe_models.importers.common import (
    Source,
    block_numbers,
    normalization,
    take_attention,
    take_embedding,
    take_linear,
    take_norm,
)
from edgemoe_models.importers.files import Tensors
from edgemoe_models.importers.options import Imported, ImportOptions, ImportRefused
from edgemoe_models.importers.positions import fitted, image_size

#: Tensors of variants that compute something else, and why they cannot be imported.
_OTHERS = {
    r"dist_token|head_dist\.": "a second class token of a distilled DeiT; the same network without distillation can be "
    "imported, e.g. deit_tiny_patch16_224",
    r"reg_token": "register tokens",
    r"fc_norm\.": "a LayerNorm after pooling: the head reads the average of the patch tokens, which no operation of "
    "the accelerator computes",
    r"attn_pool\.": "attention pooling before the head",
    r".*\.(ls1|ls2)\.gamma|.*\.gamma_[12]": "LayerScale",
    r".*\.attn\.[qk]_norm\.": "norms of queries and keys",
    r".*\.attn\.norm\.": "a norm of the context",
    r".*\.attn\.([qv]_bias|relative_position|rel_pos)": "biases of attention as BEiT has them",
    r".*\.mlp\.(norm\.|fc1_g|fc1_x|w12|w3)": "a gated MLP",
    r"norm_pre\.": "a LayerNorm before the first block, as CLIP has it",
    r"patch_embed\.(backbone|norm|proj\.\d)": "a patch embedding of more than one convolution",
    r"head\.(fc|mlp|0)\.|pre_logits\.": "a head of more than one linear layer",
}


def import_timm(tensors: Tensors, options: ImportOptions) -> Imported:
    """A ViT or (undistilled) DeiT with its classification head; position embeddings are resampled to the image's grid.

    Raises:
        ImportRefused: it has parts that ours has not, or any tensor is missing, unknown or of another shape.
    """
    _refuse_other_networks(tensors)
    source, assumptions = Source(_with_biases(tensors)), Assumptions(options)
    state = take_embedding(source, options)
    dim, depth = len(state["cls_token"]), block_numbers(source.left)
    patch = math.isqrt(state["patch_embed.weight"].shape[1] // 3)
    hidden = source.shape("blocks.0.mlp.fc1.weight", 2)[0]
    classes = source.shape("head.weight", 2)[0]
    for i in range(depth):
        state |= take_attention(source, f"blocks.{i}", dim)
        state |= take_linear(source, f"blocks.{i}.mlp.fc1", hidden, dim, f"blocks.{i}.mlp.fc1")
        state |= take_linear(source, f"blocks.{i}.mlp.fc2", dim, hidden, f"blocks.{i}.mlp.fc2")
    state |= take_norm(source, "norm", dim)
    state |= take_linear(source, "head", classes, dim, "heads.classification")
    source.finish()
    heads = assumptions.heads(dim)
    assumptions.class_token()
    assumptions.activation()
    height, width = image_size(options, len(state["pos_embed"]) - 1, patch)
    config = ModelConfig(
        name=options.name,
        image_height=height,
        image_width=width,
        patch=patch,
        dim=dim,
        depth=depth,
        heads=heads,
        mlp_hidden=hidden,
        num_experts=0,
        top_k=0,
        expert_hidden=0,
        tasks=(TaskConfig("classification", "classification", channels=classes),),
        eps=assumptions.eps(),
    )
    state["pos_embed"], positions = fitted(state["pos_embed"], config.grid, options)
    notes = [normalization(options)[2], positions, *assumptions.note()]
    if "blocks.0.attn.qkv.bias" not in tensors:
        notes.append("queries, keys and values have no bias: zero")
    return Imported(state, config, tuple(notes))


def _refuse_other_networks(tensors: Tensors) -> None:
    """Say all at once what this network has that ours has not."""
    problems = []
    for pattern, what in _OTHERS.items():
        names = sorted(name for name in tensors if re.match(pattern, name))
        if names:
            problems.append(f"{what} ({names[0]}{', ...' if len(names) > 1 else ''})")
    channels = tensors["patch_embed.proj.weight"].shape[1:2]
    if channels not in ((3,), ()):
        problems.append(f"an input of {channels[0]} channels, ours takes RGB (patch_embed.proj.weight)")
    if "cls_token" not in tensors:
        problems.append("no class token (cls_token): its head reads an average of the patch tokens")
    if problems:
        raise ImportRefused(f"the network has what ours has not: {'; '.join(problems)}")
    if "head.weight" not in tensors:
        dim = tensors["patch_embed.proj.weight"].shape[0]
        others = [name for name, array in tensors.items() if array.ndim == 2 and array.shape[1] == dim]
        others = [name for name in others if not name.startswith("blocks.")]
        hint = f"; {', '.join(others)} may be one: rename it" if others else ""
        raise ImportRefused(
            "the checkpoint has no classification head (head.weight): timm makes it with num_classes above 0" + hint
        )


def _with_biases(tensors: Tensors) -> Tensors:
    """A network whose queries, keys and values have no bias (``qkv_bias=False``) has one of zeros."""
    weights = {name: array for name, array in tensors.items() if name.endswith(".attn.qkv.weight")}
    if any(name.endswith(".attn.qkv.bias") for name in tensors):
        return tensors
    zeros = {name.removesuffix("weight") + "bias": np.zeros(len(array), np.float32) for name, array in weights.items()}
    return {**tensors, **zeros}
