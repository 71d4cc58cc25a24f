# amaranth: UnusedElaboratable=no
"""WeightUnpack: every nibble of either half with its sign, and bytes untouched."""

import numpy as np
from amaranth.sim import Simulator

from edgemoe_hw.engines.matmul.unpack import WeightUnpack


def test_bytes_and_both_halves():
    data = np.arange(256, dtype=np.uint8)  # every pair of nibbles
    signed = data.astype(np.int8)
    dut = WeightUnpack(len(data))

    async def testbench(ctx):
        ctx.set(dut.data, int.from_bytes(data.tobytes(), "little"))
        for nibbles, high, want in ((0, 0, signed), (1, 0, signed << 4 >> 4), (1, 1, signed >> 4), (0, 0, signed)):
            ctx.set(dut.nibbles, nibbles)
            ctx.set(dut.high, high)
            await ctx.delay(1e-9)
            found = np.frombuffer(int(ctx.get(dut.weights)).to_bytes(len(data), "little"), np.int8)
            assert np.array_equal(found, want), (nibbles, high)

    simulator = Simulator(dut)
    simulator.add_testbench(testbench)
    simulator.run()
