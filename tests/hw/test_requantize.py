# amaranth: UnusedElaboratable=no
import random

import pytest

from edgemoe_hw.engines.matmul.requantize import (
    NO_ROW_FACTOR,
    RequantizeLane,
    Requantizer,
    ValueBits,
)
from edgemoe_hw.primitives.rounding import RoundingShift
from support import golden
from support.amaranth_bench import stream_vectors

BITS = {ValueBits.INT8: 8, ValueBits.INT11: 11, ValueBits.INT12: 12, ValueBits.INT16: 16}
BOUND = (1 << 24) - 1


def lane_vectors(count: int, seed: int) -> list[dict]:
    """Vectors of which most results are neither zero nor clamped, with ties and extremes among them."""
    rng = random.Random(seed)
    extremes = [
        (a, m, s, row, rs)
        for a in (BOUND, -BOUND, 0, 1, -1)
        for m in (0, 1, 65535)
        for s in (0, 1, 39, 40, 41, 47)
        for row, rs in ((NO_ROW_FACTOR, 0), (0, 15), (32767, 15), (NO_ROW_FACTOR, 15))
    ]
    ties = [
        (a, 1 << k, s, NO_ROW_FACTOR, 0) for k in (0, 3, 7) for s in (1, 4, 8, 9, 16, 17) for a in range(-40, 41, 3)
    ]
    ties += [(a << (s - 1), 1, s, NO_ROW_FACTOR, 0) for s in range(1, 21) for a in (-5, -3, -1, 1, 3, 5)]
    vectors = extremes + ties
    while len(vectors) < count:
        acc = rng.randint(-BOUND, BOUND) >> rng.randrange(24)
        multiplier = rng.randrange(1 << rng.randrange(1, 17))
        row, row_shift = (NO_ROW_FACTOR, 0) if rng.random() < 0.5 else (rng.randrange(32769), rng.randrange(16))
        magnitude = abs(acc * multiplier * row >> 15).bit_length()
        shift = min(47, max(0, magnitude - rng.randrange(20) - row_shift)) if rng.random() < 0.9 else rng.randrange(48)
        vectors.append((acc, multiplier, shift, row, row_shift))
    result = []
    for a, multiplier, shift, row, row_shift in vectors:
        bias = rng.randint(-BOUND, BOUND) if rng.random() < 0.5 else rng.randint(-9, 9)
        if abs(a - bias) > BOUND:
            bias = 0
        result.append(
            {
                "acc": a - bias,
                "bias": bias,
                "multiplier": multiplier,
                "shift": shift,
                "row": row,
                "row_shift": row_shift,
            }
        )
    return result


def expected(vector: dict, bits: int) -> int:
    row = None if vector["row"] == NO_ROW_FACTOR and not vector["row_shift"] else (vector["row"], vector["row_shift"])
    return golden.requantize(vector["acc"], vector["bias"], vector["multiplier"], vector["shift"], bits, row)


def test_requantizer_equals_the_formula() -> None:
    lanes = 4
    dut = Requantizer(lanes)
    rng = random.Random(1)
    groups = []
    for vector in lane_vectors(4000, 0):
        others = [
            dict(vector, acc=-vector["acc"], bias=-vector["bias"]),
            dict(vector, shift=rng.randrange(48)),
            dict(vector, multiplier=rng.randrange(1 << 16)),
        ]
        groups.append((rng.choice(list(ValueBits)), [vector, *others]))

    def drive(ctx, group):
        bits, values = group
        ctx.set(dut.bits, bits)
        ctx.set(dut.row, values[0]["row"])
        ctx.set(dut.row_shift, values[0]["row_shift"])
        for i, value in enumerate(values):
            for field in ("acc", "bias", "multiplier", "shift"):
                ctx.set(getattr(dut, field)[i], value[field])

    seen = set()

    def check(ctx, group):
        bits, values = group
        for i, value in enumerate(values):
            want = expected(value, BITS[bits])
            seen.add(want)
            assert ctx.get(dut.value[i]) == want, (i, bits, value)

    stream_vectors(dut, Requantizer.LATENCY, groups, drive, check)
    assert len(seen) > 1500  # the vectors do not all clamp or vanish
    assert {127, -127, 1023, -1023, 2047, -2047, 32767, -32767, 0} <= seen


def test_every_shift_and_row_shift() -> None:
    dut = Requantizer(1)
    vectors = [
        {"acc": sign * BOUND, "bias": 0, "multiplier": 65535, "shift": s, "row": 32767, "row_shift": rs}
        for s in range(48)
        for rs in range(16)
        for sign in (1, -1)
    ]

    def drive(ctx, vector):
        ctx.set(dut.bits, ValueBits.INT16)
        for field in ("acc", "bias", "multiplier", "shift"):
            ctx.set(getattr(dut, field)[0], vector[field])
        ctx.set(dut.row, vector["row"])
        ctx.set(dut.row_shift, vector["row_shift"])

    def check(ctx, vector):
        assert ctx.get(dut.value[0]) == expected(vector, 16), vector

    stream_vectors(dut, Requantizer.LATENCY, vectors, drive, check)


@pytest.mark.parametrize(("in_width", "shift_width", "out_width"), [(12, 5, 8), (9, 4, 9), (20, 4, 4)])
def test_rounding_shift_widths(in_width: int, shift_width: int, out_width: int) -> None:
    dut = RoundingShift(in_width, shift_width, out_width)
    rng = random.Random(in_width)
    top = (1 << (in_width - 1)) - 1
    vectors = [
        (rng.randint(-top, top) >> rng.randrange(in_width), rng.randrange(1 << shift_width)) for _ in range(3000)
    ]
    vectors += [(v, s) for v in (-top, top, 0, 1, -1) for s in range(1 << shift_width)]

    def drive(ctx, vector):
        ctx.set(dut.value, vector[0])
        ctx.set(dut.shift, vector[1])
        ctx.set(dut.limit, (1 << (out_width - 1)) - 1)

    def check(ctx, vector):
        assert ctx.get(dut.result) == golden.clamp(golden.rhe(*vector), out_width), vector

    stream_vectors(dut, RoundingShift.LATENCY, vectors, drive, check)


def test_constants_and_refusals() -> None:
    assert RequantizeLane.LATENCY == Requantizer.LATENCY == 6
    with pytest.raises(ValueError, match="lanes must be a positive integer, not 0"):
        Requantizer(0)
    with pytest.raises(ValueError, match="out_width must be between 2 and in_width"):
        RoundingShift(8, 4, 9)
    with pytest.raises(ValueError, match="shift_width must be more than 3, not 3"):
        RoundingShift(8, 3, 8)
