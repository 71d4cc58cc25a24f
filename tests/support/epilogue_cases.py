"""Commands for the epilogue, and what docs/numerics.md and docs/isa.md say that it must write for them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field

from edgemoe_hw.engines.matmul.requantize import NO_ROW_FACTOR
from edgemoe_hw.spec.config import AcceleratorConfig
from edgemoe_hw.spec.constants import ACTIVATION_ENTRIES, MAX_SHIFT, accumulator_bits
from edgemoe_hw.spec.isa import MatMul, Mode, RowFactor
from support import golden
from support.unit_cases import LARGEST_ROW_SHIFT

__all__ = ["Case", "Logits", "Pads", "cases"]

PARAM_ROWS = 128
_BITS = {Mode.RESIDUAL: 16, Mode.GATE: 16, Mode.SCORE: 12}

Place = tuple[str, int, int, int]
"""Memory, row, and one or two numbers of the element within the row."""


@dataclass(frozen=True)
class Logits:
    """A group that the gate unit receives; of lanes beyond the last expert nothing is known."""

    values: tuple[int, ...]
    token: int | None
    first: bool
    last: bool
    clear: bool
    num_experts: int
    top_k: int


class Pads:
    """What the epilogue reads: parameters, the table, residual rows (``initial``, and what the commands leave)."""

    def __init__(self, config: AcceleratorConfig, rng: random.Random) -> None:
        self.config, self.rng = config, rng
        lanes = config.epilogue_lanes
        self.table = [rng.choice((0, 255, rng.randrange(256), rng.randrange(60))) for _ in range(ACTIVATION_ENTRIES)]
        self.param = [[self._parameter() for _ in range(lanes)] for _ in range(PARAM_ROWS)]
        self.initial: dict[int, list[int]] = {}
        self.residual: dict[int, list[int]] = {}

    def _parameter(self) -> tuple[int, int, int, int]:
        """Bias, multiplier, shift, the activation's shift."""
        rng, after = self.rng, self.rng.randrange(4)
        if rng.random() < 0.1:
            return rng.choice((0, 65535, -65535)), rng.choice((0, 1, 65535)), rng.choice((0, 1, MAX_SHIFT)), after
        return rng.randint(-65535, 65535), rng.randrange(1 << 16), rng.randrange(8, 32), after

    def residual_row(self, row: int) -> list[int]:
        """A row of the residual stream; what nobody has written is random."""
        if row not in self.residual:
            extremes = (32767, -32767, 0)
            self.residual[row] = [
                self.rng.choice((self.rng.randint(-32767, 32767), self.rng.choice(extremes)))
                for _ in range(self.config.epilogue_lanes)
            ]
            self.initial[row] = list(self.residual[row])
        return self.residual[row]


