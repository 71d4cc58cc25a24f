"""Cases of units and what the formulas of ``golden`` give for them, for benches under either simulator."""

import random
from fractions import Fraction

from edgemoe_hw.engines.matmul.requantize import NO_ROW_FACTOR, ValueBits
from edgemoe_hw.spec.config import AcceleratorConfig
from edgemoe_hw.spec.constants import EXP_SUM_BITS, MAX_SHIFT
from support import golden

VALUE_BITS = {ValueBits.INT8: 8, ValueBits.INT12: 12, ValueBits.INT16: 16}
LARGEST_ROW_SHIFT = EXP_SUM_BITS - 1

# --- Requantizer ------------------------------------------------------------------------------------------------------


def requantize_vectors(count: int, seed: int, acc_bits: int = 25) -> list[dict[str, int]]:
    """Vectors of which most results are neither zero nor clamped, with ties and extremes among them."""
    rng = random.Random(seed)
    bound = (1 << (acc_bits - 1)) - 1
    last = LARGEST_ROW_SHIFT
    vectors = [
        (a, m, s, row, rs)
        for a in (bound, -bound, 0, 1, -1)
        for m in (0, 1, 65535)
        for s in (0, 1, 39, 40, 41, MAX_SHIFT)
        for row, rs in ((NO_ROW_FACTOR, 0), (0, last), (32767, last), (NO_ROW_FACTOR, last), (32767, 16))
    ]
    for s in (1, 4, 8, 9, 16, 17):  # ties
        vectors += [(a, 1 << k, s, NO_ROW_FACTOR, 0) for k in (0, 3, 7) for a in range(-40, 41, 3)]
    vectors += [(a << (s - 1), 1, s, NO_ROW_FACTOR, 0) for s in range(1, 21) for a in (-5, -3, -1, 1, 3, 5)]
    while len(vectors) < count:
        acc = rng.randint(-bound, bound) >> rng.randrange(acc_bits - 1)
        multiplier = rng.randrange(1 << rng.randrange(1, 17))
        row, row_shift = (NO_ROW_FACTOR, 0) if rng.random() < 0.5 else (rng.randrange(32769), rng.randrange(last + 1))
        magnitude = abs(acc * multiplier * row >> 15).bit_length()
        shift = rng.randrange(MAX_SHIFT + 1)
        if rng.random() < 0.9:  # the result is neither zero nor clamped
            shift = min(MAX_SHIFT, max(0, magnitude - rng.randrange(20) - row_shift))
        vectors.append((acc, multiplier, shift, row, row_shift))
    result = []
    for a, multiplier, shift, row, row_shift in vectors:
        bias = rng.randint(-bound, bound) if rng.random() < 0.5 else rng.randint(-9, 9)
        if abs(a - bias) > bound:
            bias = 0
        parameters = {"bias": bias, "multiplier": multiplier, "shift": shift}
        result.append({"acc": a - bias, "row": row, "row_shift": row_shift, **parameters})
    return result


def requantized(vector: dict[str, int], bits: int) -> int:
    """What the formula gives for one of them."""
    row = None if vector["row"] == NO_ROW_FACTOR and not vector["row_shift"] else (vector["row"], vector["row_shift"])
    return golden.requantize(vector["acc"], vector["bias"], vector["multiplier"], vector["shift"], bits, row)


# --- Gate -------------------------------------------------------------------------------------------------------------


def random_logits(rng: random.Random, tokens: int, experts: int, spread: int) -> list[list[int]]:
    """A row of logits a token, within ``spread`` of a base of its own."""
    rows = []
    for _ in range(tokens):
        base = rng.randint(-20000, 20000)
        rows.append([max(-32767, min(32767, base + rng.randint(-spread, spread))) for _ in range(experts)])
    return rows


# --- LayerNorm --------------------------------------------------------------------------------------------------------


ROW_KINDS = 9


def random_row(rng: random.Random, dim: int, kind: int) -> list[int]:
    """A residual row: flat, at the limits, almost flat, with one outlier, or spread around an offset."""
    if kind == 0:
        return [0] * dim
    if kind == 1:
        return [rng.choice((-32767, 32767))] * dim
    if kind == 2:
        return [rng.choice((-32767, 32767)) for _ in range(dim)]
    if kind == 3:
        return [rng.randint(-1, 1) for _ in range(dim)]
    if kind == 4:  # one outlier channel
        row = [rng.randint(-20, 20) for _ in range(dim)]
        row[rng.randrange(dim)] = rng.choice((-32767, 32767))
        return row
    spread = 1 << rng.randrange(1, 15)
    offset = rng.randint(-32767 + spread, 32767 - spread)
    return [offset + rng.randint(-spread, spread) for _ in range(dim)]


class NormCase:
    """One LAYERNORM with its memory contents and the activations that the formulas give."""

    def __init__(
        self,
        config: AcceleratorConfig,
        rng: random.Random,
        dim: int,
        tokens: int,
        param_base: int = 0,
        all_kinds: bool = False,
    ) -> None:
        epi, lanes_k = config.epilogue_lanes, config.lanes_k
        src_rows = -(-dim // epi)
        channels = src_rows * epi
        dst_rows = -(-channels // lanes_k)
        c = dim.bit_length() - 1
        self.command = {
            "src_base": rng.randrange(1000),
            "src_stride": src_rows + rng.randrange(3),
            "src_rows": src_rows,
            "tokens": tokens,
            "dst_base": rng.randrange(1000),
            "dst_stride": dst_rows + rng.randrange(3),
            "param_base": param_base,
            "dim": dim,
            "log2_dim": c,
            "inv_dim": round(Fraction(1 << (c + 16), dim)),
            "eps": rng.choice((0, 1, 1000, (1 << 32) - 1)),
            "shift": rng.choice((0, 3, 8, 10, 12, 17, 31)),
        }
        shift = self.command["shift"]
        size = min(32767, max(1, 3 << max(0, shift - 3)))
        padding = [0] * (channels - dim)
        gamma = [
            rng.choice((rng.randint(-size, size), 32767, -32767, 0, 1))
            if rng.random() < 0.2
            else rng.randint(-size, size)
            for _ in range(dim)
        ] + padding
        beta = [
            rng.choice((0, (1 << 31) - 1, 1 - (1 << 31)))
            if rng.random() < 0.05
            else rng.randint(-(20 << shift), 20 << shift)
            if shift < 20
            else rng.randint(-(1 << 31), 1 << 31) // 2
            for _ in range(dim)
        ] + padding
        self.parameters = list(zip(gamma, beta, strict=True))
        self.source: dict[int, list[int]] = {}
        self.expected: dict[int, list[int | None]] = {}
        for token in range(tokens):
            x = random_row(rng, dim, token % ROW_KINDS if all_kinds else rng.randrange(ROW_KINDS)) + padding
            y = golden.layer_norm(x, gamma, beta, dim, self.command["eps"], shift)
            base = self.command["src_base"] + token * self.command["src_stride"]
            for row in range(src_rows):
                self.source[base + row] = x[row * epi : (row + 1) * epi]
            base = self.command["dst_base"] + token * self.command["dst_stride"]
            for channel, value in enumerate(y):
                row = self.expected.setdefault(base + channel // lanes_k, [None] * lanes_k)
                row[channel % lanes_k] = value
