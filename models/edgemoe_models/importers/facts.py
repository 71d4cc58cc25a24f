"""What is known of a foreign network beside its tensors: from a config.json, or because only one has such names."""

from __future__ import annotations

import dataclasses

from edgemoe_models.importers.options import Triple


@dataclasses.dataclass(frozen=True)
class Facts:
    """None: not known, so it is asked for, or assumed and said.

    Attributes:
        source: where this is from, in words
        heads: attention heads
        usual_heads: of networks of this family, by width, beyond those that all families share
        eps: of the LayerNorms
        activation: of the MLPs, by the name that its framework has for it
        pool: what the head reads, ``cls`` or ``avg``
        norm: where a block's LayerNorms stand, ``pre`` or ``post``
        positions: ``learned`` alone, or ``rope``
        mean: of the training pixels, RGB in 0..1
        std: their deviation
        image: height and width in pixels that the position embeddings are for
        labels: names of the classes; () where there are none
        notes: what the user should know of how this was read
    """

    source: str = "the file"
    heads: int | None = None
    usual_heads: dict[int, int] = dataclasses.field(default_factory=dict)
    eps: float | None = None
    activation: str | None = None
    pool: str | None = None
    norm: str | None = None
    positions: str | None = None
    mean: Triple | None = None
    std: Triple | None = None
    image: tuple[int, int] | None = None
    labels: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


NOTHING = Facts()
