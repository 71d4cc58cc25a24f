# amaranth: UnusedElaboratable=no
import random

import pytest

from edgemoe_hw.engines.matmul.softmax import Exp2Lanes, Reciprocal
from support import golden
from support.amaranth_bench import stream_vectors


@pytest.mark.parametrize("lanes", [1, 8, 12])
def test_exponentials_and_total_equal_the_formula(lanes: int) -> None:
    dut = Exp2Lanes(lanes)
    rng = random.Random(lanes)
    vectors = []
    for shift in range(4):
        for maximum in (2047, -2047, 0):
            for low in (-2047, maximum - 600, maximum - 80):
                for _ in range(60):
                    scores = [rng.randint(max(low, -2047), maximum) for _ in range(lanes)]
                    vectors.append((scores, maximum, shift, rng.randrange(1 << lanes)))
            vectors.append(([maximum] * lanes, maximum, shift, (1 << lanes) - 1))
            vectors.append(([-2047] * lanes, maximum, shift, (1 << lanes) - 1))
    for delta in range(0, 4095):  # every difference
        vectors.append(([2047 - delta] * lanes, 2047, delta % 4, (1 << lanes) - 1))
    for delta in range(0, 700):
        vectors.append(([2047 - delta] * lanes, 2047, 0, (1 << lanes) - 1))
    masked_above = ([2047] * lanes, -5, 0, 0)  # padding may hold anything
    vectors.append(masked_above)

    def want(vector):
        scores, maximum, shift, mask = vector
        return [golden.probability(s, maximum, shift) if mask >> i & 1 else 0 for i, s in enumerate(scores)]

    assert want(([5] * lanes, 5, 0, 1))[0] == 255

    def drive(ctx, vector):
        scores, maximum, shift, mask = vector
        for i, score in enumerate(scores):
            ctx.set(dut.score[i], score)
        ctx.set(dut.maximum, maximum)
        ctx.set(dut.score_shift, shift)
        ctx.set(dut.mask, mask)

    def check(ctx, vector):
        assert [ctx.get(dut.p[i]) for i in range(lanes)] == want(vector), vector

    def check_total(ctx, vector):
        assert ctx.get(dut.total) == sum(want(vector)), vector

    stream_vectors(dut, Exp2Lanes.LATENCY, vectors, drive, check)
    stream_vectors(dut, Exp2Lanes.TOTAL_LATENCY, vectors, drive, check_total)


def test_reciprocal_equals_the_formula() -> None:
    dut = Reciprocal(18)
    rng = random.Random(0)
    vectors = [
        *range(1, 1100),
        *((1 << b) + d for b in range(1, 18) for d in (-1, 0, 1)),
        (1 << 18) - 1,
        *(rng.randrange(1, 1 << rng.randrange(1, 19)) for _ in range(3000)),
    ]

    def drive(ctx, n):
        ctx.set(dut.n, n)

    def check(ctx, n):
        assert (ctx.get(dut.row), ctx.get(dut.shift)) == golden.reciprocal(n), n

    stream_vectors(dut, Reciprocal.LATENCY, vectors, drive, check)


def test_refusals() -> None:
    with pytest.raises(ValueError, match="lanes must be a positive integer, not 0"):
        Exp2Lanes(0)
    with pytest.raises(ValueError, match="width must be an integer of at least 11, not 10"):
        Reciprocal(10)
