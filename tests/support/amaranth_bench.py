"""Test helpers: run processes on a component, and stream vectors through a fixed-latency pipeline."""

from collections.abc import Callable, Sequence
from typing import Any

from amaranth.sim import Simulator


def simulate(dut: Any, *testbenches: Callable[..., Any], background: Sequence[Callable[..., Any]] = ()) -> None:
    """Run the testbenches to their end with a clock on ``sync``."""
    simulator = Simulator(dut)
    simulator.add_clock(1e-8)
    for testbench in testbenches:
        simulator.add_testbench(testbench)
    for testbench in background:
        simulator.add_testbench(testbench, background=True)
    simulator.run()


def evaluate(dut: Any, testbench: Callable[..., Any]) -> None:
    """Run the testbench on a combinational component; what it sets is there at once."""
    simulator = Simulator(dut)
    simulator.add_testbench(testbench)
    simulator.run()


def stream_vectors(
    dut: Any, latency: int, vectors: Sequence[Any], drive: Callable[[Any, Any], None], check: Callable[[Any, Any], None]
) -> None:
    """Give one vector a cycle; check each one's results ``latency`` cycles later."""

    async def testbench(ctx: Any) -> None:
        for cycle in range(len(vectors) + latency):
            if cycle < len(vectors):
                drive(ctx, vectors[cycle])
            if cycle >= latency:
                check(ctx, vectors[cycle - latency])
            await ctx.tick()

    simulate(dut, testbench)
