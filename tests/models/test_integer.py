"""docs/numerics.md transcribed in plain Python integers, against the vectorised operators."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemoe_models.arithmetic import ops, tables
from edgemoe_models.config import ModelConfig, TaskConfig
from edgemoe_models.integer.postprocess import arrange, postprocess, upsample
from edgemoe_models.model_image import patchify

# --- The text of docs/numerics.md, one element at a time -----------------------------------------------------------


def slow_clamp(v, bits):
    return max(-(2 ** (bits - 1) - 1), min(2 ** (bits - 1) - 1, v))


def slow_rhe(v, s):
    if s == 0:
        return v
    q = v >> s
    r = v - (q << s)
    h = 1 << (s - 1)
    return q + 1 if r > h or (r == h and q % 2 == 1) else q


def slow_requantize(acc, bias, multiplier, shift, bits, row=None, row_shift=0):
    a = acc + bias
    m = multiplier if row is None else (multiplier * row + 2**14) >> 15
    return slow_clamp(slow_rhe(a * m, shift + row_shift), bits)


def slow_activation(q, table, shift):
    return slow_clamp(slow_rhe(max(q, 0) + int(table[min(abs(q), 511)]), shift) - 128, 8)


def slow_layer_norm(x, gamma, beta, shift, eps):
    dim = len(x)
    c = dim.bit_length() - 1
    inv = round(Fraction(2 ** (c + 16), dim))
    total, squares = sum(x), sum(v * v for v in x)
    mu = slow_rhe(total * inv, c + 8)
    variance = max(dim * squares - total * total + eps, 1)
    assert variance < 2**52
    e = (51 - (variance.bit_length() - 1)) >> 1
    u = (variance << (2 * e)) >> 36
    assert 2**14 <= u < 2**16
    r = int(tables.RSQRT[u >> 6])
    y = []
    for v, g, b in zip(x, gamma, beta, strict=True):
        t = slow_clamp(slow_rhe(((v << 8) - mu) * r, 39 - c - e), 16)
        y.append(slow_clamp(slow_rhe(t * g + b, shift), 8))
    return y


def slow_softmax(scores, score_shift):
    maximum, p = max(scores), []
    for s in scores:
        delta = (maximum - s) << score_shift
        i, j = delta >> 6, delta & 63
        p.append((int(tables.EXP2[j]) + (8 << i)) >> (4 + i) if i <= 8 else 0)
    return p


def slow_reciprocal(n):
    b = n.bit_length() - 1
    i = ((n << 17) >> b) >> 7 & 1023
    return int(tables.RECIP[i]), b


def slow_gate(logits, top_k):
    p = []
    for value in logits:
        delta = max(logits) - value
        i, j = delta >> 10, (delta >> 2) & 255
        p.append(int(tables.EXP2G[j]) >> i if i <= 15 else 0)
    r, b = slow_reciprocal(sum(p))
    scores = [min((v * r + ((1 << b) >> 1)) >> b, 32768) for v in p]
    order = sorted(range(len(logits)), key=lambda e: (-logits[e], e))
    return order[:top_k], scores


# --- Tables ----------------------------------------------------------------------------------------------------------


def test_tables_have_their_known_ends():
    assert (tables.RSQRT[256], tables.RSQRT[1023]) == (65472, 32776)
    assert (tables.EXP2[0], tables.EXP2[63]) == (4080, round(4080 * 2 ** (-63 / 64)))
    assert (tables.EXP2G[0], tables.EXP2G[128]) == (32767, 23170)
    assert (tables.RECIP[0], tables.RECIP[1023]) == (32752, 16388)
    assert tables.RSQRT.max() == 65535


def test_no_table_entry_is_near_a_tie_so_every_platform_rounds_alike():
    for exact in (
        [4080 * 2.0 ** (-j / 64) for j in range(1, 64)],
        [32767 * 2.0 ** (-j / 256) for j in range(1, 256)],
        [2**23 / math.sqrt((i + 0.5) * 64) for i in range(4, 1024)],
    ):
        assert min(abs(value % 1 - 0.5) for value in exact) > 1e-5
    exact = [2**23 / math.sqrt((i + 0.5) * 64) for i in range(256, 1024)]
    assert np.array_equal(tables.RSQRT[256:], np.rint(exact))


@pytest.mark.parametrize("dim", [8, 9, 48, 96, 192, 255, 1024])
def test_norm_constants(dim):
    log2_dim, inv = tables.norm_constants(dim)
    assert 2**log2_dim <= dim < 2 ** (log2_dim + 1)
    assert abs(inv - 2 ** (log2_dim + 16) / dim) <= 0.5 and inv < 2**17


def test_norm_constants_refuse_a_bad_dim():
    with pytest.raises(ValueError, match=r"dim of a LayerNorm must be in 8\.\.1024, not 7"):
        tables.norm_constants(7)


@pytest.mark.parametrize("unit", [4.2 / 511, 0.0083, 0.01, 0.033, 0.2, 1.0])
def test_gelu_is_within_a_unit_of_the_real_function(unit):
    """Nor does any of its values leave the format at the lower end, whatever the shift."""
    table = tables.activation_table("gelu", unit)
    q = np.arange(-2047, 2048)
    real = np.array([0.5 * v * math.erfc(-v / math.sqrt(2)) for v in q * unit])
    for shift in range(4):
        wanted = (real / unit + int(table[-1])) / 2**shift - 128
        assert wanted.min() > -127.5
        found = ops.activate(q, table, shift)
        assert np.abs(found - np.clip(wanted, -127, 127)).max() <= 0.5 + (0.5 / 2**shift if shift else 0) + 1e-9


def test_gelu_table_refuses_a_bad_unit():
    with pytest.raises(ValueError, match="unit of a GELU must be positive and finite, not nan"):
        tables.activation_table("gelu", float("nan"))
    with pytest.raises(ValueError, match=r"unit of a GELU must be at least 0.008219, not 0.008"):
        tables.activation_table("gelu", 0.008)


# --- Operators against the transcription -----------------------------------------------------------------------------


@given(st.integers(-(2**60), 2**60), st.integers(0, 62))
def test_rounding_shift(v, s):
    assert int(ops.rounding_shift(v, s)) == slow_rhe(v, s)


def test_rounding_shift_takes_ties_to_even():
    assert ops.rounding_shift(np.array([-3, -1, 1, 3, 5, 0]), 1).tolist() == [-2, 0, 0, 2, 2, 0]


@given(st.integers(1, 2**53 - 1))
def test_floor_log2(n):
    assert int(ops.floor_log2(n)) == n.bit_length() - 1


def test_floor_log2_refuses_zero():
    with pytest.raises(ValueError, match="at least 1, not 0"):
        ops.floor_log2(np.array([4, 0]))


@settings(max_examples=300)
@given(
    st.integers(-(2**23), 2**23),
    st.integers(-(2**22), 2**22),
    st.integers(0, 65535),
    st.integers(0, 47),
    st.sampled_from([8, 11, 12, 16]),
    st.one_of(st.none(), st.integers(0, 2**15)),
    st.integers(0, 17),
)
def test_requantize(acc, bias, multiplier, shift, bits, row, row_shift):
    row_shift = 0 if row is None else row_shift
    result = ops.requantize(np.array([[acc]]), bias, multiplier, shift, bits, row, row_shift)
    assert int(result[0, 0]) == slow_requantize(acc, bias, multiplier, shift, bits, row, row_shift)


def test_requantize_refuses_an_accumulator_of_24_bits():
    with pytest.raises(ValueError, match="must stay below 2\\^24 = 16777216, not reach 16777216"):
        ops.requantize(np.array([2**24 - 1]), 1, 1, 0, 16)
    with pytest.raises(ValueError, match="must stay below 2\\^25 = 33554432, not reach 33554432"):
        ops.requantize(np.array([2**25 - 1]), 1, 1, 0, 16, limit=ops.CONTEXT_LIMIT)


@pytest.mark.parametrize("acc", [2**25 - 1, -(2**25) + 1, 12345])
@pytest.mark.parametrize("shift", [0, 24, 40, 41, 44, 45, 46, 47])
def test_requantize_of_the_longest_rows(acc, shift):
    """1024 equal scores: shifts up to 64, which int64 does not have."""
    row, row_shift = (int(value) for value in ops.reciprocal(255 * 1024))
    assert row_shift == 17
    for bits in (8, 16):
        result = ops.requantize(np.array([acc]), 0, 65535, shift, bits, row, row_shift, ops.CONTEXT_LIMIT)
        assert int(result[0]) == slow_requantize(acc, 0, 65535, shift, bits, row, row_shift)


def test_matmul_is_exact_at_its_extremes():
    x, w = np.full((2, 512), 255, np.uint8), np.full((3, 512), -127, np.int8)
    x[1, ::2] = 0
    w[1, 0] = 126
    expected = [[int(np.dot(a.astype(object), b.astype(object))) for b in w] for a in x]
    assert ops.matmul(x, w).tolist() == expected


def test_activation(rng):
    q = np.arange(-2047, 2048)
    flat = [np.full(512, value, np.uint8) for value in (0, 1, 255)]
    for table in (tables.activation_table("gelu", 0.03), rng.integers(0, 256, 512).astype(np.uint8), *flat):
        for shift in range(4):
            assert ops.activate(q, table, shift).tolist() == [slow_activation(int(v), table, shift) for v in q]
    shifts = rng.integers(0, 4, len(q))
    expected = [slow_activation(int(v), flat[1], s) for v, s in zip(q, shifts, strict=True)]
    assert ops.activate(q[None], flat[1], shifts)[0].tolist() == expected


@pytest.mark.parametrize("dim", [8, 12, 96, 192, 1000, 1024])
@pytest.mark.parametrize("spread", [0, 1, 40, 3000, 32767])
def test_layer_norm(dim, spread):
    rng = np.random.default_rng(dim + spread)
    x = rng.integers(-spread, spread + 1, (6, dim))
    x[0] = spread  # no variance
    x[1] = np.where(np.arange(dim) % 2, spread, -spread)
    x[2] = 0
    x[2, 0] = spread  # one large channel
    gamma = rng.integers(-32767, 32768, dim)
    beta = rng.integers(-(2**29), 2**29, dim)
    for shift, eps in ((22, 0), (17, 123456), (0, 2**32 - 1), (31, 1)):
        expected = [slow_layer_norm(row.tolist(), gamma.tolist(), beta.tolist(), shift, eps) for row in x]
        assert ops.layer_norm(x, gamma, beta, shift, eps).tolist() == expected


@settings(max_examples=200)
@given(st.lists(st.integers(-2047, 2047), min_size=1, max_size=40), st.integers(0, 3))
def test_softmax(scores, score_shift):
    p, maximum = ops.softmax_probabilities(np.array(scores), score_shift)
    assert p.tolist() == slow_softmax(scores, score_shift)
    assert int(maximum) == max(scores)
    assert p.max() == 255 and p.min() >= 0


@given(st.integers(1, 2**20))
def test_reciprocal(n):
    row, row_shift = ops.reciprocal(n)
    assert (int(row), int(row_shift)) == slow_reciprocal(n)
    assert abs(int(row) / 2 ** (15 + int(row_shift)) * n - 1) < 1 / 1024


@settings(max_examples=200)
@given(st.lists(st.integers(-32767, 32767), min_size=1, max_size=32), st.integers(1, 4))
def test_gate(logits, top_k):
    top_k = min(top_k, len(logits))
    chosen, scores = slow_gate(logits, top_k)
    assert ops.gate_select(np.array([logits]), top_k)[0].tolist() == chosen
    assert ops.gate_scores(np.array([logits]))[0].tolist() == scores


def test_gate_ties_go_to_the_lower_expert_and_queues_ascend():
    logits = np.array([[5, 5, 5, 5], [0, 9, 9, 9], [1, 0, 1, 1], [3000, 0, 0, 0]])
    queues, scores = ops.expert_queues(logits, 2)
    assert [queue.tolist() for queue in queues] == [[0, 2, 3], [0, 1, 3], [1, 2], []]
    assert [len(score) for score in scores] == [3, 3, 2, 0]
    assert all(score.dtype == np.int64 for score in scores)


@pytest.mark.parametrize("spread", [0, 500, 4000])
def test_gate_scores_are_the_softmax(spread):
    logits = np.random.default_rng(spread).integers(-spread, spread + 1, (50, 16))
    real = 2.0 ** (logits / 1024)
    real /= real.sum(1, keepdims=True)
    assert np.abs(ops.gate_scores(logits) / 32768 - real).max() < 4e-3


# --- Patches and pictures --------------------------------------------------------------------------------------------


def _config(**changes):
    task = TaskConfig("segmentation", "segmentation", channels=3, cells=2)
    values = {
        "name": "odd",
        "image_height": 8,
        "image_width": 12,
        "patch": 4,
        "dim": 12,
        "depth": 2,
        "heads": 3,
        "mlp_hidden": 20,
        "num_experts": 3,
        "top_k": 2,
        "expert_hidden": 10,
        "tasks": (task,),
    }
    return ModelConfig(**(values | changes))


def test_patchify_orders_channel_row_column():
    image = np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    patches = patchify(image, 4)
    assert patches.shape == (6, 48) and patches.dtype == np.uint8
    assert np.array_equal(patches[4].reshape(3, 4, 4), image[4:8, 4:8].transpose(2, 0, 1))


def test_arrange_orders_cell_row_cell_column_channel():
    config = _config()
    rows = np.arange(6 * 12).reshape(6, 12)
    image = arrange(config, "segmentation", rows)
    assert image.shape == (3, 4, 6)
    for patch, cell_y, cell_x, channel in ((0, 0, 0, 0), (4, 1, 0, 2), (5, 1, 1, 1)):
        y, x = patch // 3 * 2 + cell_y, patch % 3 * 2 + cell_x
        assert image[channel, y, x] == rows[patch, (cell_y * 2 + cell_x) * 3 + channel]


def test_upsample_is_bilinear():
    row = upsample(np.array([[[0.0, 1.0]]], np.float32), 2, 4)
    assert row.tolist() == [[[0.0, 0.25, 0.75, 1.0]] * 2]


def test_postprocess_of_every_kind():
    dense = {"segmentation": 3, "depth": 1, "normals": 3, "edges": 1}
    tasks = [TaskConfig(kind, kind, channels=n, cells=2) for kind, n in dense.items()]
    config = _config(tasks=(*tasks, TaskConfig("label", "classification", channels=5)))
    rng = np.random.default_rng(1)
    results = {}
    for task in config.tasks:
        output = rng.standard_normal(config.output_shape(task.name)).astype(np.float32)
        results[task.kind] = postprocess(config, task.name, output)
    assert results["segmentation"].shape == (8, 12) and results["segmentation"].dtype == np.uint8
    assert results["depth"].shape == (8, 12)
    assert results["edges"].dtype == np.bool_
    assert np.allclose(np.linalg.norm(results["normals"], axis=-1), 1, atol=1e-5)
    assert results["classification"].sum() == pytest.approx(1)
