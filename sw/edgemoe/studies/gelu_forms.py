"""GELU by the delta table against tables of its values, over all inputs (docs/numerics.md, section 4)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgemoe_models.arithmetic import ops
from edgemoe_models.arithmetic.tables import gelu_table

__all__ = ["SCALES", "compare_gelu"]

#: Scales of the int8 output: a layer whose hidden values reach 1.3, 2.5, 6.4 and 12.7.
SCALES = (0.01, 0.02, 0.05, 0.1)
_INPUT_BITS = 11
_INPUTS = (1 << _INPUT_BITS - 1) - 1  # largest magnitude

Reals = npt.NDArray[np.float64]


def _exact(x: Reals, scale: float) -> Reals:
    """GELU(x) in LSB of the output, limited to what int8 holds."""
    value = x * np.array([math.erfc(-v / math.sqrt(2)) / 2 for v in x])
    result: Reals = np.clip(value / scale, -127, 127)
    return result


def compare_gelu(scales: Sequence[float] = SCALES) -> list[dict[str, Any]]:
    """Rows ``scale``, ``form``, ``table_bits`` (one lane), ``largest`` and ``mean`` error in LSB of the output.

    The forms: the product's delta table; a table of the values for every 11-bit input; a table of the values as
    large as the delta table, for which the input is rounded to 9 bits.
    """
    rows = []
    for scale in scales:
        table, shift = gelu_table(scale)
        unit = scale / 2**shift
        q = np.arange(-_INPUTS, _INPUTS + 1)
        exact = _exact(q * unit, scale)
        coarse = ops.clamp(ops.rounding_shift(q, 2), _INPUT_BITS - 2)
        forms = {
            "delta table": (8 * len(table), ops.gelu(q, table, shift)),
            "values, 11-bit input": (8 << _INPUT_BITS, np.rint(exact)),
            "values, 9-bit input": (8 << _INPUT_BITS - 2, np.rint(_exact(coarse * 4 * unit, scale))),
        }
        for form, (bits, found) in forms.items():
            error = np.abs(found - exact)
            rows.append(
                {
                    "scale": scale,
                    "form": form,
                    "table_bits": bits,
                    "largest": float(error.max()),
                    "mean": float(error.mean()),
                }
            )
    return rows
