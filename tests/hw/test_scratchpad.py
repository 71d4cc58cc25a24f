# amaranth: UnusedElaboratable=no
"""Scratchpads: loads, keys and values land where the contract says, and compute-side writes come first."""

import numpy as np
import pytest
from amaranth.hdl import Module, Signal
from amaranth.lib.memory import Memory
from amaranth.sim import Simulator

from edgemoe_hw.primitives.memory import memory_parts, read_memory
from edgemoe_hw.scratchpad import SlicedMemory, WeightScratchpad
from edgemoe_hw.spec.config import AcceleratorConfig
from edgemoe_hw.spec.timing import WEIGHT_READ, WEIGHT_WRITE

CONFIGS = [
    AcceleratorConfig(lanes_k=8, lanes_n=8, epilogue_lanes=8, weight_depth=16),
    AcceleratorConfig(lanes_k=16, lanes_n=24, epilogue_lanes=8, weight_depth=16),
    AcceleratorConfig(
        lanes_k=32, lanes_n=16, epilogue_lanes=16, norm_lanes=16, axi_masters=2, axi_bytes=16, weight_depth=16
    ),
    AcceleratorConfig(lanes_k=16, lanes_n=24, epilogue_lanes=8, axi_masters=4, axi_bytes=16, weight_depth=16),
    AcceleratorConfig(lanes_k=16, lanes_n=8, epilogue_lanes=4, axi_masters=2, weight_depth=16),
]


def simulate(dut, bench):
    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()


async def load_row(ctx, port, row, content, axi_bytes):
    for beat in range(len(content) // axi_bytes):
        ctx.set(port.row, row)
        ctx.set(port.beat, beat)
        ctx.set(port.data, int.from_bytes(content[beat * axi_bytes : (beat + 1) * axi_bytes].tobytes(), "little"))
        ctx.set(port.valid, 1)
        await ctx.tick().until(port.ready)
    ctx.set(port.valid, 0)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: f"{c.lanes_k}x{c.lanes_n}x{c.axi_masters}")
def test_weight_scratchpad(config):
    rng = np.random.default_rng(5)
    k, n, e, masters = config.lanes_k, config.lanes_n, config.epilogue_lanes, config.axi_masters
    model = np.zeros((config.weight_depth, n, k), np.int8)
    dut = WeightScratchpad(config)

    async def read(ctx, row):
        ctx.set(dut.read.row, row)
        await ctx.tick().repeat(WEIGHT_READ)
        return np.frombuffer(int(ctx.get(dut.read.data)).to_bytes(n * k, "little"), np.int8).reshape(n, k)

    async def bench(ctx):
        for row in (0, 3, config.weight_depth - 1):
            model[row] = rng.integers(-127, 128, (n, k))
            for master in range(masters):
                part = model[row, master * n // masters : (master + 1) * n // masters]
                await load_row(ctx, dut.load[master], row, part.reshape(-1), config.axi_bytes)
        for _ in range(20):
            row, values = int(rng.integers(config.weight_depth)), rng.integers(-127, 128, e).astype(np.int8)
            is_value = bool(rng.integers(2))
            for lane in range(e):
                ctx.set(dut.kv.data[lane], int(values[lane]))
            ctx.set(dut.kv.row, row)
            ctx.set(dut.kv.is_value, is_value)
            if is_value:
                first, byte = int(rng.integers(n // e)) * e, int(rng.integers(k))
                ctx.set(dut.kv.banks, ((1 << e) - 1) << first)
                ctx.set(dut.kv.bytes, 1 << byte)
                model[row, first : first + e, byte] = values
            else:
                bank, part = int(rng.integers(n)), int(rng.integers(k // e))
                ctx.set(dut.kv.banks, 1 << bank)
                ctx.set(dut.kv.bytes, ((1 << e) - 1) << part * e)
                model[row, bank, part * e : (part + 1) * e] = values
            # A load of the same cycle must wait.
            ctx.set(dut.load[0].valid, 1)
            ctx.set(dut.kv.valid, 1)
            assert not ctx.get(dut.load[0].ready)
            await ctx.tick()
            ctx.set(dut.kv.valid, 0)
            ctx.set(dut.load[0].valid, 0)
        await ctx.tick().repeat(WEIGHT_WRITE - 1)
        for row in range(config.weight_depth):
            assert (await read(ctx, row) == model[row]).all(), row

    simulate(dut, bench)


@pytest.mark.parametrize("read_cycles", [1, 2])
@pytest.mark.parametrize(
    ("row_bytes", "masters", "axi_bytes", "depth"),
    [(8, 1, 8, 8), (16, 1, 8, 8), (64, 2, 16, 8), (128, 1, 16, 8), (32, 2, 8, 2049), (16, 1, 8, 3280)],
)
def test_sliced_memory(row_bytes, masters, axi_bytes, depth, read_cycles):
    """Of more than 1024 rows, the few beyond a multiple of 1024 are a memory of their own."""
    rng = np.random.default_rng(6)
    model = np.zeros((depth, row_bytes), np.uint8)
    dut = SlicedMemory(depth, row_bytes, masters, axi_bytes, read_cycles=read_cycles)
    used = sorted({*range(4), depth - depth % 1024 - 1, *range(max(depth - 4, 4), depth)})
    used = [row for row in used if 0 <= row < depth]

    async def bench(ctx):
        for row in used:
            model[row] = rng.integers(0, 256, row_bytes)
            for master in range(masters):
                part = model[row, master * row_bytes // masters : (master + 1) * row_bytes // masters]
                await load_row(ctx, dut.load[master], row, part, axi_bytes)
        for _ in range(10):
            row, mask = int(rng.choice(used)), rng.integers(0, 2, row_bytes).astype(bool)
            content = rng.integers(0, 256, row_bytes).astype(np.uint8)
            model[row, mask] = content[mask]
            ctx.set(dut.write.row, row)
            ctx.set(dut.write.mask, sum(1 << i for i in np.flatnonzero(mask).tolist()))
            ctx.set(dut.write.data, int.from_bytes(content.tobytes(), "little"))
            ctx.set(dut.write.valid, 1)
            assert not ctx.get(dut.load[0].ready)
            await ctx.tick()
            ctx.set(dut.write.valid, 0)
        order = rng.permutation(used)
        for cycle in range(len(order) + read_cycles):  # a row a cycle
            if cycle >= read_cycles:
                found = int(ctx.get(dut.read.data)).to_bytes(row_bytes, "little")
                assert found == model[order[cycle - read_cycles]].tobytes()
            ctx.set(dut.read.row, int(order[cycle % len(order)]))
            await ctx.tick()

    simulate(dut, bench)


def test_refusal():
    with pytest.raises(ValueError, match="row_bytes must be a multiple of 32, not 16"):
        SlicedMemory(8, 16, 2, 16)
    with pytest.raises(ValueError, match="a memory is read in 1 or 2 cycles, not 3"):
        read_memory(Module(), Memory(shape=8, depth=4, init=[]), Signal(2), 3, "name")


@pytest.mark.parametrize(
    ("depth", "style", "parts"),
    [
        (9456, "auto", [range(9216), range(9216, 9456)]),
        (1025, "auto", [range(1024), range(1024, 1025)]),
        (4736, "auto", [range(4736)]),
        (8192, "auto", [range(8192)]),
        (240, "auto", [range(240)]),
        (9456, "ultra", [range(9456)]),
    ],
)
def test_few_rows_beyond_whole_block_rams_are_apart(depth, style, parts):
    assert memory_parts(depth, style) == parts
