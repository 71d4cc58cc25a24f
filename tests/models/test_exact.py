"""Arithmetic that is the same everywhere: exact where it says so, and accurate."""

import math
from decimal import Decimal

import numpy as np
import pytest

from edgemoe_models.arithmetic import tables
from edgemoe_models.exact import functions, linear_algebra, sums

# --- Sums and products -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("terms", [1, 2, 3, 96, 192, 384, 1023, 1025])
def test_products_do_not_depend_on_the_order_of_their_terms(rng, terms):
    x, w = rng.standard_normal((7, terms)) * np.exp(3 * rng.standard_normal(terms)), rng.standard_normal((5, terms))
    found = sums.product(x, w)
    for _ in range(4):
        order = rng.permutation(terms)
        assert np.array_equal(sums.product(x[:, order], w[:, order]), found)
    one_by_one = [sum(a * b for a, b in zip(*rows, strict=True)) for rows in _gridded_pairs(x, w)]
    assert np.array_equal(found.reshape(-1), one_by_one)
    scale = np.abs(x).max(1)[:, None] * np.abs(w).max(1) * math.sqrt(terms)
    assert (np.abs(found - x @ w.T) / scale).max() < 1e-6


def _gridded_pairs(x, w):
    bits = (53 - (x.shape[1] - 1).bit_length()) // 2
    return [(a, b) for a in sums.on_grid(x, bits) for b in sums.on_grid(w, bits)]


def test_a_plain_product_does_depend_on_it(rng):
    x, w = rng.standard_normal((7, 384)), rng.standard_normal((5, 384))
    assert not np.array_equal(x[:, ::-1] @ w[:, ::-1].T, x @ w.T)


def test_products_of_float32_of_stacks_and_of_nothing(rng):
    x, w = (rng.standard_normal(shape).astype(np.float32) for shape in ((2, 3, 4, 16), (2, 3, 5, 16)))
    assert sums.product(x, w).dtype == np.float64
    assert np.abs(sums.product(x, w) - x.astype(float) @ w.swapaxes(2, 3)).max() < 1e-5
    assert sums.product(np.zeros((0, 16)), w[0, 0]).shape == (0, 5)
    assert np.array_equal(sums.product(np.zeros((3, 0)), np.zeros((5, 0))), np.zeros((3, 5)))
    assert np.array_equal(sums.product(np.zeros((3, 8)), np.ones((5, 8))), np.zeros((3, 5)))


def test_a_grid_has_the_bits_that_it_says(rng):
    x = rng.standard_normal((50, 40)) * 10.0 ** rng.integers(-9, 9, (50, 1))
    gridded = sums.on_grid(x, 12)
    peak = np.abs(x).max(1, keepdims=True)
    step = 2.0 ** (np.floor(np.log2(peak)) + 1 - 12)
    assert np.array_equal(gridded, np.rint(x / step) * step)
    assert np.array_equal(sums.on_grid(gridded, 12), gridded)
    with pytest.raises(ValueError, match=r"bits of a grid must be in 1\.\.51, not 52"):
        sums.on_grid(x, 52)


@pytest.mark.parametrize(("terms", "dtype"), [(1040, np.float32), (1041, np.float64)])
def test_integer_products_are_exact_at_their_limit(terms, dtype):
    x = np.full((1, terms), 127.0)
    found = sums.integer_product(x, -x, 127 * 127)
    assert (found.dtype, int(found[0, 0])) == (dtype, -127 * 127 * terms)


@pytest.mark.parametrize("n", [0, 1, 2, 3, 7, 8, 129, 1000])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_totals(rng, n, axis):
    shape = (n, 5) if axis == 0 else (5, n)
    x = rng.standard_normal(shape)
    assert np.allclose(sums.total(x, axis), x.sum(axis), rtol=1e-13, atol=1e-13)
    assert sums.total(x.astype(np.float32), axis).dtype == np.float32
    if n:
        assert np.allclose(sums.mean(x, axis), x.mean(axis)) and np.allclose(sums.variance(x, axis), x.var(axis))


def test_a_total_is_one_tree():
    """Whatever the memory layout: NumPy's own sum adds rows and columns in other orders."""
    x = (1.0 + np.arange(35)) / 3
    by_hand = x[:17] + x[17:34]
    by_hand[0] += x[34]
    while len(by_hand) > 1:
        half = len(by_hand) // 2
        odd = by_hand[-1] if len(by_hand) % 2 else 0.0
        by_hand = by_hand[:half] + by_hand[half : 2 * half]
        by_hand[0] += odd
    tall, wide = np.repeat(x[:, None], 3, 1), np.repeat(x[None], 3, 0)
    assert np.array_equal(sums.total(tall, 0), np.repeat(by_hand, 3))
    assert np.array_equal(sums.total(wide, 1), np.repeat(by_hand, 3))
    assert np.array_equal(sums.total(np.asfortranarray(wide), 1), np.repeat(by_hand, 3))


# --- Functions -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "error"), [(np.float64, 1e-10), (np.float32, 4e-6)])
def test_exponentials(rng, dtype, error):
    x = np.concatenate([rng.uniform(-60, 0, 40_000), [0.0, -1e-9, -700.0]]).astype(dtype)
    wanted = np.exp(x.astype(np.float64))
    found = functions.exp_not_positive(x)
    near = x > -33
    assert found.dtype == dtype and np.abs(found / wanted - 1)[near].max() < error
    assert found[~near].max() < 1e-14 and found[-1] == 0 and found[-3] == 1
    both = np.concatenate([x, -x[x > -60]])
    assert np.abs(functions.exp(both) / np.exp(both.astype(np.float64)) - 1)[both > -80].max() < error


