"""cocotb tests of the whole accelerator against cocotbext-axi; run by test_top_cocotb.py, once for each STALL."""

import cocotb
import numpy as np
from cocotb.triggers import ClockCycles

from support.network_bench import NetworkBench


@cocotb.test()
async def inferences(dut):
    """Every task, one after the other."""
    bench = NetworkBench(dut)
    await bench.reset()
    assert await bench.read("CONFIG_HASH") == bench.bundle.config.hash32
    for number, task in enumerate(bench.bundle.tasks):
        await bench.infer(task, number)
        assert await bench.read("COMMANDS_DONE") == bench.bundle.task(task).commands - 2


@cocotb.test()
async def soft_reset_in_the_middle(dut):
    """Whatever was under way, the next inference is right."""
    bench = NetworkBench(dut)
    await bench.reset()
    task = next(iter(bench.bundle.tasks))
    image = np.zeros((bench.bundle.model.image_height, bench.bundle.model.image_width, 3), np.uint8)
    for cycles in (200, 1500):
        await bench.begin(task, image)
        await ClockCycles(dut.clk, cycles)
        await bench.soft_reset()
    await bench.infer(task, 5)
