# amaranth: UnusedElaboratable=no
"""Starting, stopping and resetting, with resets, errors and bus that answer through registers of their own."""

import numpy as np
import pytest

from edgemoe_hw.control_plane.supervisor import Supervisor
from edgemoe_hw.spec.regs import ErrorCode
from support.amaranth_bench import simulate

LAG = 3  # cycles from `reset` to a unit that is reset, registers on the way


class Machine:
    """A supervisor with a unit that reports an error until it is reset, and a bus that is idle when reset."""

    def __init__(self) -> None:
        self.dut = Supervisor(sources=2)
        self.way = [0] * LAG  # resets on their way to the unit
        self.failing = 0
        self.busy_bus = 0
        self.launches = []  # whether the unit was still in reset, or failing

    async def tick(self, ctx, **inputs: int) -> None:
        """One cycle with the host's strobes ``inputs``."""
        dut = self.dut
        for name in ("start", "soft_reset", "irq_clear"):
            ctx.set(getattr(dut, name), inputs.get(name, 0))
        ctx.set(dut.errors[1].valid, self.failing)
        ctx.set(dut.errors[1].code, ErrorCode.READ_BUS)
        ctx.set(dut.errors[1].index, 77)
        ctx.set(dut.bus_idle, not self.busy_bus)
        if ctx.get(dut.launch):
            self.launches.append((self.way[0], any(self.way), self.failing))
        self.way = [*self.way[1:], ctx.get(dut.reset)]
        await ctx.tick()
        if self.way[0]:
            self.failing = 0
            self.busy_bus = max(0, self.busy_bus - 1)

    async def until(self, ctx, name: str, value: int = 1, limit: int = 100) -> int:
        for cycle in range(limit):
            if ctx.get(getattr(self.dut, name)) == value:
                return cycle
            await self.tick(ctx)
        raise AssertionError(f"{name} does not become {value}")


def test_an_error_is_over_at_the_next_start():
    """It is reported once, the bus drains, and neither the old error nor the reset reaches the next program."""
    machine = Machine()
    dut = machine.dut

    async def bench(ctx):
        for _ in range(3):
            await machine.tick(ctx, start=1)
            await machine.until(ctx, "running")
            for _ in range(20):
                await machine.tick(ctx)
                assert ctx.get(dut.running) and not ctx.get(dut.error)
            machine.failing, machine.busy_bus = 1, 30
            assert await machine.until(ctx, "error") == 3  # into a register, chosen, shown
            assert (ctx.get(dut.error_code), ctx.get(dut.error_command)) == (ErrorCode.READ_BUS, 77)
            assert ctx.get(dut.irq) and not ctx.get(dut.running) and not ctx.get(dut.done)
            assert await machine.until(ctx, "busy", 0) >= 30
            await machine.tick(ctx, irq_clear=1)
            assert ctx.get(dut.error) and not ctx.get(dut.irq)
        assert machine.launches == [(0, False, 0)] * 3

    simulate(dut, bench)


@pytest.mark.parametrize("when", range(25))
def test_soft_reset_at_any_time(when):
    """Before, while and after a program starts: all units see a reset, and the next program runs to its end."""
    machine = Machine()
    dut = machine.dut

    async def bench(ctx):
        await machine.tick(ctx, start=1)
        for _ in range(when):
            await machine.tick(ctx)
        machine.busy_bus = when % 3
        await machine.tick(ctx, soft_reset=1)
        seen = 0
        while ctx.get(dut.busy):
            seen += machine.way[0]
            await machine.tick(ctx)
        assert seen >= 2
        machine.launches.clear()
        await machine.tick(ctx, start=1)
        await machine.until(ctx, "running")
        ctx.set(dut.finished, 1)
        await machine.tick(ctx)
        ctx.set(dut.finished, 0)
        await machine.until(ctx, "busy", 0)
        assert ctx.get(dut.done) and ctx.get(dut.irq) and not ctx.get(dut.error)
        assert machine.launches == [(0, False, 0)]

    simulate(dut, bench)


@pytest.mark.parametrize("limit", [0, 1, 50])
def test_watchdog(limit):
    """Progress, however rare, keeps the program alive; ``limit`` cycles without stop it."""
    machine = Machine()
    dut = machine.dut
    rng = np.random.default_rng(limit)

    async def bench(ctx):
        ctx.set(dut.watchdog_limit, limit)
        ctx.set(dut.index, 9)
        ctx.set(dut.progress, 1)
        await machine.tick(ctx, start=1)
        await machine.until(ctx, "running")
        for _ in range(10):
            for idle in (limit - 1, int(rng.integers(limit)) if limit else 300, 0):
                ctx.set(dut.progress, 0)
                for _ in range(idle):
                    await machine.tick(ctx)
                ctx.set(dut.progress, 1)
                await machine.tick(ctx)
                assert ctx.get(dut.running)
        ctx.set(dut.progress, 0)
        if limit:
            assert limit <= await machine.until(ctx, "error") <= limit + 4
            assert (ctx.get(dut.error_code), ctx.get(dut.error_command)) == (ErrorCode.WATCHDOG, 9)

    simulate(dut, bench)
