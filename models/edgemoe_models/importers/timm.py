"""Plain Vision Transformers under timm's names (``timm.models.vision_transformer``), to which all others are brought.

With or without a class token, a distillation token, registers, LayerScale, biases and a head; the head may read the
class token, the mean of the patch tokens, or both.
"""

from __future__ import annotations

import math
import re

import numpy as np

from edgemoe_models.config import ModelConfig
from edgemoe_models.float_reference import Floats
from edgemoe_models.importers.assumptions import Assumptions
from edgemoe_models.importers.common import (
    Source,
    block_numbers,
    normalization,
    take_attention,
    take_linear,
    take_patches,
)
from edgemoe_models.importers.facts import NOTHING, Facts
from edgemoe_models.importers.files import Tensors
from edgemoe_models.importers.heads import take_head
from edgemoe_models.importers.options import Imported, ImportOptions, ImportRefused
from edgemoe_models.importers.other_networks import other_kind, other_parts
from edgemoe_models.importers.positions import fitted, image_size
from edgemoe_models.importers.prefix import take_tokens

#: Layers whose bias may be missing in every block: it is zero.
_BIASED = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
#: What is in files beside the network in use: a token for masked patches in training, Hugging Face's pooler.
_BESIDE = re.compile(r"mask_token|pooler\.dense\.(weight|bias)|decoder\w*(\.|$)")


def import_timm(tensors: Tensors, options: ImportOptions, facts: Facts = NOTHING) -> Imported:
    """A plain ViT, a DeiT, DeiT-III or DINOv2; position embeddings are resampled to the image's grid of patches.

    Args:
        tensors: under timm's names
        options: what the user says
        facts: what is known beside the tensors

    Raises:
        ImportRefused: it has parts that ours has not, or any tensor is missing, unknown or of another shape.
    """
    _refuse_other_networks(tensors, options, facts)
    tensors, notes = _plain_gamma(tensors), list(facts.notes)
    source, assumptions = Source(_with_biases(tensors, notes)), Assumptions(options, facts)
    state = take_patches(source, options, facts)
    dim, depth = len(state["patch_embed.bias"]), block_numbers(source.left)
    patch = math.isqrt(state["patch_embed.weight"].shape[1] // 3)
    hidden = source.shape("blocks.0.mlp.fc1.weight", 2)[0]
    has_tokens = "cls_token" in source.left, "dist_token" in source.left
    prefix, embeddings, options = take_tokens(source, options, facts, dim, patch)
    for i in range(depth):
        state |= _block(source, i, dim, hidden)
    task, head = take_head(source, assumptions, has_tokens, dim, notes)
    state |= head
    unused = source.finish(lambda name: _BESIDE.match(name) is not None)
    heads = assumptions.heads(dim)
    activation = assumptions.activation()
    height, width = image_size(options, len(embeddings) - len(prefix), patch, beside=_said(prefix))
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
        tasks=(task,),
        eps=assumptions.eps(),
        prefix_tokens=len(prefix),
        activation=activation,
    )
    embeddings, positions = fitted(embeddings, config.grid, options, prefix=len(prefix))
    if len(prefix):
        state["cls_token"] = prefix[0]
    embeddings[1 : len(prefix)] += prefix[1:]
    state["pos_embed"] = embeddings
    if "blocks.0.ls1.gamma" in tensors:
        notes.append("LayerScale folded into the projections before it")
    notes += [normalization(options, facts)[2], positions, *assumptions.note()]
    return Imported(state, config, tuple(notes), unused)


def _said(prefix: Floats) -> str:
    return "" if not len(prefix) else " besides the class token's" if len(prefix) == 1 else " besides those before them"


