"""GELU by the delta table against tables of its values, over all inputs (docs/numerics.md, section 4)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgemoe_models.arithmetic import ops
from edgemoe_models.ptq.activations import activation_scale_of

__all__ = ["SCALES", "compare_gelu"]

#: Units of the 12-bit input and shifts: layers whose hidden values reach 2, 4, 12 and 25.
SCALES = ((0.0083, 0), (0.0083, 1), (0.0125, 2), (0.0125, 3))
_INPUTS = (1 << ops.ACTIVATION_BITS - 1) - 1  # largest magnitude

Reals = npt.NDArray[np.float64]


def _exact(x: Reals, centre: float, step: float) -> Reals:
    """GELU(x) in LSB of the output, limited to what int8 holds."""
    value = x * np.array([math.erfc(-v / math.sqrt(2)) / 2 for v in x])
    result: Reals = np.clip((value - centre) / step, -127, 127)
    return result


def compare_gelu(scales: Sequence[tuple[float, int]] = SCALES) -> list[dict[str, Any]]:
    """Rows ``unit``, ``shift``, ``form``, ``table_bits`` (a lane), ``largest`` and ``mean`` error in LSB of the output.

    The forms: the product's delta table; a table of the values for every 12-bit input; a table of the values as
    large as the delta table, for which the input is rounded to 9 bits.
    """
    rows = []
    for unit, shift in scales:
        scale, shifts = activation_scale_of("gelu", unit), np.array([shift], np.uint8)
        place = float(scale.centre(shifts)[0]), float(scale.step(shifts)[0])
        table, q = scale.activation.table, np.arange(-_INPUTS, _INPUTS + 1)
        exact = _exact(q * scale.unit, *place)
        coarse = ops.clamp(ops.rounding_shift(q, 3), ops.ACTIVATION_BITS - 3)
        forms = {
            "delta table": (8 * len(table), ops.activate(q, table, shift)),
            "values, 12-bit input": (8 << ops.ACTIVATION_BITS, np.rint(exact)),
            "values, 9-bit input": (8 << ops.ACTIVATION_BITS - 3, np.rint(_exact(coarse * 8 * scale.unit, *place))),
        }
        for form, (bits, found) in forms.items():
            error = np.abs(found - exact)
            rows.append(
                {
                    "unit": unit,
                    "shift": shift,
                    "form": form,
                    "table_bits": bits,
                    "largest": float(error.max()),
                    "mean": float(error.mean()),
                }
            )
    return rows
