"""The epilogue: whatever the array gives, every destination holds what the formulas say, and nothing else does."""

import random
from collections import deque
from dataclasses import dataclass, field

import pytest

from edgemoe_hw.engines.matmul.epilogue import Epilogue
from edgemoe_hw.spec.config import AcceleratorConfig
from edgemoe_hw.spec.constants import SCORE_BITS, accumulator_bits
from edgemoe_hw.spec.timing import PARAM_READ, RESIDUAL_READ
from support.amaranth_bench import simulate
from support.epilogue_cases import Case, Logits, Pads, Place, cases

CONFIGS = {
    "one group a tile": AcceleratorConfig(),
    "three groups": AcceleratorConfig(lanes_k=16, lanes_n=24, epilogue_lanes=8),
    "narrow": AcceleratorConfig(lanes_k=16, lanes_n=12, epilogue_lanes=4, norm_lanes=2, max_experts=32),
    "sixteen groups a row": AcceleratorConfig(lanes_k=64, lanes_n=8, epilogue_lanes=4, max_tokens=1024),
    "wide": AcceleratorConfig(lanes_k=32, lanes_n=32, epilogue_lanes=32, norm_lanes=4, max_tokens=1024),
}


@dataclass
class Tile:
    """A strobe of the array and what it finds a cycle later."""

    meta: dict[str, int]
    acc: list[int]
    scale: tuple[int, int] | None  # of a token's first tile


def tiles(case: Case, lanes_n: int) -> list[Tile]:
    p, result = case.payload, []
    for token, row in enumerate(case.acc):
        for tile in range(p.tiles):
            meta = {
                "first_tile": tile == 0,
                "last_of_command": (token, tile) == (p.tokens - 1, p.tiles - 1),
                "index": token,
                "dst_offset": case.numbers[token] * p.dst_stride,
                "score": case.scores[token],
            }
            acc = row[tile * lanes_n : (tile + 1) * lanes_n]
            result.append(Tile(meta, acc, case.scales[token] if tile == 0 else None))
    return result


def pack(values, bits: int) -> int:
    return sum((value & ((1 << bits) - 1)) << bits * index for index, value in enumerate(values))


def unpack(word: int, bits: int, count: int) -> list[int]:
    """Signed fields."""
    fields = [word >> bits * index & ((1 << bits) - 1) for index in range(count)]
    return [field - (field >> (bits - 1) << bits) for field in fields]