def _block(source: Source, i: int, dim: int, hidden: int) -> dict[str, Floats]:
    """A block's tensors, its LayerScale folded: the factor of a channel scales a row of the layer before, and bias."""
    name = f"blocks.{i}"
    state = take_attention(source, name, dim)
    state |= take_linear(source, f"{name}.mlp.fc1", hidden, dim, f"{name}.mlp.fc1")
    state |= take_linear(source, f"{name}.mlp.fc2", dim, hidden, f"{name}.mlp.fc2")
    for gamma, layer in (("ls1", "attn.proj"), ("ls2", "mlp.fc2")):
        if f"{name}.{gamma}.gamma" in source.left:
            factor = source.take(f"{name}.{gamma}.gamma", dim)
            state[f"{name}.{layer}.weight"] = state[f"{name}.{layer}.weight"] * factor[:, None]
            state[f"{name}.{layer}.bias"] = state[f"{name}.{layer}.bias"] * factor
    return state


def _refuse_other_networks(tensors: Tensors, options: ImportOptions, facts: Facts) -> None:
    """Say all at once what this network has that ours has not; ask where names leave it open."""
    if what := other_kind(tensors):
        raise ImportRefused(f"the network has what ours has not: {what}")
    if problems := other_parts(tensors):
        raise ImportRefused(f"the network has what ours has not: {'; '.join(problems)}")
    for option, (suspicious, usual, why) in _LEFT_OPEN.items():
        given = getattr(options, option) or getattr(facts, option)
        if given is not None and given not in (usual, _OTHERWISE[option]):
            raise ImportRefused(f"--{option} must be {usual} or {_OTHERWISE[option]}, not {given!r}")
        if given == _OTHERWISE[option]:
            raise ImportRefused(f"the network has what ours has not: {_HINDRANCE[option]}")
        if given is None and suspicious(tensors):
            raise ImportRefused(f"{why}: if so, it cannot be imported; if not, say so with --{option} {usual}")


def _looks_post_norm(tensors: Tensors) -> bool:
    return not any(re.search(r"cls_token|reg_token|attn\.qkv\.bias|ls1\.gamma", name) for name in tensors)


def _looks_rotary(tensors: Tensors) -> bool:
    return "blocks.0.gamma_1" in tensors


#: What names do not tell apart, by the option that does: when it is in doubt, the usual answer, and the doubt.
_LEFT_OPEN = {
    "norm": (
        _looks_post_norm,
        "pre",
        "a network of these tensors (no class token, no bias of queries, no LayerScale) may have its LayerNorms behind "
        "attention and MLP instead of before them (timm's ..._rpn_...), which the file does not say",
    ),
    "positions": (
        _looks_rotary,
        "learned",
        "LayerScale under the name gamma_1 is that of DeiT-III's own repository, but also of timm's ViTs that rotate "
        "queries and keys too (timm's ..._rope_ape_...), which the file does not say",
    ),
}
_OTHERWISE = {"norm": "post", "positions": "rope"}
_HINDRANCE = {
    "norm": "LayerNorms behind attention and MLP (post-norm), where ours stand before them",
    "positions": "positions that rotate queries and keys (RoPE), where ours are added to the tokens",
}


def _plain_gamma(tensors: Tensors) -> Tensors:
    """LayerScale under the name that timm has for it."""
    names = {"gamma_1": "ls1.gamma", "gamma_2": "ls2.gamma"}
    return {re.sub(r"gamma_[12]$", lambda match: names[match[0]], name): array for name, array in tensors.items()}


def _with_biases(tensors: Tensors, notes: list[str]) -> Tensors:
    """A kind of layer that has no bias in any block has one of zeros."""
    zeros: Tensors = {}
    for layer in _BIASED:
        weights = {name: array for name, array in tensors.items() if name.endswith(f".{layer}.weight")}
        if weights and not any(name.endswith(f".{layer}.bias") for name in tensors):
            zeros |= {name.removesuffix("weight") + "bias": np.zeros(len(a), np.float32) for name, a in weights.items()}
            what = "queries, keys and values have" if layer == "attn.qkv" else f"{layer} has"
            notes.append(f"{what} no bias: zero")
    return {**tensors, **zeros}
