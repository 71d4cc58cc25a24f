"""Issue: every step of every command once, in order, and never faster than the epilogue drains tiles."""

import itertools
import random
from dataclasses import dataclass, field

import pytest

from edgemoe_hw.engines.matmul.issue import MatMulIssue
from edgemoe_hw.spec.config import AcceleratorConfig
from edgemoe_hw.spec.isa import MatMul, Mode, RowFactor, Source
from support.amaranth_bench import simulate

SHAPES = [(1, 1, 1), (4, 1, 1), (1, 1, 3), (2, 2, 2), (1, 2, 1), (5, 1, 2), (1, 1, 1)]  # k_steps, tiles, tokens
NIBBLES = [(1, 2, 2), (2, 2, 2), (5, 3, 2), (4, 2, 1)]  # the same, for int4 weights


@dataclass(frozen=True)
class Command:
    """A command as its queue hands it on; ``entries`` (token, score) is the expert's queue."""

    payload: MatMul
    expert: int = 0
    entries: tuple[tuple[int, int], ...] = ()

    @property
    def count(self) -> int:
        return len(self.entries) if self.payload.use_queue else self.payload.tokens

    @property
    def is_empty(self) -> bool:
        return self.count == 0 or self.payload.tiles == 0

    def steps(self) -> list[dict[str, int]]:
        """All of them, from docs/isa.md."""
        p, steps = self.payload, []
        rows_a_tile = -(-p.k_steps // 2) if p.nibbles else p.k_steps
        for index in range(self.count):
            number, score = self.entries[index] if p.use_queue else (index, 0)
            source = number if p.gather else index
            target = number if p.scatter else index
            for tile, step in itertools.product(range(p.tiles), range(p.k_steps)):
                steps.append(
                    {
                        "first": step == 0,
                        "last": step == p.k_steps - 1,
                        "first_tile": tile == 0,
                        "source": p.source,
                        "unsigned": p.unsigned,
                        "nibbles": p.nibbles,
                        "softmax": p.row_factor == RowFactor.SOFTMAX,
                        "score_shift": p.score_shift,
                        "maximum_row": p.max_base + index & 2047,
                        "step": step,
                        "keys": p.keys,
                        "source_row": p.src_base + source * p.src_stride + step & 65535,
                        "weight_row": p.weight_base + tile * rows_a_tile + (step >> p.nibbles) & 65535,
                        "tile.first_tile": tile == 0,
                        "tile.last_of_command": (tile, index) == (p.tiles - 1, self.count - 1),
                        "tile.index": index,
                        "tile.dst_offset": target * p.dst_stride & 65535,
                        "tile.score": score,
                    }
                )
        return steps


@dataclass
class Bench:
    """Feeds commands, answers the queues' read port, and keeps what the unit does in every cycle."""

    config: AcceleratorConfig
    commands: list[Command]
    rng: random.Random
    stall: float  # probability of each side's pauses
    dut: MatMulIssue = field(init=False)
    steps: list[tuple[int, dict[str, int]]] = field(default_factory=list)  # cycle and fields
    sent: list[tuple[int, int]] = field(default_factory=list)  # cycle and payload of commands for the epilogue
    skipped: list[int] = field(default_factory=list)
    status: list[tuple[int, ...]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.dut = MatMulIssue(self.config)

    async def run(self, ctx) -> None:
        dut, taken, offered = self.dut, 0, False
        asked = (0, 0)
        ends = sum(len(command.steps()) for command in self.commands if not command.is_empty)
        for cycle in range(20_000):
            ctx.set(dut.queue.token, self._entry(*asked)[0])
            ctx.set(dut.queue.score, self._entry(*asked)[1])
            ctx.set(dut.epilogue_command.ready, self.rng.random() >= self.stall)
            ctx.set(dut.drained, self.rng.random() >= self.stall)
            if taken < len(self.commands) and not offered:
                offered = self.rng.random() >= self.stall
                self._offer(ctx, self.commands[taken])
            ctx.set(dut.command.valid, offered)
            if ctx.get(dut.step.valid):
                self.steps.append((cycle, self._fields(ctx)))
            if ctx.get(dut.epilogue_command.valid) and ctx.get(dut.epilogue_command.ready):
                self.sent.append((cycle, ctx.get(dut.epilogue_command.payload.as_value())))
            if ctx.get(dut.skipped):
                assert offered and ctx.get(dut.command.ready) and ctx.get(dut.drained)
                self.skipped.append(taken)
            self.status.append(tuple(ctx.get(s) for s in (dut.busy, dut.stall_gap, dut.stall_token, dut.idle)))
            if offered and ctx.get(dut.command.ready):
                taken, offered = taken + 1, False
            asked = ctx.get(dut.queue.expert), ctx.get(dut.queue.index)
            await ctx.tick()
            if taken == len(self.commands) and len(self.steps) == ends and ctx.get(dut.idle):
                return
        raise AssertionError("the commands never end")

    def _offer(self, ctx, command: Command) -> None:
        payload = self.dut.command.payload
        ctx.set(payload.payload.as_value(), command.payload.pack())
        ctx.set(payload.header.expert, command.expert)
        ctx.set(payload.tokens, len(command.entries))

    def _entry(self, expert: int, index: int) -> tuple[int, int]:
        """What the queues hold; the experts of a bench have one queue each."""
        entries = next((command.entries for command in self.commands if command.expert == expert), ())
        return entries[index] if index < len(entries) else (self.rng.randrange(2048), self.rng.randrange(65536))

    def _fields(self, ctx) -> dict[str, int]:
        step, fields = self.dut.step, {}
        for name in Command(MatMul(tokens=1, tiles=1, k_steps=1)).steps()[0]:
            part = step.tile if name.startswith("tile.") else step
            fields[name] = ctx.get(getattr(part, name.removeprefix("tile.")))
        return fields

    def check(self) -> None:
        wanted = [(number, step) for number, command in enumerate(self.commands) for step in self._of(command)]
        assert [fields for _, fields in self.steps] == [step for _, step in wanted]
        assert self.skipped == [number for number, command in enumerate(self.commands) if command.is_empty]
        real = [number for number, command in enumerate(self.commands) if not command.is_empty]
        assert [word for _, word in self.sent] == [self.commands[number].payload.pack() for number in real]
        begins = {number: cycle for (number, _), (cycle, _) in reversed(list(zip(wanted, self.steps, strict=True)))}
        for (cycle, _), number in zip(self.sent, real, strict=True):
            assert cycle < begins[number]  # the epilogue knows the command before its first tile
        assert all(sum(flags) == 1 for flags in self.status)  # exactly one says what happened
        ends = [cycle for cycle, fields in self.steps if fields["last"]]
        assert all(b - a >= self.config.epilogue_cycles for a, b in itertools.pairwise(ends))
        starts = [
            (number, cycle) for (number, step), (cycle, _) in zip(wanted, self.steps, strict=True) if step["first"]
        ]
        for (a, first), (b, second) in itertools.pairwise(starts):
            assert a != b or second - first >= self.commands[a].payload.min_gap

    @staticmethod
    def _of(command: Command) -> list[dict[str, int]]:
        return [] if command.is_empty else command.steps()


def random_command(rng: random.Random, expert: int, most_tokens: int) -> Command:
    queued = rng.random() < 0.5
    numbers = sorted(rng.sample(range(1024), rng.randrange(most_tokens)))
    entries = tuple((number, rng.randrange(32769)) for number in numbers)
    payload = MatMul(
        source=rng.choice(list(Source)),
        unsigned=rng.random() < 0.5,
        use_queue=queued,
        gather=queued and rng.random() < 0.5,
        scatter=queued and rng.random() < 0.5,
        src_base=rng.randrange(65536),
        src_stride=rng.randrange(4096),
        k_steps=rng.choice((1, 2, 3, 7)),
        weight_base=rng.randrange(65536),
        nibbles=rng.random() < 0.5,
        tiles=rng.choice((0, 1, 2, 3)) if rng.random() < 0.5 else 1,
        tokens=rng.randrange(most_tokens),
        min_gap=rng.choice((0, 1, 3, 9)),
        mode=rng.choice(list(Mode)),
        dst_stride=rng.randrange(4096),
        row_factor=rng.choice(list(RowFactor)),
        keys=rng.randrange(1025),
        score_shift=rng.randrange(4),
        max_base=rng.randrange(1024),
    )
    return Command(payload, expert, entries)


@pytest.mark.parametrize("stall", [0.0, 0.4])
@pytest.mark.parametrize("epilogue_cycles", [1, 3])
def test_random_commands(epilogue_cycles: int, stall: float) -> None:
    config = AcceleratorConfig(lanes_k=8, lanes_n=8 * epilogue_cycles, epilogue_lanes=8)
    rng = random.Random(f"{epilogue_cycles} {stall}")
    commands = [random_command(rng, expert, 6) for expert in range(32)]
    bench = Bench(config, commands, rng, stall)
    simulate(bench.dut, bench.run)
    bench.check()
    assert {command.is_empty for command in commands} == {False, True}


@pytest.mark.parametrize("epilogue_cycles", [1, 2, 3, 6])
def test_steps_and_spacing_of_tiles(epilogue_cycles: int) -> None:
    """Every command behind every other: a short one behind a long one once overran the epilogue."""
    config = AcceleratorConfig(lanes_k=8, lanes_n=8 * epilogue_cycles, epilogue_lanes=8)
    shapes = [(*shape, False) for pair in itertools.product(SHAPES, repeat=2) for shape in pair]
    shapes += [entry for shape in NIBBLES for entry in ((*shape, True), (*shape, False), (*shape, True))]
    commands = [
        Command(MatMul(k_steps=k, tiles=n, tokens=t, min_gap=epilogue_cycles, src_stride=k, nibbles=nibbles))
        for k, n, t, nibbles in shapes
    ]
    bench = Bench(config, commands, random.Random(epilogue_cycles), 0.0)
    simulate(bench.dut, bench.run)
    bench.check()


@pytest.mark.parametrize("use_queue", [False, True])
def test_longest_command(use_queue: bool) -> None:
    """1024 tokens of four steps without a lost cycle: a queue's entries are read ahead, but for the first."""
    rng = random.Random(1)
    entries = tuple((number, rng.randrange(32769)) for number in range(1024))
    payload = MatMul(
        use_queue=use_queue, gather=use_queue, scatter=use_queue, k_steps=2, tiles=2, tokens=1024, src_stride=2
    )
    bench = Bench(AcceleratorConfig(), [Command(payload, 31, entries=entries)], rng, 0.0)
    simulate(bench.dut, bench.run)
    bench.check()
    cycles = [cycle for cycle, _ in bench.steps]
    assert cycles == list(range(cycles[0], cycles[0] + 4 * 1024))
    assert cycles[0] - bench.sent[0][0] == (5 if use_queue else 1)


@pytest.mark.parametrize("k_steps", [1, 2, 3])
def test_a_queue_is_read_ahead(k_steps: int) -> None:
    """A token of at least two steps costs no cycle of its own, wherever the command before it ended."""
    entries = tuple((number, number) for number in range(7, 40))
    payload = MatMul(use_queue=True, gather=True, scatter=True, k_steps=k_steps, tiles=1, tokens=1, src_stride=3)
    commands = [Command(payload, expert, entries=entries[expert:]) for expert in range(3)]
    bench = Bench(AcceleratorConfig(), commands, random.Random(1), 0.0)
    simulate(bench.dut, bench.run)
    bench.check()
    ends = itertools.accumulate(len(command.steps()) for command in commands)
    begin = 0
    for end in ends:
        cycles = [cycle for cycle, _ in bench.steps[begin:end]]
        wanted = max(2, k_steps)
        assert cycles[-k_steps] - cycles[0] == wanted * (len(cycles) // k_steps - 1)
        begin = end


@pytest.mark.parametrize("k_steps", [1, 2, 5])
def test_idle_cycles_between_commands(k_steps: int) -> None:
    """One, for the next command is looked at while the one before runs."""
    commands = [Command(MatMul(k_steps=k_steps, tiles=1, tokens=1)) for _ in range(6)]
    bench = Bench(AcceleratorConfig(), commands, random.Random(1), 0.0)
    simulate(bench.dut, bench.run)
    bench.check()
    starts = [cycle for cycle, fields in bench.steps if fields["first"]]
    assert {b - a for a, b in itertools.pairwise(starts)} == {k_steps + 1}
