import random
from dataclasses import replace

import pytest

from edgemoe_hw.engines.norm import reader
from edgemoe_hw.engines.norm.lane import NormLane
from edgemoe_hw.engines.norm.scalar import NormScalar
from edgemoe_hw.engines.norm.unit import LayerNormUnit
from edgemoe_hw.spec.config import PRESETS, AcceleratorConfig
from support.amaranth_bench import simulate
from support.unit_cases import ROW_KINDS, NormCase

SMALL = AcceleratorConfig(lanes_k=16, lanes_n=16, epilogue_lanes=8, norm_lanes=2, max_dim=48)


class Bench:
    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        self.dut = LayerNormUnit(config)

    async def load(self, ctx, case: NormCase) -> None:
        dut, lanes, axi = self.dut, self.config.norm_lanes, self.config.axi_bytes
        for row in range(len(case.parameters) // lanes):
            word = b"".join(
                (g & 0xFFFF).to_bytes(4, "little") + (b & 0xFFFFFFFF).to_bytes(4, "little")
                for g, b in case.parameters[row * lanes : (row + 1) * lanes]
            )
            for beat in range(8 * lanes // axi):
                ctx.set(dut.load.valid, 1)
                ctx.set(dut.load.row, case.command["param_base"] + row)
                ctx.set(dut.load.beat, beat)
                ctx.set(dut.load.data, int.from_bytes(word[beat * axi : (beat + 1) * axi], "little"))
                await ctx.tick()
        ctx.set(dut.load.valid, 0)

    async def execute(
        self, ctx, case: NormCase, rng: random.Random, read_stall: float = 0, write_stall: float = 0
    ) -> int:
        """Run the command; checks every write and returns the cycles."""
        dut, lanes_k = self.dut, self.config.lanes_k
        ctx.set(dut.command.payload, case.command)
        ctx.set(dut.command.valid, 1)
        assert ctx.get(dut.command.ready)
        await ctx.tick()
        ctx.set(dut.command.valid, 0)
        written: dict[int, list[int | None]] = {}
        pending: list[int | None] = [None] * reader.RESIDUAL_READ  # rows on their way, the next to arrive first
        reads = 0
        for cycle in range(1, 20000):
            read_row = pending.pop(0)
            if read_row is None:  # the data is there in one cycle only
                data = [rng.randint(-32767, 32767) for _ in range(self.config.epilogue_lanes)]
            else:
                data = case.source[read_row]
            for i, value in enumerate(data):
                ctx.set(dut.read.data[i], value)
            ctx.set(dut.read.ready, rng.random() >= read_stall)
            ctx.set(dut.write.ready, rng.random() >= write_stall)
            read_row = ctx.get(dut.read.row) if ctx.get(dut.read.valid) and ctx.get(dut.read.ready) else None
            pending.append(read_row)
            reads += read_row is not None
            if ctx.get(dut.write.valid) and ctx.get(dut.write.ready):
                mask, word = ctx.get(dut.write.mask), ctx.get(dut.write.data)
                row = written.setdefault(ctx.get(dut.write.row), [None] * lanes_k)
                for i in range(lanes_k):
                    if mask >> i & 1:
                        assert row[i] is None
                        byte = word >> (8 * i) & 255
                        row[i] = byte - 256 if byte > 127 else byte
            if ctx.get(dut.done):
                assert written == case.expected
                assert reads == len(case.source)  # every row is read once
                assert ctx.get(dut.command.ready)
                await ctx.tick()
                assert not ctx.get(dut.done)
                return cycle
            assert not ctx.get(dut.command.ready)
            await ctx.tick()
        raise AssertionError("the command never ends")


@pytest.mark.parametrize("stalls", [(0, 0), (0.5, 0), (0, 0.7), (0.3, 0.3), (0.9, 0.1)])
@pytest.mark.parametrize("name", ["small", "even", "wide", "one"])
def test_commands_equal_the_formula(name: str, stalls: tuple[float, float]) -> None:
    config = {
        "small": SMALL,
        "even": replace(SMALL, epilogue_lanes=8, norm_lanes=4, lanes_k=8),
        "wide": replace(PRESETS["zcu102"], max_dim=64),
        "one": replace(SMALL, norm_lanes=1, lanes_k=8),
    }[name]
    rng = random.Random(f"{name} {stalls}")
    bench = Bench(config)

    async def testbench(ctx) -> None:
        for dim, tokens in ((48, 7), (8, 9), (13, 5), (40, 1), (24, 6), (33, 4), (16, 12)):
            half = bench.dut.param_depth // 2
            case = NormCase(config, rng, dim, tokens, param_base=rng.choice((0, half)))
            await bench.load(ctx, case)
            await bench.execute(ctx, case, rng, *stalls)

    simulate(bench.dut, testbench)


def test_two_parameter_sets_live_together() -> None:
    rng = random.Random(7)
    bench = Bench(SMALL)

    async def testbench(ctx) -> None:
        first = NormCase(SMALL, rng, 48, 3)
        second = NormCase(SMALL, rng, 48, 3, param_base=bench.dut.param_depth // 2)
        await bench.load(ctx, first)
        await bench.load(ctx, second)
        for case in (first, second, first):
            await bench.execute(ctx, case, rng)

    simulate(bench.dut, testbench)


def test_parameters_are_loaded_while_a_command_runs() -> None:
    rng = random.Random(8)
    bench = Bench(SMALL)
    first = NormCase(SMALL, rng, 48, 8)
    second = NormCase(SMALL, rng, 48, 3, param_base=bench.dut.param_depth // 2)

    async def loader(ctx) -> None:
        await ctx.tick().until(bench.dut.write.valid)
        await bench.load(ctx, second)

    async def testbench(ctx) -> None:
        await bench.load(ctx, first)
        await bench.execute(ctx, first, rng)
        await bench.execute(ctx, second, rng)

    simulate(bench.dut, testbench, background=[loader])


def test_largest_dim() -> None:
    """Rows of all kinds, those whose sums are the largest that there are among them."""
    config = replace(PRESETS["zcu102"], max_dim=1024)
    rng = random.Random(3)
    bench = Bench(config)

    async def testbench(ctx) -> None:
        for dim in (1024, 1023):
            case = NormCase(config, rng, dim, ROW_KINDS, all_kinds=True)
            await bench.load(ctx, case)
            await bench.execute(ctx, case, rng)

    simulate(bench.dut, testbench)


@pytest.mark.parametrize(("name", "dim"), [("pynq-z2", 192), ("zcu102", 192), ("zcu102", 96), ("pynq-z2", 96)])
def test_throughput(name: str, dim: int) -> None:
    """Without stalls a token takes channels / norm_lanes cycles, or the scalar part's interval."""
    config = PRESETS[name]
    rng = random.Random(dim)
    bench = Bench(config)
    tokens = 17

    async def testbench(ctx) -> None:
        case = NormCase(config, rng, dim, tokens)
        await bench.load(ctx, case)
        cycles = await bench.execute(ctx, case, rng)
        latency = 20 + NormScalar.LATENCY_BOUND + NormLane.LATENCY
        assert cycles <= max(dim // config.norm_lanes, NormScalar.INTERVAL) * (tokens + 1) + latency

    simulate(bench.dut, testbench)


def test_no_tokens() -> None:
    bench = Bench(SMALL)

    async def testbench(ctx) -> None:
        await bench.execute(ctx, NormCase(SMALL, random.Random(0), 16, 0), random.Random(0))

    simulate(bench.dut, testbench)


@pytest.mark.parametrize("read", [1, 2, 3])
@pytest.mark.parametrize("norm_lanes", [1, 4, 8])
def test_read_latency(norm_lanes: int, read: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the residual memory takes, every row arrives in its cycle."""
    monkeypatch.setattr(reader, "RESIDUAL_READ", read)
    config = replace(SMALL, norm_lanes=norm_lanes, lanes_k=8)
    rng = random.Random(read)
    bench = Bench(config)

    async def testbench(ctx) -> None:
        for dim, tokens, stall in ((16, 5, 0), (40, 6, 0.5)):
            case = NormCase(config, rng, dim, tokens)
            await bench.load(ctx, case)
            await bench.execute(ctx, case, rng, stall)

    simulate(bench.dut, testbench)
