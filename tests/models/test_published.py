"""The published formulas: hand-worked values, and the errors that their papers state."""

import math

import numpy as np
import pytest

from edgemoe_models.exact.functions import erf
from edgemoe_models.studies.published import edge_moe, fq_vit, i_bert, i_vit, to_int8

SCALE = math.log(2) / 64


def exact_gelu(x):
    return 0.5 * x * (1 + erf(x / math.sqrt(2)))


def exact_softmax(scores, scale):
    p = np.exp((scores - scores.max(-1, keepdims=True)) * scale)
    return p / p.sum(-1, keepdims=True)


def normal_scores(deviation):
    scores = np.random.default_rng(0).normal(0, deviation / SCALE, (200, 129))
    return np.rint(scores).astype(np.int64)


# --- I-BERT ----------------------------------------------------------------------------------------------------------


def test_i_exp_has_the_error_of_its_paper():
    """Section 3.5: at most 1.9e-3."""
    scale = 1e-5
    q = -np.arange(0, 500_000, 3)
    ints, out_scale = i_bert.i_exp(q, scale)
    assert np.abs(ints * out_scale - np.exp(q * scale)).max() == pytest.approx(1.9e-3, abs=1e-4)


def test_i_gelu_has_the_error_of_its_paper():
    """Table 1: at most 0.018."""
    q = np.arange(-4000, 4001)
    ints, scale = i_bert.gelu(q, 1e-3)
    assert np.abs(ints * scale - exact_gelu(q * 1e-3)).max() == pytest.approx(0.018, abs=5e-4)


def test_integer_sqrt_is_exact():
    n = np.concatenate([np.arange(3000), np.random.default_rng(0).integers(0, 1 << 45, 3000)])
    assert i_bert.integer_sqrt(n).tolist() == [math.isqrt(int(v)) for v in n]


# --- I-ViT -----------------------------------------------------------------------------------------------------------


def test_shift_exp_by_hand():
    """Scale 1/16: -16 becomes -16 - 8 + 1 = -23 = -(16 + 7); 16 + (-7 >> 1) = 12, shifted by 15 - 1."""
    ints, scale = i_vit.shift_exp(np.array([0, -16]), 1 / 16, 15)
    assert ints.tolist() == [16 << 15, 12 << 14] and scale == 2.0**-19


def test_iterated_sqrt_needs_no_more_than_ten_steps():
    n = np.concatenate([np.arange(1, 3000), np.random.default_rng(0).integers(1, 1 << 45, 3000)])
    assert np.abs(i_vit.iterated_sqrt(n) - i_bert.integer_sqrt(n)).max() <= 1


def test_shift_gelu_is_x_times_a_sigmoid():
    q = np.arange(-200, 201)
    x = q * 0.02
    ints, scale = i_vit.gelu(q, 0.02)
    error = np.abs(ints * scale - x / (1 + np.exp(-1.702 * x)))
    assert error.max() < 0.05 and error.mean() < 0.02


def test_the_31_bit_divider_is_for_coarse_inputs_only():
    def worst(scale):
        q = np.arange(-int(4 / scale), int(4 / scale) + 1)
        ints, out = i_vit.gelu(q, scale, divider_bits=i_vit.PROGRAM_DIVIDER_BITS)
        return np.abs(ints * out - exact_gelu(q * scale)).max()

    assert worst(0.1) < 0.2 and worst(0.0083) > 0.8


# --- FQ-ViT ----------------------------------------------------------------------------------------------------------


def test_log2_rounds_by_the_second_bit():
    assert fq_vit.log2_rounded(np.array([1, 2, 3, 4, 5, 6, 7, 11, 12])).tolist() == [0, 1, 2, 2, 2, 3, 3, 3, 4]


def test_log_int_softmax_gives_exponents():
    assert (fq_vit.log_int_softmax(np.zeros((2, 128), np.int64), SCALE) == 7).all()
    scores = normal_scores(4.0)
    k = fq_vit.log_int_softmax(scores, SCALE)
    ints, scale = fq_vit.softmax(scores, SCALE)
    assert k.min() >= 0 and k.max() == 15
    assert np.array_equal(ints * scale, 2.0**-k)
    exact = exact_softmax(scores, SCALE)
    assert np.abs(np.log2(exact) + k)[exact > 2.0**-8].max() < 0.7  # log2(1.5) by the rounding, the rest by i-exp


# --- Edge-MoE --------------------------------------------------------------------------------------------------------


def test_delta_table_has_the_error_of_its_paper():
    """Section IV-C: at most 9.7e-5 in ideal arithmetic, which is step^2 / 8 * |delta''(0)|."""
    x = np.linspace(-8, 8, 200_001)
    error = np.abs(edge_moe.gelu_ideal(x) - exact_gelu(x)).max()
    assert error == pytest.approx(9.7e-5, abs=1e-6)
    assert error == pytest.approx(edge_moe.TABLE_STEP**2 / 8 * 2 / math.sqrt(2 * math.pi), rel=1e-3)


def test_fixed_point_gelu_is_the_ideal_one_cut_off():
    q = np.arange(-1023, 1024)
    ints, scale = edge_moe.gelu(q, 0.0083)
    assert np.abs(ints * scale - edge_moe.gelu_ideal(q * 0.0083)).max() < 4 * scale


@pytest.mark.parametrize("order", [1, -1])
def test_single_pass_softmax_does_not_depend_on_the_order_of_keys(order):
    scores = np.sort(normal_scores(2.0), axis=-1)[:, ::order]
    ints, scale = edge_moe.softmax(scores, SCALE)
    assert np.abs(ints * scale - exact_softmax(scores, SCALE)).max() < 1e-4


# --- What they have in common ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("module", "error"), [(i_bert, 0.005), (i_vit, 0.025), (fq_vit, 0.34), (edge_moe, 1e-4)])
@pytest.mark.parametrize("score_shift", [0, 2])
def test_softmax(module, error, score_shift):
    scale = SCALE * 2**score_shift
    scores = normal_scores(2.0) >> score_shift
    ints, out_scale = module.softmax(scores, scale)
    assert ints.shape == scores.shape and ints.dtype == np.int64 and ints.min() >= 0
    assert np.abs(ints * out_scale - exact_softmax(scores, scale)).max() < error * 2**score_shift


@pytest.mark.parametrize(
    ("layer_norm", "error"),
    [(i_bert.layer_norm, 5e-3), (i_vit.layer_norm, 5e-3), (lambda x: edge_moe.layer_norm(x, 2.0**-10), 2e-3)],
)
def test_layer_norm(layer_norm, error):
    x = np.random.default_rng(0).normal(50, 300, (50, 96)).round().astype(np.int64)
    exact = (x - x.mean(-1, keepdims=True)) / x.std(-1, keepdims=True)
    ints, scale = layer_norm(x)
    assert np.abs(ints * scale - exact).max() < error


def test_constant_rows_are_no_division_by_zero():
    x = np.full((1, 96), 7, np.int64)
    for ints, _ in (i_bert.layer_norm(x), i_vit.layer_norm(x)):
        assert not ints.any()


def test_to_int8_saturates_and_rounds_half_to_even():
    assert to_int8((np.array([-999, -3, -1, 1, 3, 999]), 0.5), 1.0).tolist() == [-127, -2, 0, 0, 2, 127]
