"""What an import may be told, what it gives, and its refusal."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from edgemoe_models.config import ModelConfig
from edgemoe_models.float_reference import Floats
from edgemoe_models.graph.integer_graph import IntegerGraph

#: Of RGB in 0..1, what timm, DeiT and M3ViT train with.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
#: Width of an attention head in timm's, DeiT's and Edge-MoE's networks, which checkpoints do not say.
HEAD_DIM = 64

Triple = tuple[float, float, float]


class ImportRefused(ValueError):
    """A checkpoint that cannot be imported; the message says why and what to do."""


def _option(text: str, default: str | None = None) -> Any:
    """A field with its line of ``--help`` and its default."""
    return dataclasses.field(default=default, metadata={"help": text})


@dataclasses.dataclass(frozen=True)
class ImportOptions:
    """What a checkpoint does not say itself; None: the importer's own guess. Each field's ``help`` says what it is."""

    name: str = _option("the model's name", "imported")
    heads: int | None = _option(
        "attention heads (default: the config's, or width / 64 of usual widths; m3vit: must be given)"
    )
    image_height: int | None = _option("pixels")
    image_width: int | None = _option("pixels")
    mean: Triple | None = _option("mean of the training images, RGB in 0..1 (default: ImageNet's; not for edge-moe)")
    std: Triple | None = _option("their deviation (default: ImageNet's; not for edge-moe)")
    tasks: str | None = _option("NAME=KIND:CHANNELS,... in the order of the gates (m3vit, edge-moe)")
    top_k: int | None = _option("experts a token visits (m3vit; edge-moe: 2)")
    seed_heads: int | None = _option("seed of heads that the checkpoint lacks (m3vit; edge-moe: 0)")
    fill_missing: int | None = _option("seed of experts that are missing (edge-moe)")
    pool: str | None = _option("what the head reads, cls or avg (default: cls; avg without a class token)")
    norm: str | None = _option(
        "where a block's LayerNorms stand, pre or post (asked for where the file leaves it open)"
    )
    positions: str | None = _option("learned, or rope besides (asked for where the file leaves it open)")
    activation: str | None = _option("of the MLPs: gelu (the exact one), silu, relu or quick-gelu (default: gelu)")
    eps: float | None = _option("of the LayerNorms (default: 1e-6)")
    trained_grid: str | None = _option("ROWSxCOLUMNS of patches that the position embeddings are for (default: square)")
    prefix: str | None = _option("what the names of the wanted network begin with, where a file holds several")
    key: str | None = _option("under which name a torch file has the state dict, where it holds several")


@dataclasses.dataclass(frozen=True)
class Imported:
    """A float state dict with its config; ``notes`` for the user, names of what was not used, an image if there is one
    (uint8 [H, W, 3]), the integer graph in place of a state dict where the file was quantized."""

    state: dict[str, Floats]
    config: ModelConfig
    notes: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    image: npt.NDArray[np.uint8] | None = None
    graph: IntegerGraph | None = None
