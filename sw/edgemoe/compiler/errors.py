"""Errors and options of the compiler."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["TOO_LARGE", "CompileError", "CompilerOptions"]

TOO_LARGE = "the model is too large for a command"
"""How a value that no field can hold is explained."""


class CompileError(ValueError):
    """The model cannot run on this configuration; the message says what is too large and by how much."""


@dataclass(frozen=True)
class CompilerOptions:
    """What the compiler may choose; the defaults are the product, the rest is for ablation.

    Attributes:
        group_tokens: most tokens of one MATMUL; LayerNorm of one group hides behind the MATMULs of the others
        chunk_fraction: a weight chunk (one LOAD) takes at most this part of the free weight scratchpad
        resident_fraction: chunks that stay while all groups pass take at most this part of it; the rest is for prefetch
        preload_fraction: weights of the next block's attention that may be fetched ahead of a block's experts take at
            most this part of the weight scratchpad: memory is idle while attention computes and busy while experts do
        expert_prefetch: experts that are fetched ahead of the gate, as far as there is room, without knowing whether a
            token will choose them: ``off``, the first so many, or ``auto``: those that most images use, by what
            calibration saw, or else as a balanced gate chooses
        prefetch: False makes every command wait for the one before it (no overlap of any kind)
        moe_group: 0 runs expert by expert; otherwise gate and experts run for this many tokens at a time, and each
            group's experts are fetched anew
        attention_group: 0 keeps keys and values stationary; otherwise they are fetched for this many queries at a time
        single_pass_softmax: False adds a pass over the scores for the maxima and one for the sums
        fused_activation: False adds a pass over the hidden rows
    """

    group_tokens: int = 32
    chunk_fraction: float = 1 / 6
    resident_fraction: float = 0.5
    preload_fraction: float = 0.2
    expert_prefetch: Literal["off", "auto"] | int = "auto"
    prefetch: bool = True
    moe_group: int = 0
    attention_group: int = 0
    single_pass_softmax: bool = True
    fused_activation: bool = True

    def __post_init__(self) -> None:
        given = self.expert_prefetch
        count = isinstance(given, int) and not isinstance(given, bool) and given >= 0
        if not count and given not in ("off", "auto"):
            raise ValueError(f"expert_prefetch must be off, auto or a number of experts, not {given!r}")
