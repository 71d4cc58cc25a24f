"""A Vision Transformer's tensors under timm's names, from what an ONNX graph's output was found to be."""

from __future__ import annotations

import dataclasses

import numpy as np

from edgemoe_models.config import ACTIVATIONS
from edgemoe_models.importers.facts import Facts
from edgemoe_models.importers.files import Tensors
from edgemoe_models.importers.onnx_graph.attention import Attention, Mlp
from edgemoe_models.importers.onnx_graph.values import (
    Array,
    Joined,
    Linear,
    Mean,
    Norm,
    Tokens,
    Unmapped,
    View,
)

_CLOSE = 1e-3  # relative, of one LayerNorm's eps to another's


@dataclasses.dataclass(frozen=True)
class Found:
    """A network, as the importer of timm's takes it.

    Attributes:
        tensors: under timm's names
        facts: what the graph says beside them
        parts: what was mapped, for the report
    """

    tensors: Tensors
    facts: Facts
    parts: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class _Head:
    """What an output is: ``pool`` of our tasks, the final LayerNorm, tokens and heads (none: features)."""

    pool: str
    norm: Norm
    tokens: Tokens
    heads: tuple[Linear, ...]


def assemble(output: View, height: int, width: int) -> Found:
    """The network of which this tensor is the output.

    Raises:
        Unmapped: it is the output of something else
    """
    head = _head(output)
    tokens, layers = head.tokens, head.tokens.layers
    if not layers or len(layers) % 2:
        raise Unmapped("no whole block before the output")
    prefix = int((tokens.patch_of_row < 0).sum())
    patches = len(tokens.patch_of_row) - prefix
    if not np.array_equal(tokens.patch_of_row, [*[-1] * prefix, *range(patches)]):
        raise Unmapped("tokens that are not the first ones, then the patches row by row")
    if patches != tokens.patches.width:
        raise Unmapped(f"{patches} tokens for {tokens.patches.width} patches")
    state = _first(tokens, prefix, head.pool)
    for number in range(len(layers) // 2):
        state |= _block(number, layers[2 * number], layers[2 * number + 1])
    name = "fc_norm" if head.pool == "avg-norm" else "norm"
    state |= {f"{name}.weight": head.norm.gamma, f"{name}.bias": head.norm.beta}
    for layer, name in zip(head.heads, ("head", "head_dist"), strict=False):
        state |= {f"{name}.weight": layer.weight, f"{name}.bias": layer.bias}
    attention = layers[0]
    hidden = len(layers[1].fc1.weight)
    activation = _activation([layer.activation for layer in layers[1::2]])
    facts = Facts(
        source="the graph",
        heads=attention.heads,
        eps=_eps([*(layer.norm for layer in layers), head.norm]),
        activation=activation,
        pool="avg" if head.pool.startswith("avg") else "cls",
        norm="pre",
        positions="learned",
        image=(height, width),
    )
    reads = {"cls": "the first token", "cls-dist": "two tokens, one each", "cls-avg": "first token and patches' mean"}
    what = f"a head of {len(head.heads[0].weight)} outputs" if head.heads else "no head"
    parts = (
        f"patch embedding of {tokens.patches.grid[0]} x {tokens.patches.grid[1]} patches",
        f"{prefix} tokens before theirs",
        f"{len(layers) // 2} blocks of {attention.heads} heads, MLP {hidden} ({ACTIVATIONS[activation]})",
        f"LayerNorm and {what} on {reads.get(head.pool, 'the mean of the patches')}",
    )
    return Found({key: np.asarray(value, np.float32) for key, value in state.items()}, facts, parts)


def _first(tokens: Tokens, prefix: int, pool: str) -> Tensors:
    """Patches and tokens; all of the first tokens is in the position embeddings, so they themselves are zero."""
    width, patch = tokens.width, tokens.patches.weight
    zero = np.zeros((1, prefix, width), np.float32)
    state = {"patch_embed.proj.weight": patch, "patch_embed.proj.bias": tokens.patches.bias}
    state["pos_embed"] = tokens.table[None].astype(np.float32)
    names: tuple[str, ...] = ("cls_token", "dist_token") if pool == "cls-dist" else ("cls_token",)
    if pool.startswith("avg"):
        names = ()
    for number, name in enumerate(names):
        state[name] = zero[:, number : number + 1]
    if prefix > len(names):
        state["reg_token"] = zero[:, len(names) :]
    return state


def _block(number: int, attention: Attention, mlp: Mlp) -> Tensors:
    name = f"blocks.{number}"
    layers = {
        "attn.qkv": (attention.weight, attention.bias),
        "attn.proj": (attention.proj_weight, attention.proj_bias),
        "mlp.fc1": (mlp.fc1.weight, mlp.fc1.bias),
        "mlp.fc2": (mlp.fc2.weight, mlp.fc2.bias),
        "norm1": (attention.norm.gamma, attention.norm.beta),
        "norm2": (mlp.norm.gamma, mlp.norm.beta),
    }
    return {
        f"{name}.{layer}.{part}": value
        for layer, pair in layers.items()
        for part, value in zip(("weight", "bias"), pair, strict=True)
    }


def _activation(kinds: list[str]) -> str:
    if other := next((kind for kind in kinds if kind != kinds[0]), None):
        raise Unmapped(f"MLPs of {ACTIVATIONS[kinds[0]]} and of {ACTIVATIONS[other]}, where ours have one activation")
    return kinds[0]


def _eps(norms: list[Norm]) -> float:
    found = [norm.eps for norm in norms]
    if max(found) - min(found) > _CLOSE * max(found):
        raise Unmapped(f"LayerNorms of different eps ({min(found):g} and {max(found):g}), where ours have one")
    return float(f"{found[0]:.6g}")


def _head(output: View) -> _Head:
    source = output.source
    if isinstance(source, Joined) and isinstance(source.first.source, Linear):
        first, second = source.first.source, source.second.source
        if not isinstance(second, Linear) or abs(output.scale - 0.5) > _CLOSE:
            raise Unmapped("a sum of outputs that is not the mean of two heads")
        (norm, rows), (other, others) = _rows(first.of), _rows(second.of)
        if norm is not other or [*rows, *others] != [0, 1]:
            raise Unmapped("two heads that do not read the first and the second token")
        return _Head("cls-dist", norm, _stream(norm), (first, second))
    if output.scale != 1.0:
        raise Unmapped(f"outputs that are multiplied by {output.scale:g}")
    if isinstance(source, Linear) and output.is_all():
        pool, norm, tokens = _read(source.of)
        return _Head(pool, norm, tokens, (source,))
    pool, norm, tokens = _read(output)
    return _Head(pool, norm, tokens, ())


def _read(view: View) -> tuple[str, Norm, Tokens]:
    """What a head reads, or what features are."""
    source = view.source
    if isinstance(source, Joined):
        norm, rows = _rows(source.first)
        if not isinstance(source.second.source, Mean):
            raise Unmapped("a head on two tensors that are not class token and mean")
        other, patches = _rows(source.second.source.of)
        if other is not norm or rows != [0] or not _are_patches(patches, _stream(norm)):
            raise Unmapped("a head on class token and mean of other tokens than the patches")
        return "cls-avg", norm, _stream(norm)
    if isinstance(source, Mean) and isinstance(source.of.source, Norm):
        norm, rows = _rows(source.of)
        if not _are_patches(rows, _stream(norm)):
            raise Unmapped("a mean of other tokens than the patches")
        return "avg", norm, _stream(norm)
    if isinstance(source, Norm) and isinstance(source.of.source, Mean):
        mean = source.of.source
        tokens = mean.of.source
        chosen = mean.of.whole_rows()
        if not isinstance(tokens, Tokens) or chosen is None or not _are_patches(list(chosen), tokens):
            raise Unmapped("a mean of other tokens than the patches")
        return "avg-norm", source, tokens
    norm, rows = _rows(view)
    tokens = _stream(norm)
    if len(rows) == tokens.rows > 1:  # the whole sequence: its first token, or where all are patches, their mean
        return ("cls" if (tokens.patch_of_row < 0).any() else "avg"), norm, tokens
    if rows != [0] or tokens.patch_of_row[0] >= 0:
        raise Unmapped("an output of other tokens than the first")
    return "cls", norm, tokens


def _rows(view: View) -> tuple[Norm, list[int]]:
    """The final LayerNorm and the numbers of the tokens that a view of it has."""
    norm, chosen = view.source, view.whole_rows()
    if not isinstance(norm, Norm) or chosen is None or view.scale != 1.0:
        raise Unmapped("an output that is no LayerNorm's of whole tokens")
    of = norm.of.whole_rows()
    if of is None or not isinstance(norm.of.source, Tokens):
        raise Unmapped("a final LayerNorm of something else than tokens")
    return norm, [int(row) for row in of[chosen]]


def _stream(norm: Norm) -> Tokens:
    tokens = norm.of.source
    assert isinstance(tokens, Tokens)
    return tokens


def _are_patches(rows: list[int] | Array, tokens: Tokens) -> bool:
    return [int(row) for row in rows] == [int(row) for row in np.flatnonzero(tokens.patch_of_row >= 0)]
