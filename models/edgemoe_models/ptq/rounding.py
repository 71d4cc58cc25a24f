"""Rounding of a layer's weights that sees its inputs. NumPy only, the same bits on every machine.

Nearest integers are best for inputs that have nothing to do with each other. Of inputs that vary together, one weight's
rounding error can be made up for by the next: GPTQ (Frantar et al. 2023, arXiv 2210.17323), here in its equal form as
Babai's nearest plane (Chen et al. 2025, arXiv 2507.18553), which needs a triangular factor and no inverse.
"""

from __future__ import annotations

import numpy as np

from edgemoe_models.exact.sums import total
from edgemoe_models.ptq.options import TINY, Floats

__all__ = ["round_together", "spread"]

#: What is added to every input's variance, as a share of their mean: a floor, and more where rows are few.
_DAMPING, _DAMPING_OF_FEW = 0.03, 0.1


def spread(x: Floats) -> Floats:
    """The covariance [K, K] of integer-valued rows [R, K], damped. Exact: sums of products stay below 2^53."""
    rows, inputs = x.shape
    x_sum = x.sum(0)
    covariance: Floats = (x.T @ x - np.multiply.outer(x_sum, x_sum) / rows) / rows
    diagonal = covariance.diagonal()
    share = _DAMPING + _DAMPING_OF_FEW * inputs / rows
    covariance[np.diag_indices(inputs)] += share * total(diagonal) / inputs + TINY
    return covariance


def round_together(weight: Floats, covariance: Floats, limit: int) -> Floats:
    """Integers [N, K] in -limit..limit near ``weight`` whose products with the inputs are near to the weights'.

    Inputs that vary most are rounded first, when there are most others left to make up for the error.
    """
    order = np.argsort(covariance.diagonal(), kind="stable")  # the last are rounded first
    factor = _upper_factor(covariance[np.ix_(order, order)])
    wanted = weight[:, order].astype(np.float64)
    found = np.empty_like(wanted)
    for k in reversed(range(len(order))):
        found[:, k] = np.clip(np.rint(wanted[:, k]), -limit, limit)
        error = weight[:, order[k]] - found[:, k]
        wanted[:, :k] += error[:, None] * factor[:k, k]
    result = np.empty_like(found)
    result[:, order] = found
    return result


def _upper_factor(matrix: Floats) -> Floats:
    """U with ones on the diagonal of a positive definite ``matrix = U^T D U``, by rows; element by element, as no
    library's sums are the same everywhere."""
    left = matrix.copy()
    size = len(left)
    for j in range(size - 1):
        row = left[j, j + 1 :]
        ratio = row / left[j, j]
        left[j + 1 :, j + 1 :] -= ratio[:, None] * row
        left[j, j + 1 :] = ratio
    return left