def test_softmax(rng):
    x = rng.standard_normal((300, 129)) * 5
    wanted = np.exp(x - x.max(1, keepdims=True))
    wanted /= wanted.sum(1, keepdims=True)
    assert np.abs(functions.softmax(x) - wanted).max() < 1e-10
    assert np.abs(functions.softmax(x.astype(np.float32)) - wanted).max() < 1e-6
    assert np.array_equal(functions.softmax(x.reshape(3, 100, 129)).reshape(x.shape), functions.softmax(x))
    order = rng.permutation(129)
    assert np.array_equal(functions.softmax(x[:, order]), functions.softmax(x)[:, order])  # the sum is exact


def test_erf_and_gelu():
    x = np.linspace(-7, 7, 20011)
    exact = np.array([math.erf(v) for v in x])
    assert np.abs(functions.erf(x) - exact).max() < 1e-9
    assert np.abs(functions.gelu(x) - [0.5 * v * math.erfc(-v / math.sqrt(2)) for v in x]).max() < 1e-8
    assert [float(functions.erf_exact(Decimal(v))) for v in (0.0, 0.5, 1.0, 3.25)] == pytest.approx(
        [math.erf(v) for v in (0.0, 0.5, 1.0, 3.25)], rel=1e-15
    )


def test_angles(rng):
    for angle in [0.0, math.pi / 2, -math.pi, 7.0, *rng.uniform(-7, 7, 200)]:
        found = functions.sine_cosine(float(angle))
        assert np.abs(np.subtract(found, (math.sin(angle), math.cos(angle)))).max() < 2e-16
    points = np.concatenate([rng.standard_normal((5000, 2)), [(0, 0), (0, 1), (1, 0), (-1, 0), (0, -1), (-2, -2)]])
    found = functions.arc_tangent(points[:, 1], points[:, 0])
    assert np.abs(found - np.arctan2(points[:, 1], points[:, 0])).max() < 1e-15


def test_random_numbers_are_numpys(seed):
    ours, numpys = (np.random.Generator(np.random.PCG64(seed)) for _ in range(2))
    assert [functions.uniform(ours, -2.5, 3.7) for _ in range(50)] == [numpys.uniform(-2.5, 3.7) for _ in range(50)]
    assert np.array_equal(functions.uniforms(ours, 0.1, 0.9, 50), numpys.uniform(0.1, 0.9, 50))
    for dtype in (np.float64, np.float32):
        normal = functions.standard_normal(ours, (20_000,), dtype)
        assert normal.dtype == dtype and np.abs(normal).max() == dtype(3.65)
        assert np.array_equal(normal, np.clip(numpys.standard_normal(20_000, dtype), dtype(-3.65), dtype(3.65)))


def test_gelus_table_where_a_library_could_round_either_way():
    """At a scale that makes an entry a tie but for its last bits, the exact value decides."""
    entry = 200

    def value(scale):
        return 0.5 * entry * math.erfc(entry * scale / math.sqrt(2))

    low, high = 0.0099, 0.0101
    tie = round(value(low)) - 0.5
    assert value(high) < tie < value(low)
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if value(middle) > tie else (low, middle)
    assert abs(value(low) - tie) < 1e-12
    for scale in (low, high):
        exact = entry * (1 - functions.erf_exact(Decimal(entry * scale / math.sqrt(2)))) / 2
        table = tables.activation_table("gelu", scale).astype(int)
        assert table[-1] - table[entry] == int(exact.to_integral_value())


def test_constant_tables_have_no_entry_near_a_tie():
    """They come from the C library's power, whose error is below 1e-12 of these values."""
    for factor, steps in ((4080, 64), (32767, 256)):
        values = [factor * 2.0 ** (-j / steps) for j in range(1, steps)]
        assert min(abs(value - math.floor(value) - 0.5) for value in values) > 1e-4


# --- Linear algebra --------------------------------------------------------------------------------------------------


def _positive(rng, size, rank=None):
    rows = rng.standard_normal((rank or 2 * size, size)) * np.exp(rng.standard_normal(size))
    return rows.T @ rows / len(rows)


def test_matrix_product(rng):
    a, b = rng.standard_normal((4, 9)), rng.standard_normal((9, 5))
    assert np.allclose(linear_algebra.matrix_product(a, b), a @ b, rtol=1e-13, atol=1e-13)


def test_solving(rng):
    a, b = _positive(rng, 40), rng.standard_normal((40, 7))
    assert np.abs(a @ linear_algebra.solve(a, b) - b).max() < 1e-10
    r = linear_algebra.cholesky(a)
    assert np.allclose(r.T @ r, a, rtol=1e-12) and np.array_equal(r, np.triu(r))
    with pytest.raises(ValueError, match=r"the matrix must be positive definite, but its pivot 0 is -1\.0"):
        linear_algebra.solve(np.array([[-1.0]]), np.array([[1.0]]))


@pytest.mark.parametrize("size", [1, 2, 5, 16, 33])
def test_eigenvalues(rng, size):
    a = _positive(rng, size)
    values, vectors = linear_algebra.eigen(a)
    assert np.allclose(values, np.linalg.eigvalsh(a), rtol=1e-10)
    assert np.allclose(vectors.T @ vectors, np.eye(size), atol=1e-12)
    assert np.abs(a @ vectors - vectors * values).max() < 1e-11 * values[-1]


def test_equal_eigenvalues(rng):
    a = np.eye(12) + _positive(rng, 12, 4)  # eight of them are 1
    values, vectors = linear_algebra.eigen(a)
    assert np.allclose(values[:8], 1, atol=1e-13) and values[8] > 1.0001
    assert np.allclose((vectors * values) @ vectors.T, a, atol=1e-11)
