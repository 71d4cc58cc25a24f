"""What the cocotb benches of AXI designs share: an AXI-Lite master, one RAM for all masters, pauses on all channels."""

import itertools
import logging
import random
from collections.abc import Iterator

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, RisingEdge, with_timeout
from cocotbext.axi import AxiBus, AxiLiteBus, AxiLiteMaster, AxiRam

from edgemoe_hw.spec import regs
from edgemoe_hw.spec.config import AcceleratorConfig
from edgemoe_hw.spec.constants import SIZE_BITS
from edgemoe_hw.spec.isa import Base

__all__ = ["AxiBench", "pauses"]


def pauses(seed: int, stall: float) -> Iterator[bool]:
    """Endless pause pattern of one channel."""
    generator = random.Random(seed)
    return (generator.random() < stall for _ in itertools.count())


def refuse_beyond(ram: AxiRam, size: int) -> None:
    """Answer accesses beyond the RAM with SLVERR; by itself it wraps around."""

    def checked(access):
        async def access_if_mapped(address, *arguments):
            if address >= size:
                raise IndexError(address)
            return await access(address, *arguments)

        return access_if_mapped

    ram.read_if._read = checked(ram.read_if._read)
    ram.write_if._write = checked(ram.write_if._write)


class AxiBench:
    """The design with an AXI-Lite master and ``size`` bytes of RAM, shared by all its masters.

    ``stall``: probability that a channel pauses in a cycle; ``seed`` begins the seeds of all patterns.
    """

    memory_port = "m{}_axi"  # name of a memory port, by its number

    def __init__(self, dut, config: AcceleratorConfig, stall: float, size: int):
        self.dut, self.size = dut, size
        self.seed = random.randrange(1 << 30)
        for logger in ("edgemoe", "cocotb.edgemoe"):
            logging.getLogger(logger).setLevel(logging.WARNING)
        cocotb.start_soon(Clock(dut.clk, 10, unit="ns").start())
        self.registers = self.control_master()
        self.rams: list[AxiRam] = []
        for master in range(config.axi_masters):
            mem = self.rams[0].mem if self.rams else None
            bus = AxiBus.from_prefix(dut, self.memory_port.format(master))
            self.rams.append(AxiRam(bus, dut.clk, dut.rst, size=size, **({"mem": mem} if mem else {})))
            refuse_beyond(self.rams[-1], size)
        channels = []
        for side in (self.registers, *self.rams):
            channels += [
                side.write_if.aw_channel,
                side.write_if.w_channel,
                side.write_if.b_channel,
                side.read_if.ar_channel,
                side.read_if.r_channel,
            ]
        if stall:
            for number, channel in enumerate(channels):
                channel.set_pause_generator(pauses(self.seed + number, stall))

    def control_master(self) -> AxiLiteMaster:
        """What reads and writes registers, by ``read_dword`` and ``write_dword``."""
        return AxiLiteMaster(AxiLiteBus.from_prefix(self.dut, "s_axi"), self.dut.clk, self.dut.rst)

    async def reset(self) -> None:
        """Reset the design; the RAM holds noise afterwards."""
        self.dut.rst.value = 1
        await ClockCycles(self.dut.clk, 4)
        self.dut.rst.value = 0
        await ClockCycles(self.dut.clk, 2)
        self.fill(0, np.frombuffer(random.randbytes(self.size), np.uint8))

    def fill(self, address: int, values: np.ndarray) -> None:
        self.rams[0].write(address, values.tobytes())

    def dram(self) -> np.ndarray:
        return np.frombuffer(self.rams[0].read(0, self.size), np.uint8)

    async def read(self, name: str) -> int:
        register = regs.find(name)
        words = [await self.registers.read_dword(register.offset + 4 * i) for i in range(register.words)]
        return sum(word << 32 * i for i, word in enumerate(words))

    async def write(self, name: str, value: int) -> None:
        register = regs.find(name)
        for i in range(register.words):
            await self.registers.write_dword(register.offset + 4 * i, value >> 32 * i & 0xFFFF_FFFF)

    async def start(self, address: int, commands: int, **registers: int) -> None:
        """Start the program at ``address`` with the interrupt enabled.

        ``registers`` are written before; regions of DRAM are unlimited unless their sizes are among them.
        """
        sizes = {f"SIZE_{base.name}": (1 << SIZE_BITS) - 1 for base in Base}
        for name, value in {"PROGRAM_ADDR": address, "PROGRAM_COMMANDS": commands, **sizes, **registers}.items():
            await self.write(name, value)
        await self.write("CONTROL", 0b101)

    async def finish(self, microseconds: int = 500) -> tuple[regs.ErrorCode, int]:
        """Wait for the interrupt and acknowledge it; returns ERROR_CODE and ERROR_COMMAND."""
        if not self.dut.irq.value:
            await with_timeout(RisingEdge(self.dut.irq), microseconds, "us")
        await self.write("STATUS", 1 << 3)
        await ClockCycles(self.dut.clk, 2)
        assert not self.dut.irq.value
        code = regs.ErrorCode(await self.read("ERROR_CODE"))
        assert (await self.read("STATUS") >> 1 & 3) == (1 if code is regs.ErrorCode.NONE else 2)
        return code, await self.read("ERROR_COMMAND")

    async def soft_reset(self) -> None:
        await self.write("CONTROL", 0b010)
        for _ in range(500):
            if await self.read("STATUS") == 0:
                return
        raise AssertionError("still busy after a soft reset")
