"""Linear equations and symmetric eigenvalues by whole rows in a fixed order: no sum is left to a library."""

from __future__ import annotations

import numpy as np

from edgemoe_models.exact.sums import Array, Doubles, total

_SWEEPS = 30
_CONVERGED = 1e-7  # a sweep that starts so ends with its square


def matrix_product(a: Array, b: Array) -> Doubles:
    """``a @ b`` in full float64 precision, one rank-1 product after the other: for small matrices."""
    result = np.zeros((a.shape[0], b.shape[1]))
    for column, row in zip(np.asarray(a, np.float64).T, np.asarray(b, np.float64), strict=True):
        result += np.multiply.outer(column, row)
    return result


def cholesky(a: Array) -> Doubles:
    """The upper triangular r with ``r.T @ r = a``, of a symmetric positive definite matrix.

    Raises:
        ValueError: ``a`` is not positive definite.
    """
    rest, r = np.array(a, np.float64), np.zeros((len(a), len(a)))
    for k in range(len(rest)):
        pivot = rest[k, k]
        if not pivot > 0:
            raise ValueError(f"the matrix must be positive definite, but its pivot {k} is {pivot}")
        row = r[k, k:] = rest[k, k:] / np.sqrt(pivot)
        rest[k + 1 :, k + 1 :] -= np.multiply.outer(row[1:], row[1:])
    return r


def solve(a: Array, b: Array) -> Doubles:
    """x with ``a @ x = b`` for a symmetric positive definite ``a`` [K, K] and b [K, M].

    Raises:
        ValueError: ``a`` is not positive definite.
    """
    r, x = cholesky(a), np.array(b, np.float64)
    for k in range(len(r)):
        x[k] /= r[k, k]
        x[k + 1 :] -= np.multiply.outer(r[k, k + 1 :], x[k])
    for k in reversed(range(len(r))):
        x[k] /= r[k, k]
        x[:k] -= np.multiply.outer(r[:k, k], x[k])
    return x


def eigen(a: Array) -> tuple[Doubles, Doubles]:
    """Eigenvalues of a symmetric positive definite matrix, ascending, and unit eigenvectors as columns.

    Rotations of Jacobi make the rows of the Cholesky factor orthogonal (Veselic and Hari 1989). Each round rotates
    disjoint pairs of rows; the rounds of a sweep let every pair meet once.

    Raises:
        ValueError: ``a`` is not positive definite.
    """
    descending = np.argsort(-np.diagonal(a), kind="stable")  # fewer sweeps
    rows = np.zeros((len(a) + len(a) % 2, len(a)))  # of an odd number one row would be alone: it meets an empty one
    rows[: len(a), descending] = cholesky(np.asarray(a)[descending][:, descending])
    places = np.arange(len(rows))
    half = len(rows) // 2
    for _ in range(_SWEEPS):
        largest = 0.0
        for _ in range(len(rows) - 1):
            largest = max(largest, _rotate(rows, places[:half], places[half:][::-1]))
            places[1:] = np.roll(places[1:], 1)
        if largest <= _CONVERGED:
            break
    rows = rows[np.argsort(total(np.square(rows)), kind="stable")][-len(a) :]
    values = total(np.square(rows))
    return values, (rows / np.sqrt(values)[:, None]).T


def _rotate(rows: Doubles, p: Array, q: Array) -> float:
    """Make each row p orthogonal to its row q. Returns the largest cosine between two that was."""
    first, second = rows[p], rows[q]
    across = total(first * second)
    low, high = total(np.square(first)), total(np.square(second))
    cosines = np.abs(across) / np.sqrt(np.where(low * high > 0, low * high, 1))
    theta = (high - low) / np.where(across != 0, 2 * across, 1)
    tangent = np.where(theta < 0, -1.0, 1.0) / (np.abs(theta) + np.sqrt(theta * theta + 1))
    tangent = np.where(across != 0, tangent, 0)[:, None]
    cosine = 1 / np.sqrt(tangent * tangent + 1)
    sine = tangent * cosine
    rows[p] = cosine * first - sine * second
    rows[q] = sine * first + cosine * second
    return float(cosines.max())
