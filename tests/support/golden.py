"""The formulas of docs/numerics.md as plain Python functions, written from the text alone, for the RTL's tests."""

import math
from fractions import Fraction


def rhe(value: int, shift: int) -> int:
    """Arithmetic right shift that rounds half to even."""
    if shift == 0:
        return value
    quotient = value >> shift
    remainder = value - (quotient << shift)
    half = 1 << (shift - 1)
    return quotient + (remainder > half or (remainder == half and quotient & 1 == 1))


def clamp(value: int, bits: int) -> int:
    limit = (1 << (bits - 1)) - 1
    return max(-limit, min(limit, value))


def floor_log2(value: int) -> int:
    assert value >= 1
    return value.bit_length() - 1


def requantize(acc: int, bias: int, multiplier: int, shift: int, bits: int, row: tuple[int, int] | None = None) -> int:
    factor, row_shift = multiplier, 0
    if row is not None:
        factor, row_shift = (multiplier * row[0] + (1 << 14)) >> 15, row[1]
    return clamp(rhe((acc + bias) * factor, shift + row_shift), bits)


def activate(q: int, table: list[int], shift: int) -> int:
    return clamp(rhe(max(q, 0) + table[min(abs(q), 511)], shift) - 128, 8)


def gelu_table(unit: float) -> list[int]:
    def delta(x: float) -> float:
        return x / 2 * math.erfc(x / math.sqrt(2))

    entries = [round(delta(i * unit) / unit) for i in range(512)]
    return [max(entries) + 5 - entry for entry in entries]


def exp2(j: int) -> int:
    return round(4080 * 2.0 ** (-j / 64))


def exp2g(j: int) -> int:
    return round(32767 * 2.0 ** (-j / 256))


def recip(i: int) -> int:
    return round(Fraction(2**25) / (1024 + i + Fraction(1, 2)))


def rsqrt(i: int) -> int:
    return min(65535, round(2**23 / math.sqrt((i + 0.5) * 64)))


def probability(score: int, maximum: int, score_shift: int) -> int:
    delta = (maximum - score) << score_shift
    i, j = delta >> 6, delta & 63
    return (exp2(j) + (8 << i)) >> (4 + i) if i <= 8 else 0


def reciprocal(n: int) -> tuple[int, int]:
    """(row, row_shift) of a sum below 2^18."""
    b = floor_log2(n)
    return recip(((n << 17) >> b) >> 7 & 1023), b


def layer_norm(x: list[int], gamma: list[int], beta: list[int], dim: int, eps: int, shift: int) -> list[int]:
    """One row. Channels beyond ``dim`` hold 0 in x, gamma and beta, and give 0."""
    c = floor_log2(dim)
    inv = round(Fraction(1 << (c + 16), dim))
    total, squares = sum(x), sum(v * v for v in x)
    mu = rhe(total * inv, c + 8)
    variance = max(dim * squares - total * total + eps, 1)
    e = (51 - floor_log2(variance)) >> 1
    u = (variance << (2 * e)) >> 36
    assert 1 << 14 <= u < 1 << 16
    r = rsqrt(u >> 6)
    result = []
    for value, g, b in zip(x, gamma, beta, strict=True):
        t = clamp(rhe(((value << 8) - mu) * r, 39 - c - e), 16)
        result.append(clamp(rhe(t * g + b, shift), 8))
    return result


def gate(logits: list[int], top_k: int) -> list[tuple[int, int]]:
    """(expert, score) of the chosen experts, best first."""
    powers = []
    for logit in logits:
        delta = max(logits) - logit
        i, j = delta >> 10, (delta >> 2) & 255
        powers.append(exp2g(j) >> i if i <= 15 else 0)
    n = sum(powers)
    b = floor_log2(n)
    r = recip(((n << 10) >> b) & 1023)
    order = sorted(range(len(logits)), key=lambda e: (-logits[e], e))[:top_k]
    return [(e, min((powers[e] * r + (1 << (b - 1))) >> b, 32768)) for e in order]
