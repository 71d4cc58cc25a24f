# amaranth: UnusedElaboratable=no
"""Every cycle of a program has one cause, none is lost at its end, and a read of two halves is one value."""

import numpy as np

from edgemoe_hw.bus.axi_lite import RegisterFile
from edgemoe_hw.control_plane.counters import CAUSES, COUNTS, Counters
from edgemoe_hw.spec import regs
from edgemoe_hw.spec.config import AcceleratorConfig
from edgemoe_hw.spec.isa import Engine
from support.amaranth_bench import simulate

SETTLED = 3  # cycles from an event to its count


def cause(array: str, blocked: int, empty: int, ending: int) -> str:
    """What a cycle counts as."""
    if array == "busy":
        return "array_busy"
    if array == "stall_epilogue":
        return "stall_epilogue"
    if array == "stall_token":
        return "stall_matmul"
    for engine in (Engine.LOAD, Engine.NORM, Engine.STORE):
        if blocked >> engine & 1:
            return f"stall_{engine.name.lower()}"
    if blocked >> Engine.MATMUL & 1 or not empty:
        return "stall_matmul"
    return "stall_store" if ending else "stall_command"


def test_every_cycle_counts_once(rng):
    """Random cycles of three programs; the last one ends with the cycle in which it stops running."""
    config = AcceleratorConfig(lanes_k=32, lanes_n=32, epilogue_lanes=16, axi_masters=2)
    dut = Counters(config)

    async def bench(ctx):
        for length in (1, 2, 400):
            expected = dict.fromkeys(COUNTS, 0)
            ctx.set(dut.clear, 1)
            await ctx.tick()
            ctx.set(dut.clear, 0)
            for cycle in range(length + SETTLED):
                running = cycle < length
                array = str(rng.choice(["busy", "stall_epilogue", "stall_token", "idle", "idle"]))
                blocked = int(rng.integers(16)) if rng.random() < 0.5 else 0
                empty, ending = int(rng.integers(2)), int(rng.integers(2))
                reads, writes, finished = (int(rng.integers(n)) if running else 0 for n in (4, 2, 16))
                for name in dut.array.signature.members:
                    ctx.set(getattr(dut.array, name), name == array)
                for name, value in {
                    "running": running,
                    "blocked": blocked,
                    "empty": empty,
                    "ending": ending,
                    "reads": reads,
                    "writes": writes,
                    "finished": finished,
                }.items():
                    ctx.set(getattr(dut, name), value)
                if running:
                    expected[cause(array, blocked, empty, ending)] += 1
                    expected["cycles"] += 1
                    expected["bytes_read"] += config.axi_bytes * reads.bit_count()
                    expected["bytes_written"] += config.axi_bytes * writes
                    expected["commands_done"] += finished.bit_count()
                await ctx.tick()
            found = {name: ctx.get(getattr(dut, f"count_{name}")) for name in COUNTS}
            assert found == expected
            assert sum(found[name] for name in CAUSES) == found["cycles"] == length

    simulate(dut, bench)


def test_halves_belong_together():
    """LO, then HI, of a counter that changes in every cycle, from any of its words and with other reads between."""
    dut = RegisterFile()
    rng = np.random.default_rng(5)
    counters = [register for register in regs.REGISTERS if register.words == 2 and register.fields[0].access == "ro"]

    async def read(ctx, offset: int) -> int:
        ctx.set(dut.s_axi.ar.payload.addr, offset)
        ctx.set(dut.s_axi.ar.valid, 1)
        await ctx.tick().until(dut.s_axi.ar.ready)
        ctx.set(dut.s_axi.ar.valid, 0)
        ctx.set(dut.s_axi.r.ready, 1)
        (value,) = await ctx.tick().sample(dut.s_axi.r.payload.data).until(dut.s_axi.r.valid)
        ctx.set(dut.s_axi.r.ready, 0)
        return value

    async def count(ctx):
        for cycle in range(100_000):
            for number, register in enumerate(counters):
                value = (cycle << 8 | number) * 0x1_0000_0001
                ctx.set(getattr(dut, register.name.lower()), value)
            await ctx.tick()

    async def host(ctx):
        ctx.set(dut.id, regs.ID)
        for _ in range(60):
            number = int(rng.integers(len(counters)))
            low = await read(ctx, counters[number].offset)
            assert await read(ctx, regs.find("ID").offset) == regs.ID
            assert await read(ctx, 0xFF0) == 0
            high = await read(ctx, counters[number].offset + 4)
            assert low == high and low & 0xFF == number

    simulate(dut, host, background=[count])
