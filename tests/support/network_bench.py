"""Whole inferences on a cocotb bench, compared with the reference."""

import os
from pathlib import Path

import numpy as np

from edgemoe.bundle import Bundle
from edgemoe.layout import align, gather_outputs, pack_patches
from edgemoe_hw.spec import regs
from edgemoe_models.model_image import patchify
from support.axi_bench import AxiBench
from support.reference import expect

__all__ = ["NetworkBench"]


class NetworkBench(AxiBench):
    """The design with a bundle's data in its memory; $BUNDLE is its file, $STALL the pauses' probability."""

    def __init__(self, dut):
        self.bundle = bundle = Bundle.load(Path(os.environ["BUNDLE"]))
        self.input = align(bundle.data.size, 4096)
        self.output = align(self.input + bundle.input_bytes, 4096)
        self.program = align(self.output + max(task.output_bytes for task in bundle.tasks.values()), 4096)
        end = self.program + max(len(task.program) for task in bundle.tasks.values())
        super().__init__(dut, bundle.config, float(os.environ["STALL"]), 1 << end.bit_length())

    async def reset(self):
        await super().reset()
        self.fill(0, self.bundle.data)

    async def begin(self, task: str, image: np.ndarray):
        bundle = self.bundle
        program = np.frombuffer(bundle.task(task).program, np.uint8)
        self.fill(self.program, program)
        patches = pack_patches(bundle.config, patchify(image, bundle.model.patch))
        self.fill(self.input, np.frombuffer(patches, np.uint8))
        regions = {"BASE_WEIGHTS": 0, "BASE_INPUT": self.input, "BASE_OUTPUT": self.output}
        await self.start(self.program, len(program) // 64, **regions, WATCHDOG=5000)

    async def infer(self, task: str, seed: int):
        """One inference: the outputs equal the reference, and nothing but the outputs is written."""
        bundle = self.bundle
        shape = (bundle.model.image_height, bundle.model.image_width, 3)
        image = np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)
        await self.begin(task, image)
        before = self.dram()
        assert await self.finish(20_000) == (regs.ErrorCode.NONE, 0)
        after, info = self.dram(), bundle.task(task)
        raw = after[self.output :][: info.output_bytes]
        found = gather_outputs(info.outputs, raw, info.output_rows, info.output_channels)
        np.testing.assert_array_equal(found, expect(bundle, image, task).outputs)
        changed = np.flatnonzero(before != after)
        assert ((changed >= self.output) & (changed < self.output + info.output_bytes)).all()
