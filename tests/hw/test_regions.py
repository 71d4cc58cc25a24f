# amaranth: UnusedElaboratable=no
"""LOADs and STOREs stay inside their regions of DRAM: every byte of every burst, or no burst and an error."""

import itertools

import numpy as np
import pytest

from edgemoe_hw.engines.load import DmaRead
from edgemoe_hw.engines.store import DmaWrite
from edgemoe_hw.spec.config import AcceleratorConfig
from edgemoe_hw.spec.isa import Base, Load, Memory, Store
from edgemoe_hw.spec.memories import memory_depths, slice_beats
from edgemoe_hw.spec.regs import ErrorCode
from support.amaranth_bench import simulate

BASES = {Base.WEIGHTS: 0x12_3456_7000, Base.INPUT: 0x40, Base.OUTPUT: 0xFF_0000_0000}
SIZES = {Base.WEIGHTS: 0x9000, Base.INPUT: 0x200, Base.OUTPUT: 0x340}
CONFIGS = [
    pytest.param(AcceleratorConfig(lanes_k=32, lanes_n=32, epilogue_lanes=16, axi_masters=masters), id=f"{masters}")
    for masters in (1, 2, 4)
] + [
    pytest.param(AcceleratorConfig(lanes_k=16, lanes_n=32, epilogue_lanes=16, axi_masters=4, axi_bytes=16), id="narrow")
]


def set_regions(ctx, dut) -> None:
    for base in Base:
        ctx.set(dut.regions[base].base, BASES[base])
        ctx.set(dut.regions[base].size, SIZES[base])


def set_command(ctx, dut, payload, index: int) -> None:
    for name in payload.members():
        ctx.set(dut.commands.payload.payload[name], int(getattr(payload, name)))
    ctx.set(dut.commands.payload.index, index)
    ctx.set(dut.commands.valid, 1)


def span(config: AcceleratorConfig, load: Load) -> list[tuple[int, int]]:
    """Bytes [begin, end) of the region that each master reads."""
    size = load.rows * slice_beats(config)[load.memory] * config.axi_bytes
    starts = [load.offset + master * load.plane_stride for master in range(config.load_masters(load.memory.name))]
    return [(start, start + size) for start in starts]


def random_load(config: AcceleratorConfig, rng: np.random.Generator) -> Load:
    """A LOAD that ends near its region's end, or far away."""
    memory = Memory(int(rng.integers(len(Memory))))
    base, step = Base(int(rng.integers(len(Base)))), config.axi_bytes
    rows = int(rng.integers(0, min(memory_depths(config)[memory], 6)))
    stride = int(rng.choice([0, step, 64, (1 << 32) - step, 0x4000_0000]))
    size = rows * slice_beats(config)[memory] * step
    masters = config.load_masters(memory.name)
    near = SIZES[base] - size - (masters - 1) * stride + step * int(rng.integers(-2, 3))
    offset = near if rng.random() < 0.7 else int(rng.choice([0, (1 << 32) - step, SIZES[base], 0x8000_0000]))
    return Load(memory=memory, base=base, offset=offset if 0 <= offset < 1 << 32 else 0, plane_stride=stride, rows=rows)


