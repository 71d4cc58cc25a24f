"""Drives one unit of ``UnitBench`` from a cocotb bench.

Values change at falling edges, so that what a rising edge sees is never in doubt.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, FallingEdge, Timer

__all__ = ["Unit"]


class Unit:
    """One unit's ports by the names of its members."""

    def __init__(self, dut, name: str):
        self.dut, self.name = dut, name
        for logger in ("edgemoe", "cocotb.edgemoe"):
            logging.getLogger(logger).setLevel(logging.WARNING)

    async def reset(self):
        """Start the clock, hold all of the unit's inputs at 0 and reset."""
        cocotb.start_soon(Clock(self.dut.clk, 10, unit="ns").start())
        for handle in self.dut:
            if handle._name.startswith(f"{self.name}_"):
                handle.value = 0
        self.dut.rst.value = 1
        await ClockCycles(self.dut.clk, 4)
        self.dut.rst.value = 0
        await ClockCycles(self.dut.clk, 2)
        await self.tick()

    async def tick(self, cycles: int = 1):
        for _ in range(cycles):
            await FallingEdge(self.dut.clk)

    @staticmethod
    async def settle():
        """Let the inputs of this cycle reach combinational outputs."""
        await Timer(1, "ns")

    def set(self, **values: int):
        for member, value in values.items():
            handle = getattr(self.dut, f"{self.name}_{member}")
            handle.value = int(value) & ((1 << len(handle)) - 1)

    def get(self, member: str, signed: bool = False) -> int:
        handle = getattr(self.dut, f"{self.name}_{member}")
        if len(handle) == 1:
            return int(handle.value)
        return handle.value.to_signed() if signed else handle.value.to_unsigned()

    async def stream(
        self, vectors: Sequence[Any], drive: Callable[[Any], None], *checks: tuple[int, Callable[[Any], None]]
    ):
        """Vectors in random cycles, noise of other vectors between them; each ``(latency, check)`` sees all of them."""
        due: dict[int, list[tuple[Callable[[Any], None], Any]]] = {}
        cycle = number = 0
        while number < len(vectors) or due:
            for check, vector in due.pop(cycle, ()):
                check(vector)
            if number < len(vectors) and random.random() < 0.8:
                drive(vectors[number])
                for latency, check in checks:
                    due.setdefault(cycle + latency, []).append((check, vectors[number]))
                number += 1
            else:
                drive(random.choice(vectors))
            await self.tick()
            cycle += 1