@dataclass
class Case:
    """One command with the results of its tiles and what becomes of them.

    Attributes:
        payload: the command
        acc: accumulators [token][tiles * lanes_n]
        numbers: destination token of each token: its position, or its number in a queue
        scales: each token's softmax factor (row, shift)
        scores: each token's gate score
        writes: values by place, in any order
        groups: what goes to the gate unit, in order
    """

    payload: MatMul
    acc: list[list[int]]
    numbers: list[int]
    scales: list[tuple[int, int]]
    scores: list[int]
    writes: dict[Place, int | None] = field(default_factory=dict)
    groups: list[Logits] = field(default_factory=list)

    def expect(self, config: AcceleratorConfig, pads: Pads) -> None:
        """Fill ``writes`` and ``groups``, and write the residual rows."""
        write = {
            Mode.ACT: self._write_act,
            Mode.RESIDUAL: self._write_residual,
            Mode.KEY: self._write_stationary,
            Mode.VALUE: self._write_stationary,
            Mode.SCORE: self._write_scores,
            Mode.GATE: self._send_logits,
        }[self.payload.mode]
        for token in range(len(self.acc)):
            write(config, pads, token, [self._value(config, pads, token, c) for c in range(self.payload.channels)])

    def _value(self, config: AcceleratorConfig, pads: Pads, token: int, channel: int) -> int:
        p, lanes = self.payload, config.epilogue_lanes
        row = p.param_base + (0 if p.param_uniform else channel // lanes)
        bias, multiplier, shift, after = pads.param[row][channel % lanes]
        factor = {RowFactor.SOFTMAX: self.scales[token], RowFactor.GATE: (self.scores[token], 0)}.get(p.row_factor)
        bits = _BITS.get(p.mode, 12 if p.activate else 8)
        value = golden.requantize(self.acc[token][channel], bias, multiplier, shift, bits, factor)
        return golden.activate(value, pads.table, after) if p.activate else value

    def _row(self, token: int, position: int, lanes: int) -> int:
        return self.payload.dst_base + self.numbers[token] * self.payload.dst_stride + position // lanes

    def _write_act(self, config: AcceleratorConfig, pads: Pads, token: int, values: list[int]) -> None:
        for position, value in enumerate(values, self.payload.dst_channel):
            self.writes["act", self._row(token, position, config.lanes_k), position % config.lanes_k, 0] = value

    def _write_residual(self, config: AcceleratorConfig, pads: Pads, token: int, values: list[int]) -> None:
        lanes = config.epilogue_lanes
        for position, value in enumerate(values, self.payload.dst_channel):
            row, lane = self._row(token, position, lanes), position % lanes
            content = pads.residual_row(row)
            content[lane] = golden.clamp(content[lane] + value, 16) if self.payload.accumulate else value
            self.writes["residual", row, lane, 0] = content[lane]

    def _write_scores(self, config: AcceleratorConfig, pads: Pads, token: int, values: list[int]) -> None:
        lanes = config.lanes_k
        whole = -(-len(values) // config.epilogue_lanes) * config.epilogue_lanes  # groups are written whole
        for key in range(whole):
            place = "score", self._row(token, key, lanes), key % lanes, 0
            self.writes[place] = values[key] if key < len(values) else None
        self.writes["maximum", self.payload.max_base + token, 0, 0] = max(values)

    def _write_stationary(self, config: AcceleratorConfig, pads: Pads, token: int, values: list[int]) -> None:
        p, k, n = self.payload, config.lanes_k, config.lanes_n
        is_key = p.mode == Mode.KEY
        number = p.token_rem + token
        for channel, value in enumerate(values):
            head, d = divmod(channel, p.head_dim)
            row = p.dst_base + head * p.head_stride
            if is_key:
                self.writes["weight", row + number // n * p.tile_stride + d // k, number % n, d % k] = value
            else:
                self.writes["weight", row + d // n * p.tile_stride + number // k, d % n, number % k] = value

    def _send_logits(self, config: AcceleratorConfig, pads: Pads, token: int, values: list[int]) -> None:
        p, lanes = self.payload, config.epilogue_lanes
        groups = [tuple(values[first : first + lanes]) for first in range(0, len(values), lanes)]
        for index, group in enumerate(groups):
            first, last = index == 0, index == len(groups) - 1
            clear = bool(p.gate_first) and token == 0 and first
            number = p.max_base + token if first else None
            self.groups.append(Logits(group, number, first, last, clear, p.num_experts, p.top_k))


class _Maker:
    """Makes commands whose destinations do not meet."""

    def __init__(self, config: AcceleratorConfig, rng: random.Random) -> None:
        self.config, self.rng = config, rng
        self.next_row = dict.fromkeys(("act", "residual", "score", "weight"), 0)

    def rows(self, memory: str, count: int) -> int:
        """The first of ``count`` rows that no command has had."""
        first = self.next_row[memory] + self.rng.randrange(3)
        self.next_row[memory] = first + count
        assert self.next_row[memory] <= 65536
        return first

    def case(self, mode: Mode) -> Case:
        """A command of this mode with random results, not yet with what it must write."""
        rng = self.rng
        tokens = rng.randrange(1, 5)
        fields = getattr(self, f"_{mode.name.lower()}")(tokens)
        channels = fields["channels"]
        used = -(-channels // self.config.epilogue_lanes)
        factor = rng.choice(list(RowFactor)) if mode in (Mode.ACT, Mode.RESIDUAL) else RowFactor.NONE
        numbers = sorted(rng.sample(range(8), tokens)) if fields.pop("scatter", False) else list(range(tokens))
        tiles = -(-channels // self.config.lanes_n)
        payload = MatMul(
            mode=mode,
            tokens=tokens,
            tiles=tiles,
            row_factor=factor,
            param_base=rng.randrange(PARAM_ROWS - used + 1),
            param_uniform=mode == Mode.SCORE or rng.random() < 0.2,
            **fields,
        )
        bound = (1 << (accumulator_bits(self.config.max_tokens) - 1)) - 65537
        width = tiles * self.config.lanes_n

        def accumulator() -> int:
            extremes = (bound, -bound, 0)
            return rng.choice(extremes) if rng.random() < 0.05 else rng.randint(-bound, bound) >> rng.randrange(20)

        return Case(
            payload,
            [[accumulator() for _ in range(width)] for _ in range(tokens)],
            numbers,
            [(rng.randrange(16384, 32768), rng.randrange(LARGEST_ROW_SHIFT + 1)) for _ in range(tokens)],
            [rng.choice((0, NO_ROW_FACTOR, rng.randrange(NO_ROW_FACTOR))) for _ in range(tokens)],
        )

    def _matrix(self, memory: str, lanes: int) -> dict[str, int]:
        """Destination of rows of ``lanes`` elements a token; tokens may be scattered over 8 places."""
        rng, group = self.rng, self.config.epilogue_lanes
        most = min(3 * self.config.lanes_n, PARAM_ROWS * group)
        channels, dst_channel = rng.randrange(1, most + 1), rng.randrange(4) * group
        stride = -(-(dst_channel + channels) // lanes) + rng.randrange(2)
        base = self.rows(memory, 8 * stride)
        place = {"dst_base": base, "dst_stride": stride, "dst_channel": dst_channel}
        return {"channels": channels, "scatter": rng.random() < 0.5, **place}

    def _act(self, tokens: int) -> dict[str, int]:
        return self._matrix("act", self.config.lanes_k) | {"activate": self.rng.random() < 0.5}

    def _residual(self, tokens: int) -> dict[str, int]:
        return self._matrix("residual", self.config.epilogue_lanes) | {"accumulate": self.rng.random() < 0.7}

    def _score(self, tokens: int) -> dict[str, int]:
        fields = self._matrix("score", self.config.lanes_k)
        fields |= {"dst_channel": 0, "scatter": False, "max_base": self.rng.randrange(1024 - tokens)}
        return fields | {"keys": fields["channels"]}

    def _stationary(self, tokens: int, lanes: int) -> dict[str, int]:
        """A command's tokens begin anywhere among the keys or values of its block."""
        k = self.config.lanes_k
        heads, steps, start = self.rng.randrange(1, 4), self.rng.randrange(1, 3), self.rng.randrange(lanes)
        return {"channels": heads * steps * k, "head_dim": steps * k, "token_rem": start}

    def _key(self, tokens: int) -> dict[str, int]:
        fields = self._stationary(tokens, self.config.lanes_n)
        stride = fields["head_dim"] // self.config.lanes_k
        return fields | self._heads(fields, {"tile_stride": stride, "head_stride": 4 * stride})

    def _value(self, tokens: int) -> dict[str, int]:
        fields = self._stationary(tokens, self.config.lanes_k)
        tiles = -(-fields["head_dim"] // self.config.lanes_n)
        return fields | self._heads(fields, {"tile_stride": 4, "head_stride": 4 * tiles})

    def _heads(self, fields: dict[str, int], strides: dict[str, int]) -> dict[str, int]:
        heads = fields["channels"] // fields["head_dim"]
        return strides | {"dst_base": self.rows("weight", heads * strides["head_stride"])}

    def _gate(self, tokens: int) -> dict[str, int]:
        experts = self.rng.randrange(1, self.config.max_experts + 1)
        numbers = {"num_experts": experts, "top_k": self.rng.randrange(1, min(4, experts) + 1)}
        first = {"max_base": self.rng.randrange(1024 - tokens), "gate_first": self.rng.random() < 0.5}
        return {"channels": experts, **numbers, **first}


def cases(config: AcceleratorConfig, rng: random.Random, count: int, pads: Pads) -> Iterator[Case]:
    """``count`` commands of all modes, each with what it must write after those before it."""
    maker = _Maker(config, rng)
    for number in range(count):
        modes = list(Mode)
        case = maker.case(modes[number] if number < len(modes) else rng.choice(modes))
        case.expect(config, pads)
        yield case