@pytest.mark.parametrize("config", CONFIGS)
def test_loads(config, rng):
    """Each command alone: its bursts cover exactly its bytes, or it is refused before the first one."""
    dut = DmaRead(config)
    masters = range(config.axi_masters)
    outcomes = []

    async def bench(ctx):
        set_regions(ctx, dut)
        for master in masters:
            ctx.set(dut.requests[master].ready, 1)
            ctx.set(dut.beats[master].ready, 1)
        for index in range(150):
            load = random_load(config, rng)
            expected = span(config, load)
            fits = load.rows == 0 or max(end for _, end in expected) <= SIZES[load.base]
            set_command(ctx, dut, load, index)
            seen = [[] for _ in masters]
            owed = [0 for _ in masters]
            for cycle in itertools.count():
                for master in masters:
                    if ctx.get(dut.requests[master].valid):
                        beats = ctx.get(dut.requests[master].payload.len) + 1
                        start = ctx.get(dut.requests[master].payload.addr) - BASES[load.base]
                        seen[master].append((start, start + beats * config.axi_bytes))
                        owed[master] += beats
                    ctx.set(dut.responses[master].valid, int(owed[master] > 0))
                taken = [ctx.get(port.valid) and ctx.get(port.ready) for port in dut.responses]
                done, failed = ctx.get(dut.done), ctx.get(dut.error.valid)
                if failed:
                    assert ctx.get(dut.error.code) == ErrorCode.REGION and ctx.get(dut.error.index) == index
                accepted = ctx.get(dut.commands.ready)
                await ctx.tick()
                owed = [count - took for count, took in zip(owed, taken, strict=True)]
                if accepted:
                    ctx.set(dut.commands.valid, 0)
                if done or failed:
                    break
                assert cycle < 1000
            outcomes.append(fits)
            assert fits == bool(done) and fits != bool(failed), load
            if failed:
                for _ in range(20):  # and it stays so
                    assert ctx.get(dut.error.valid) and not any(ctx.get(port.valid) for port in dut.requests)
                    await ctx.tick()
                assert not any(seen)
                return  # the program has been stopped; only a reset brings the engine back
            for bursts, (begin, end) in itertools.zip_longest(seen, expected, fillvalue=(0, 0)):
                merged = [begin] if begin != end else []
                for start, stop in bursts:
                    assert start == merged[-1]
                    merged.append(stop)
                assert (merged[-1] if merged else end) == end

    for _ in range(40):
        simulate(dut, bench)
    assert outcomes.count(False) == 40 and outcomes.count(True) > 20


