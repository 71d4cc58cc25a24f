# amaranth: UnusedElaboratable=no
"""MacArray: packed products and accumulation equal integer arithmetic."""

import numpy as np
import pytest
from amaranth.sim import Simulator

from edgemoe_hw.engines.matmul.array import MacArray


def drive(lanes_k, lanes_n, tiles, seed):
    """Run tiles [(activations [steps, lanes_k], weights [steps, lanes_n, lanes_k])]; returns the results in order."""
    dut = MacArray(lanes_k, lanes_n)
    results = []
    rng = np.random.default_rng(seed)

    async def stimulus(ctx):
        for activations, weights in tiles:
            for step in range(len(activations)):
                for k in range(lanes_k):
                    ctx.set(dut.activations[k], int(activations[step, k]))
                ctx.set(dut.weights, int.from_bytes(weights[step].astype(np.int8).tobytes(), "little"))
                ctx.set(dut.valid, 1)
                ctx.set(dut.first, step == 0)
                ctx.set(dut.last, step == len(activations) - 1)
                await ctx.tick()
                if rng.random() < 0.3:
                    ctx.set(dut.valid, 0)
                    await ctx.tick()
        ctx.set(dut.valid, 0)
        await ctx.tick().repeat(MacArray.LATENCY + 2)

    async def check(ctx):
        while True:
            await ctx.tick()
            if ctx.get(dut.result_valid):
                results.append([ctx.get(dut.result[n]) for n in range(lanes_n)])

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(stimulus)
    simulator.add_testbench(check, background=True)
    simulator.run()
    return np.array(results)


@pytest.mark.parametrize(("lanes_k", "lanes_n"), [(2, 2), (8, 8), (16, 6)])
def test_dot_products(lanes_k, lanes_n):
    rng = np.random.default_rng(1)
    tiles = []
    for steps in (1, 2, 5, 1):
        tiles.append((rng.integers(-127, 256, (steps, lanes_k)), rng.integers(-127, 128, (steps, lanes_n, lanes_k))))
    extremes = np.array([-127, 127, 0, 1, -1])
    tiles.append((np.full((4, lanes_k), 255), np.full((4, lanes_n, lanes_k), -127)))
    tiles.append((np.full((4, lanes_k), -127), rng.choice(extremes, (4, lanes_n, lanes_k))))
    got = drive(lanes_k, lanes_n, tiles, seed=2)
    want = np.array([np.einsum("sk,snk->n", a, w) for a, w in tiles])
    assert (got == want).all()


def test_borrow_of_the_shared_product():
    """Every sign combination of the two weights and the activation."""
    weights = np.array([[[u], [v]] for u in (-127, -1, 0, 1, 127) for v in (-127, -1, 0, 1, 127)]).repeat(2, axis=2)
    for activation in (-127, -1, 0, 1, 127, 255):
        tiles = [(np.full((1, 2), activation), w[None]) for w in weights]
        got = drive(2, 2, tiles, seed=3)
        assert (got == weights.sum(axis=2) * activation).all()


@pytest.mark.parametrize(
    ("args", "message"), [((3, 2), "lanes_k must be a power of two"), ((8, 3), "lanes_n must be even")]
)
def test_refusals(args, message):
    with pytest.raises(ValueError, match=message):
        MacArray(*args)
