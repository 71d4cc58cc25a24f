# amaranth: UnusedElaboratable=no
"""MacArray: packed products, their sums within DSPs and accumulation equal integer arithmetic."""

import itertools

import numpy as np
import pytest
from amaranth.sim import Simulator

from edgemoe_hw.engines.matmul.array import MacArray, field_bits
from edgemoe_hw.spec.constants import DSP_CHAINS
from edgemoe_hw.spec.timing import mac_array


def drive(lanes_k, lanes_n, tiles, seed, chain=2):
    """Run tiles [(activations [steps, lanes_k], weights [steps, lanes_n, lanes_k])]; returns the results in order.

    Every result comes ``mac_array`` cycles after its tile's last step. What is no step is noise.
    """
    dut = MacArray(lanes_k, lanes_n, chain=chain)
    results, due = [], []
    rng = np.random.default_rng(seed)
    cycles = {"stimulus": 0, "check": 0}

    async def tick(ctx, who):
        await ctx.tick()
        cycles[who] += 1

    async def stimulus(ctx):
        for activations, weights in tiles:
            for step in range(len(activations)):
                for k in range(lanes_k):
                    ctx.set(dut.activations[k], int(activations[step, k]))
                ctx.set(dut.weights, int.from_bytes(weights[step].astype(np.int8).tobytes(), "little"))
                ctx.set(dut.valid, 1)
                ctx.set(dut.first, step == 0)
                ctx.set(dut.last, step == len(activations) - 1)
                if step == len(activations) - 1:
                    due.append(cycles["stimulus"] + mac_array(lanes_k, chain))
                await tick(ctx, "stimulus")
                while rng.random() < 0.3:
                    ctx.set(dut.valid, 0)
                    ctx.set(dut.first, int(rng.integers(2)))
                    ctx.set(dut.last, int(rng.integers(2)))
                    ctx.set(dut.weights, int.from_bytes(rng.bytes(lanes_k * lanes_n), "little"))
                    await tick(ctx, "stimulus")
        ctx.set(dut.valid, 0)
        await ctx.tick().repeat(mac_array(lanes_k, chain) + 2)

    async def check(ctx):
        while True:
            await tick(ctx, "check")
            if ctx.get(dut.result_valid):
                assert cycles["check"] == due[len(results)]
                results.append([ctx.get(dut.result[n]) for n in range(lanes_n)])

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(stimulus)
    simulator.add_testbench(check, background=True)
    simulator.run()
    return np.array(results)


@pytest.mark.parametrize("chain", DSP_CHAINS)
@pytest.mark.parametrize(("lanes_k", "lanes_n"), [(4, 2), (8, 8), (16, 6), (8, 18)])
def test_dot_products(lanes_k, lanes_n, chain):
    rng = np.random.default_rng(1)
    tiles = []
    for steps in (1, 2, 5, 1):
        tiles.append((rng.integers(-127, 256, (steps, lanes_k)), rng.integers(-127, 128, (steps, lanes_n, lanes_k))))
    extremes = np.array([-127, 127, 0, 1, -1])
    tiles.append((np.full((4, lanes_k), 255), np.full((4, lanes_n, lanes_k), -127)))
    tiles.append((np.full((4, lanes_k), -127), rng.choice(extremes, (4, lanes_n, lanes_k))))
    got = drive(lanes_k, lanes_n, tiles, seed=2, chain=chain)
    want = np.array([np.einsum("sk,snk->n", a, w) for a, w in tiles])
    assert (got == want).all()


def test_borrow_of_the_shared_product():
    """Every sign combination of the two weights and the activation."""
    weights = np.array([[[u], [v]] for u in (-127, -1, 0, 1, 127) for v in (-127, -1, 0, 1, 127)]).repeat(2, axis=2)
    for activation in (-127, -1, 0, 1, 127, 255):
        tiles = [(np.full((1, 2), activation), w[None]) for w in weights]
        got = drive(2, 2, tiles, seed=3)
        assert (got == weights.sum(axis=2) * activation).all()


@pytest.mark.parametrize("chain", DSP_CHAINS)
def test_borrows_of_a_chain(chain):
    """Sums at both ends of the lower field, and those that cross zero within a chain, with every upper sum."""
    signs = np.array(list(itertools.product((-127, 127), repeat=chain)))
    small = np.array(list(itertools.product((-1, 0, 1), repeat=chain)))
    chains = np.concatenate([signs, small[:: max(1, len(small) // 9)], [[0] * (chain - 1) + [-1]]])
    lanes_k = 4
    rng = np.random.default_rng(chain)
    for activation in (255, 1, 127, -127):
        pairs = [np.stack([low, high]) for low in chains for high in (*signs[[0, -1]], np.zeros(chain, int))]
        # All chains of a lane alike: every adder of the tree gets as many borrows as it can.
        weights = np.array([np.tile(pair, (1, lanes_k // chain)) for pair in pairs])
        activations = np.full((len(pairs), lanes_k), activation)
        if activation == 255:
            activations[len(pairs) // 2 :] = rng.choice([255, 254, 0, 1], (len(pairs) - len(pairs) // 2, lanes_k))
        tiles = [(a[None], w[None]) for a, w in zip(activations, weights, strict=True)]
        got = drive(lanes_k, 2, tiles, seed=4, chain=chain)
        assert (got == np.einsum("tk,tnk->tn", activations, weights)).all()


def test_fields_hold_the_largest_sums():
    """17 bits leave 25 for a DSP48E1's pre-adder, 18 leave 26 of a DSP48E2's 27."""
    assert [field_bits(chain) for chain in DSP_CHAINS] == [16, 17, 18]
    for chain in DSP_CHAINS:
        assert chain * 127 * 255 + 1 < 1 << field_bits(chain) - 1  # the upper sum with its borrow, too


@pytest.mark.parametrize(
    ("args", "chain", "message"),
    [
        ((3, 2), 2, "lanes_k must be a power of two"),
        ((8, 3), 2, "lanes_n must be even"),
        ((8, 2), 3, "chain must be 1, 2 or 4"),
        ((2, 2), 4, r"at most lanes_k \(2\), not 4"),
    ],
)
def test_refusals(args, chain, message):
    with pytest.raises(ValueError, match=message):
        MacArray(*args, chain=chain)