@pytest.mark.parametrize(
    ("load", "fits"),
    [
        (Load(memory=Memory.ACT, base=Base.INPUT, offset=0x200 - 32, rows=1), True),
        (Load(memory=Memory.ACT, base=Base.INPUT, offset=0x200 - 24, rows=1), False),
        (Load(memory=Memory.ACT, base=Base.INPUT, offset=0x200, rows=0), True),
        (Load(memory=Memory.ACT, base=Base.INPUT, offset=0xFFFF_FFF8, rows=1), False),
        (Load(memory=Memory.ACT, base=Base.WEIGHTS, rows=0x9000 // 32), True),
        (Load(memory=Memory.ACT, base=Base.WEIGHTS, rows=0x9000 // 32 + 1), False),
        (Load(memory=Memory.ACT, base=Base.OUTPUT, offset=0x340 - 32, rows=1), True),
    ],
)
def test_the_last_byte_decides(load, fits):
    dut = DmaRead(AcceleratorConfig(lanes_k=32, lanes_n=32, epilogue_lanes=16))
    found = []

    async def bench(ctx):
        set_regions(ctx, dut)
        set_command(ctx, dut, load, 7)
        ctx.set(dut.requests[0].ready, 1)
        for _ in range(12):
            found.append((ctx.get(dut.error.valid), ctx.get(dut.requests[0].valid)))
            if ctx.get(dut.commands.ready):
                await ctx.tick()
                ctx.set(dut.commands.valid, 0)
            else:
                await ctx.tick()

    simulate(dut, bench)
    errors, requests = zip(*found, strict=True)
    assert (any(errors), any(requests)) == (not fits, fits and load.rows > 0)


@pytest.mark.parametrize(
    ("store", "code"),
    [
        (Store(base=Base.OUTPUT, offset=0x340 - 64, rows=2), None),
        (Store(base=Base.OUTPUT, offset=0x340 - 64, rows=3), ErrorCode.REGION),
        (Store(base=Base.OUTPUT, offset=0x340 - 56, rows=2), ErrorCode.REGION),
        (Store(base=Base.OUTPUT, offset=0x340, rows=0), None),
        (Store(base=Base.OUTPUT, offset=0xFFFF_FFF8, rows=1), ErrorCode.REGION),
        (Store(base=Base.WEIGHTS, rows=1), ErrorCode.REGION),
        (Store(base=Base.INPUT, rows=1), ErrorCode.REGION),
        (Store(base=Base.OUTPUT, rows=4096, row=1), ErrorCode.ADDRESS_RANGE),
    ],
)
def test_stores(store, code):
    """Exactly its bytes, one row of 32 after the other, or none."""
    config = AcceleratorConfig(lanes_k=32, lanes_n=32, epilogue_lanes=16)
    dut = DmaWrite(config)
    errors, bursts, done = [], [], []

    async def bench(ctx):
        set_regions(ctx, dut)
        set_command(ctx, dut, store, 9)
        for port in (dut.requests, dut.data, dut.read):
            ctx.set(port.ready, 1)
        for _ in range(60):
            if ctx.get(dut.error.valid):
                errors.append((ctx.get(dut.error.code), ctx.get(dut.error.index)))
            if ctx.get(dut.requests.valid):
                bursts.append((ctx.get(dut.requests.payload.addr), ctx.get(dut.requests.payload.len) + 1))
            done.append(ctx.get(dut.done))
            ready = ctx.get(dut.commands.ready)
            await ctx.tick()
            if ready:
                ctx.set(dut.commands.valid, 0)

    simulate(dut, bench)
    assert set(errors) == ({(code, 9)} if code else set()) and sum(done) == (code is None)
    wanted = [(BASES[Base.OUTPUT] + store.offset, store.rows * 4)] if store.rows and code is None else []
    assert bursts == wanted


@pytest.mark.parametrize("read_cycles", [1, 2])
@pytest.mark.parametrize(("epilogue_lanes", "axi_bytes"), [(8, 16), (8, 8), (16, 8)])
def test_stored_rows(epilogue_lanes, axi_bytes, read_cycles, rng):
    """The rows' beats in order, a beat a cycle where nothing waits, for both latencies of the scratchpad."""
    config = AcceleratorConfig(lanes_k=16, lanes_n=16, epilogue_lanes=epilogue_lanes, axi_bytes=axi_bytes)
    dut = DmaWrite(config, read_cycles=read_cycles)
    rows = [int(row) for row in rng.integers(0, 1 << 62, 64)]
    found, cycles = [], []

    async def bench(ctx):
        set_regions(ctx, dut)
        ctx.set(dut.requests.ready, 1)
        for stalls in (False, True):
            set_command(ctx, dut, Store(base=Base.OUTPUT, row=5, rows=20), 3)
            asked = [0] * read_cycles
            for cycle in itertools.count():
                ctx.set(dut.read.ready, int(not stalls or rng.random() < 0.5))
                ctx.set(dut.data.ready, int(not stalls or rng.random() < 0.5))
                ctx.set(dut.read.data, asked[-1])
                if ctx.get(dut.data.valid) and ctx.get(dut.data.ready):
                    found.append(ctx.get(dut.data.payload.data))
                taken = ctx.get(dut.read.valid) and ctx.get(dut.read.ready)
                asked = [rows[ctx.get(dut.read.row)] if taken else 0, *asked[:-1]]
                accepted, done = ctx.get(dut.commands.ready), ctx.get(dut.done)
                await ctx.tick()
                if accepted:
                    ctx.set(dut.commands.valid, 0)
                if done:
                    break
                assert cycle < 1000
            cycles.append(cycle)

    simulate(dut, bench)
    beats = 2 * epilogue_lanes // axi_bytes
    mask = (1 << 8 * axi_bytes) - 1
    assert found == 2 * [rows[5 + i] >> 8 * axi_bytes * beat & mask for i in range(20) for beat in range(beats)]
    assert cycles[0] <= 20 * beats + 8
