"""Softmax, GELU and LayerNorm as other papers compute them: for comparisons, no part of the accelerator. NumPy only.

Written from the papers' formulas: ``i_bert`` (arXiv 2101.01321), ``i_vit`` (2207.01405), ``fq_vit`` (2111.13824) and
``edge_moe`` (2305.18691). Wherever a module has it, a function has the same form, so that one can stand for another:

- ``softmax(scores, scale) -> (ints, scale)``: rows on the last axis; ``scores * scale`` are natural logarithms
  (for the integer graph's base-2 scores, ``scale = ln(2) / 64 * 2^score_shift``); ``ints * scale`` are probabilities.
- ``gelu(q, scale) -> (ints, scale)``: for the integer graph's 12-bit inputs, in units of ``scale``. ``i_vit.gelu``
  needs whole rows on the last axis (it subtracts their maximum); the others are elementwise.
- ``layer_norm(x, ...) -> (ints, scale)``: normalised rows on the last axis; gamma, beta and epsilon are left to what
  follows, as in the papers, which fold them into the scales. ``edge_moe.layer_norm`` needs the scale of ``x``.

Arrays are int64 and so wide enough: a paper's 32-bit accumulators are taken not to overflow. ``to_int8`` is the
requantization that follows each of them in a network.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Quantized = tuple[Ints, float]


def to_int8(values: tuple[npt.NDArray[Any], float], output_scale: float | npt.NDArray[np.float64]) -> Ints:
    """``(ints, scale)`` requantized to int8 in -127..127, rounded half to even, by the exact ratio of the scales."""
    ints, scale = values
    result: Ints = np.clip(np.rint(ints * (scale / output_scale)), -127, 127).astype(np.int64)
    return result
