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
from edgemoe_hw.spec.constants import MAX_SHIFT
from edgemoe_hw.spec.timing import REQUANTIZE
from support import golden
from support.amaranth_bench import stream_vectors
from support.unit_cases import LARGEST_ROW_SHIFT, VALUE_BITS, requantize_vectors, requantized


@pytest.mark.parametrize("acc_bits", [25, 26])
def test_requantizer_equals_the_formula(acc_bits: int) -> None:
    lanes = 4
    dut = Requantizer(lanes, acc_bits)
    rng = random.Random(1)
    groups = []
    for vector in requantize_vectors(4000, 0, acc_bits):
        others = [
            dict(vector, acc=-vector["acc"], bias=-vector["bias"]),
            dict(vector, shift=rng.randrange(MAX_SHIFT + 1)),
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
            want = requantized(value, VALUE_BITS[bits])
            seen.add(want)
            assert ctx.get(dut.value[i]) == want, (i, bits, value)

    stream_vectors(dut, Requantizer.LATENCY, groups, drive, check)
    assert len(seen) > 1500  # the vectors do not all clamp or vanish
    assert {127, -127, 2047, -2047, 32767, -32767, 0} <= seen


@pytest.mark.parametrize("acc_bits", [25, 26])
def test_every_shift_and_row_shift(acc_bits: int) -> None:
    dut = Requantizer(1, acc_bits)
    bound = (1 << (acc_bits - 1)) - 1
    vectors = [
        {"acc": acc, "bias": 0, "multiplier": 65535, "shift": s, "row": row, "row_shift": rs}
        for s in range(MAX_SHIFT + 1)
        for rs in range(LARGEST_ROW_SHIFT + 1)
        for acc, row in ((bound, 32767), (-bound, 32767), (1 << 20, NO_ROW_FACTOR), (-3, 16384))
    ]

    def drive(ctx, vector):
        ctx.set(dut.bits, ValueBits.INT16)
        for field in ("acc", "bias", "multiplier", "shift"):
            ctx.set(getattr(dut, field)[0], vector[field])
        ctx.set(dut.row, vector["row"])
        ctx.set(dut.row_shift, vector["row_shift"])

    def check(ctx, vector):
        assert ctx.get(dut.value[0]) == requantized(vector, 16), vector

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


def test_rounding_shift_at_narrower_limits() -> None:
    """Values next to each limit, before and after rounding, and far beyond it."""
    dut = RoundingShift(24, 5, 16)
    vectors = []
    for bits in (2, 8, 11, 12, 16):
        limit = (1 << (bits - 1)) - 1
        for shift in (0, 1, 2, 5):
            for edge in (limit, limit + 1, limit + 2, 2 * limit + 2, 3 * limit, 0):
                for offset in (-2, -1, 0, 1, 2):
                    value = (edge << shift) + (offset << shift >> 1)
                    vectors += [(sign * value, shift, bits) for sign in (1, -1) if abs(value) < 1 << 23]
        vectors += [(sign * ((1 << 23) - 1), shift, bits) for sign in (1, -1) for shift in range(32)]

    def drive(ctx, vector):
        ctx.set(dut.value, vector[0])
        ctx.set(dut.shift, vector[1])
        ctx.set(dut.limit, (1 << (vector[2] - 1)) - 1)

    def check(ctx, vector):
        assert ctx.get(dut.result) == golden.clamp(golden.rhe(vector[0], vector[1]), vector[2]), vector

    for bits in (2, 8, 11, 12, 16):  # one after the other: the limit is not sampled with the value
        stream_vectors(dut, RoundingShift.LATENCY, [vector for vector in vectors if vector[2] == bits], drive, check)


def test_constants_and_refusals() -> None:
    assert RequantizeLane.LATENCY == Requantizer.LATENCY == REQUANTIZE
    with pytest.raises(ValueError, match="lanes must be a positive integer, not 0"):
        Requantizer(0)
    with pytest.raises(ValueError, match="out_width must be between 2 and in_width"):
        RoundingShift(8, 4, 9)
    with pytest.raises(ValueError, match="shift_width must be more than 3, not 3"):
        RoundingShift(8, 3, 8)
