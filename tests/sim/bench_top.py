"""cocotb tests of the whole accelerator against cocotbext-axi; run by test_top_cocotb.py, once for each STALL."""

import os
from pathlib import Path

import cocotb
import numpy as np
from cocotb.triggers import ClockCycles

from edgemoe.bundle import Bundle
from edgemoe.layout import align, gather_outputs, pack_patches
from edgemoe_hw.spec import regs
from edgemoe_models.model_image import patchify
from support.axi_bench import AxiBench
from support.reference import expect

BUNDLE = Bundle.load(Path(os.environ["BUNDLE"]))
STALL = float(os.environ["STALL"])
INPUT = align(BUNDLE.data.size, 4096)
OUTPUT = align(INPUT + BUNDLE.input_bytes, 4096)
PROGRAM = align(OUTPUT + max(task.output_bytes for task in BUNDLE.tasks.values()), 4096)
BYTES = 1 << (PROGRAM + max(len(task.program) for task in BUNDLE.tasks.values())).bit_length()


class Bench(AxiBench):
    """The accelerator with the bundle's data in its memory."""

    def __init__(self, dut):
        super().__init__(dut, BUNDLE.config, STALL, BYTES)

    async def reset(self):
        await super().reset()
        self.fill(0, BUNDLE.data)

    async def begin(self, task: str, image: np.ndarray):
        program = np.frombuffer(BUNDLE.task(task).program, np.uint8)
        self.fill(PROGRAM, program)
        self.fill(INPUT, np.frombuffer(pack_patches(BUNDLE.config, patchify(image, BUNDLE.model.patch)), np.uint8))
        await self.start(
            PROGRAM, len(program) // 64, BASE_WEIGHTS=0, BASE_INPUT=INPUT, BASE_OUTPUT=OUTPUT, WATCHDOG=5000
        )

    async def infer(self, task: str, seed: int):
        """One inference: the outputs equal the reference, and nothing but the outputs is written."""
        shape = (BUNDLE.model.image_height, BUNDLE.model.image_width, 3)
        image = np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)
        await self.begin(task, image)
        before = self.dram()
        assert await self.finish(10_000) == (regs.ErrorCode.NONE, 0)
        after, info = self.dram(), BUNDLE.task(task)
        found = gather_outputs(
            info.outputs, after[OUTPUT:][: info.output_bytes], info.output_rows, info.output_channels
        )
        np.testing.assert_array_equal(found, expect(BUNDLE, image, task).outputs)
        changed = np.flatnonzero(before != after)
        assert ((changed >= OUTPUT) & (changed < OUTPUT + info.output_bytes)).all()


@cocotb.test()
async def inferences(dut):
    """Every task, one after the other."""
    bench = Bench(dut)
    await bench.reset()
    assert await bench.read("CONFIG_HASH") == BUNDLE.config.hash32
    for number, task in enumerate(BUNDLE.tasks):
        await bench.infer(task, number)
        assert await bench.read("COMMANDS_DONE") == BUNDLE.task(task).commands - 2


@cocotb.test()
async def soft_reset_in_the_middle(dut):
    """Whatever was under way, the next inference is right."""
    bench = Bench(dut)
    await bench.reset()
    task = next(iter(BUNDLE.tasks))
    image = np.zeros((BUNDLE.model.image_height, BUNDLE.model.image_width, 3), np.uint8)
    for cycles in (200, 1500):
        await bench.begin(task, image)
        await ClockCycles(dut.clk, cycles)
        await bench.soft_reset()
    await bench.infer(task, 5)