@dataclass
class Bench:
    """Feeds commands and tiles, answers the read ports as late as the memories, and keeps all writes."""

    config: AcceleratorConfig
    pads: Pads
    pending: list[Case]
    rng: random.Random
    gap: float  # probability of a cycle without tile where there could be one
    dut: Epilogue = field(init=False)
    writes: dict[Place, list[tuple[int, int]]] = field(default_factory=dict)  # cycle and value
    groups: list[tuple[int, Logits]] = field(default_factory=list)
    completed: list[int] = field(default_factory=list)
    residual: dict[int, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.dut = Epilogue(self.config)

    async def run(self, ctx) -> None:
        dut, config = self.dut, self.config
        await self._load_table(ctx)
        accepted, idle, following = [], 0, None
        queue = [(number, tile) for number, case in enumerate(self.pending) for tile in tiles(case, config.lanes_n)]
        param_rows, residual_rows = deque([0] * PARAM_READ), deque([self._noise()] * RESIDUAL_READ)
        for cycle in range(1_000_000):
            self._answer(ctx, param_rows.popleft(), residual_rows.popleft())
            offered = len(accepted) < len(self.pending) and self.rng.random() < 0.7
            ctx.set(dut.command.valid, offered)
            if offered:
                ctx.set(dut.command.payload.as_value(), self.pending[len(accepted)].payload.pack())
            if following is not None:  # strobed in the cycle before
                ctx.set(dut.tiles.result.as_value(), pack(following.acc, accumulator_bits(config.max_tokens)))
                if following.scale:
                    ctx.set(dut.tiles.softmax.row, following.scale[0])
                    ctx.set(dut.tiles.softmax.shift, following.scale[1])
                following = None
            known = len(accepted) > queue[0][0] and cycle - accepted[queue[0][0]] >= 2 if queue else False
            strobe = known and idle <= 0 and self.rng.random() >= self.gap
            ctx.set(dut.tiles.valid, strobe)
            if strobe:
                _, following = queue.pop(0)
                idle = config.epilogue_cycles
                for name, value in following.meta.items():
                    ctx.set(getattr(dut.tiles.meta, name), value)
            idle -= 1
            if offered and ctx.get(dut.command.ready):
                accepted.append(cycle)
            param_rows.append(ctx.get(dut.param.row))
            # The data is there in one cycle only; groups without channels may read rows that nobody knows.
            found = self.residual.get(ctx.get(dut.residual_read.row)) if ctx.get(dut.residual_read.valid) else None
            residual_rows.append(list(found) if found else self._noise())
            self._observe(ctx, cycle)
            await ctx.tick()
            if len(self.completed) == len(self.pending):
                break
        for last in range(cycle + 1, cycle + 20):
            self._observe(ctx, last)
            await ctx.tick()

    async def _load_table(self, ctx) -> None:
        port, size = self.dut.table, self.config.axi_bytes
        for row in range(len(self.pads.table) // size):
            assert ctx.get(port.ready)
            ctx.set(port.valid, 1)
            ctx.set(port.row, row)
            ctx.set(port.data, int.from_bytes(bytes(self.pads.table[row * size : (row + 1) * size]), "little"))
            await ctx.tick()
        ctx.set(port.valid, 0)

    def _noise(self) -> list[int]:
        return [self.rng.randint(-32767, 32767) for _ in range(self.config.epilogue_lanes)]

    def _answer(self, ctx, param_row: int, residual_row: list[int]) -> None:
        rows = self.pads.param
        entries = rows[param_row % len(rows)]
        word = sum(
            ((bias & 0xFFFF_FFFF) | multiplier << 32 | shift << 48 | after << 56) << 64 * lane
            for lane, (bias, multiplier, shift, after) in enumerate(entries)
        )
        ctx.set(self.dut.param.data.as_value(), word)
        ctx.set(self.dut.residual_read.data.as_value(), pack(residual_row, 16))

    def _write(self, cycle: int, place: Place, value: int) -> None:
        self.writes.setdefault(place, []).append((cycle, value))

    def _observe(self, ctx, cycle: int) -> None:
        dut, config = self.dut, self.config
        lanes, k, n = config.epilogue_lanes, config.lanes_k, config.lanes_n
        if ctx.get(dut.act_write.valid):
            row, mask = ctx.get(dut.act_write.row), ctx.get(dut.act_write.mask)
            for byte, value in enumerate(unpack(ctx.get(dut.act_write.data), 8, k)):
                if mask >> byte & 1:
                    self._write(cycle, ("act", row, byte, 0), value)
        if ctx.get(dut.residual_write.valid):
            row, mask = ctx.get(dut.residual_write.row), ctx.get(dut.residual_write.mask)
            for lane, value in enumerate(unpack(ctx.get(dut.residual_write.data), 16, lanes)):
                assert mask >> 2 * lane & 3 in (0, 3)
                if mask >> 2 * lane & 1:
                    self._write(cycle, ("residual", row, lane, 0), value)
                    self.residual[row][lane] = value
        if ctx.get(dut.score_write.valid):
            row = ctx.get(dut.score_write.row)
            mask = ctx.get(dut.score_write.mask) if k > lanes else 1
            for lane, value in enumerate(unpack(ctx.get(dut.score_write.data), SCORE_BITS, k)):
                if mask >> lane // lanes & 1:
                    self._write(cycle, ("score", row, lane, 0), value)
        if ctx.get(dut.maximum_write.valid):
            place = "maximum", ctx.get(dut.maximum_write.row), 0, 0
            self._write(cycle, place, ctx.get(dut.maximum_write.data))
        if ctx.get(dut.kv_write.valid):
            row, banks, byte_mask = (ctx.get(getattr(dut.kv_write, name)) for name in ("row", "banks", "bytes"))
            values = unpack(ctx.get(dut.kv_write.data.as_value()), 8, lanes)
            is_value = ctx.get(dut.kv_write.is_value)
            for bank in (bank for bank in range(n) if banks >> bank & 1):
                for byte in (byte for byte in range(k) if byte_mask >> byte & 1):
                    self._write(cycle, ("weight", row, bank, byte), values[(bank if is_value else byte) % lanes])
        self._observe_logits(ctx, cycle)
        if ctx.get(dut.completed):
            self.completed.append(cycle)

    def _observe_logits(self, ctx, cycle: int) -> None:
        logits = self.dut.logits
        if not ctx.get(logits.valid):
            assert not ctx.get(logits.clear)
            return
        first = bool(ctx.get(logits.first))
        values = tuple(unpack(ctx.get(logits.values.as_value()), 16, self.config.epilogue_lanes))
        flags = (first, bool(ctx.get(logits.last)), bool(ctx.get(logits.clear)))
        token = ctx.get(logits.token) if first else None
        group = Logits(values, token, *flags, ctx.get(logits.num_experts), ctx.get(logits.top_k))
        self.groups.append((cycle, group))

    def check(self) -> None:
        assert len(self.completed) == len(self.pending)
        written = dict(self.writes)
        groups = iter(self.groups)
        for case, completed in zip(self.pending, self.completed, strict=True):
            for place, wanted in case.writes.items():
                cycle, value = written[place].pop(0)
                assert wanted is None or value == wanted, (case.payload, place)
                assert cycle < completed, (case.payload, place)
            for wanted_group in case.groups:
                cycle, group = next(groups)
                shown = group.values[: len(wanted_group.values)]
                assert (shown, *vars(group).values())[2:] == (shown, *vars(wanted_group).values())[2:]
                assert shown == wanted_group.values and cycle < completed
        assert not [place for place, values in written.items() if values] and next(groups, None) is None


@pytest.mark.parametrize("gap", [0.0, 0.3])
@pytest.mark.parametrize("name", CONFIGS)
def test_every_mode(name: str, gap: float) -> None:
    config, rng = CONFIGS[name], random.Random(f"{name} {gap}")
    pads = Pads(config, rng)
    pending = list(cases(config, rng, 40, pads))
    bench = Bench(config, pads, pending, rng, gap)
    bench.residual = {row: list(content) for row, content in pads.initial.items()}
    simulate(bench.dut, bench.run)
    bench.check()
