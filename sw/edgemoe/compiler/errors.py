"""Errors and options of the compiler."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CompileError", "CompilerOptions"]


class CompileError(ValueError):
    """The model cannot run on this configuration; the message says what is too large and by how much."""


@dataclass(frozen=True)
class CompilerOptions:
    """What the compiler may choose; the defaults are the product, the rest is for ablation.

    Parameters
    ----------
    group_tokens: most tokens of one MATMUL; LayerNorm of one group hides behind the MATMULs of the others
    chunk_fraction: a weight chunk (one LOAD) takes at most this part of the free weight scratchpad
    resident_fraction: chunks that stay while all groups pass take at most this part of it; the rest is for prefetch
    prefetch: False makes every LOAD wait for all earlier commands (no overlap of DMA and compute)
    """

    group_tokens: int = 32
    chunk_fraction: float = 1 / 6
    resident_fraction: float = 0.5
    prefetch: bool = True
