"""cocotb tests of the control plane against cocotbext-axi; run by test_control_cocotb.py, once for each STALL."""

import itertools
import logging
import os
import random

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, RisingEdge, with_timeout
from cocotbext.axi import AxiBus, AxiLiteBus, AxiLiteMaster, AxiRam, AxiResp

from edgemoe_hw import regs
from edgemoe_hw.config import AcceleratorConfig
from edgemoe_hw.isa import Base, Memory, Opcode
from edgemoe_sim.control_bench import assemble, loaded, stored

CONFIG = AcceleratorConfig.from_json(os.environ["CONFIG"])
STALL = float(os.environ["STALL"])
PROGRAM, WEIGHTS, OUTPUT, BYTES = 0x0, 0x4000, 0x1_8000, 0x2_0000


def pauses(seed: int):
    """Endless pause pattern of one channel."""
    generator = random.Random(seed)
    return (generator.random() < STALL for _ in itertools.count())


def refuse_beyond(ram: AxiRam) -> None:
    """Answer accesses beyond the RAM with SLVERR; by itself it wraps around."""
    def checked(access):
        async def access_if_mapped(address, *arguments):
            if address >= BYTES:
                raise IndexError(address)
            return await access(address, *arguments)
        return access_if_mapped

    ram.read_if._read = checked(ram.read_if._read)
    ram.write_if._write = checked(ram.write_if._write)


class Bench:
    """The design with an AXI-Lite master and one RAM, shared by all masters."""

    def __init__(self, dut):
        self.dut = dut
        for logger in ("edgemoe", "cocotb.edgemoe"):
            logging.getLogger(logger).setLevel(logging.WARNING)
        cocotb.start_soon(Clock(dut.clk, 10, unit="ns").start())
        self.registers = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "s_axi"), dut.clk, dut.rst)
        self.rams = []
        for master in range(CONFIG.axi_masters):
            mem = self.rams[0].mem if self.rams else None
            bus = AxiBus.from_prefix(dut, f"m{master}_axi")
            self.rams.append(AxiRam(bus, dut.clk, dut.rst, size=BYTES, **({"mem": mem} if mem else {})))
            refuse_beyond(self.rams[-1])
        seed = random.randrange(1 << 30)
        channels = [self.registers.write_if.aw_channel, self.registers.write_if.w_channel,
                    self.registers.write_if.b_channel, self.registers.read_if.ar_channel,
                    self.registers.read_if.r_channel]
        for ram in self.rams:
            channels += [ram.write_if.aw_channel, ram.write_if.w_channel, ram.write_if.b_channel,
                         ram.read_if.ar_channel, ram.read_if.r_channel]
        if STALL:
            for number, channel in enumerate(channels):
                channel.set_pause_generator(pauses(seed + number))
            cocotb.start_soon(self._stall_memories(seed))

    async def _stall_memories(self, seed: int):
        for value in pauses(seed - 1):
            await RisingEdge(self.dut.clk)
            self.dut.memory_stall.value = int(value)

    async def reset(self):
        self.dut.memory_stall.value = 0
        self.dut.rst.value = 1
        await ClockCycles(self.dut.clk, 4)
        self.dut.rst.value = 0
        await ClockCycles(self.dut.clk, 2)
        self.fill(0, np.frombuffer(random.randbytes(BYTES), np.uint8))

    def fill(self, address: int, values: np.ndarray):
        self.rams[0].write(address, values.tobytes())

    def dram(self) -> np.ndarray:
        return np.frombuffer(self.rams[0].read(0, BYTES), np.uint8)

    async def read(self, name: str) -> int:
        register = regs.find(name)
        words = [await self.registers.read_dword(register.offset + 4 * i) for i in range(register.words)]
        return sum(word << 32 * i for i, word in enumerate(words))

    async def write(self, name: str, value: int):
        register = regs.find(name)
        for i in range(register.words):
            await self.registers.write_dword(register.offset + 4 * i, value >> 32 * i & 0xFFFF_FFFF)

    async def start(self, program: np.ndarray):
        self.fill(PROGRAM, program)
        for name, value in (("PROGRAM_ADDR", PROGRAM), ("PROGRAM_COMMANDS", len(program) // 64),
                            ("BASE_WEIGHTS", WEIGHTS), ("BASE_OUTPUT", OUTPUT), ("WATCHDOG", 3000)):
            await self.write(name, value)
        await self.write("CONTROL", 0b101)

    async def finish(self) -> tuple[regs.ErrorCode, int]:
        if not self.dut.irq.value:
            await with_timeout(RisingEdge(self.dut.irq), 500, "us")
        await self.write("STATUS", 1 << 3)
        await ClockCycles(self.dut.clk, 2)
        assert not self.dut.irq.value
        code = regs.ErrorCode(await self.read("ERROR_CODE"))
        assert (await self.read("STATUS") >> 1 & 3) == (1 if code is regs.ErrorCode.NONE else 2)
        return code, await self.read("ERROR_COMMAND")

    async def soft_reset(self):
        await self.write("CONTROL", 0b010)
        for _ in range(500):
            if await self.read("STATUS") == 0:
                return
        raise AssertionError("still busy after a soft reset")


def load(**fields: int):
    return Opcode.LOAD, {}, {"base": Base.WEIGHTS, "plane_stride": 0x800, "rows": 1, **fields}


def store(loads: int, **fields: int):
    return Opcode.STORE, {"wait_load": loads}, {"base": Base.OUTPUT, **fields}


async def copy(bench: Bench, rows: int, row: int, offset: int):
    """A program that copies residual rows through the accelerator; checks code and data."""
    command = load(memory=Memory.RESIDUAL, rows=rows, row=row, offset=offset)
    await bench.start(assemble(CONFIG, [load(memory=Memory.GELU), command, load(memory=Memory.NORM, rows=3),
                                        store(3, rows=rows, row=row, offset=0x40)]))
    assert await bench.finish() == (regs.ErrorCode.NONE, 0)
    dram = bench.dram()
    slices = [np.concatenate([np.zeros((row, 2 * CONFIG.epilogue_lanes // CONFIG.axi_masters), np.uint8),
                              loaded(CONFIG, dram, command[2], WEIGHTS, master)])
              for master in range(CONFIG.axi_masters)]
    expected = stored(CONFIG, slices, row, rows)
    assert np.array_equal(dram[OUTPUT + 0x40:][:len(expected)], expected)


@cocotb.test()
async def registers(dut):
    """Values survive, constants do not change, narrow writes change only their bytes, nothing is mapped twice."""
    bench = Bench(dut)
    await bench.reset()
    assert await bench.read("ID") == regs.ID
    assert await bench.read("CONFIG_HASH") == CONFIG.hash32
    values = {}
    for register in regs.REGISTERS:
        if register.fields[0].access == "rw" and register.fields[0].name == "value":
            values[register.name] = random.getrandbits(register.width)
            await bench.write(register.name, values[register.name])
    for name, value in values.items():
        assert await bench.read(name) == value, name
    address = regs.find("WATCHDOG").offset
    await bench.registers.write_byte(address + 2, 0x5A)
    assert await bench.read("WATCHDOG") == values["WATCHDOG"] & 0xFF00_FFFF | 0x5A_0000
    unmapped = await bench.registers.read(0xFF0, 4)
    assert unmapped.data == bytes(4) and unmapped.resp == AxiResp.OKAY


@cocotb.test()
async def programs(dut):
    bench = Bench(dut)
    await bench.reset()
    for rows, row, offset in ((1, 0, 0), (37, 5, 0xF90), (100, 100, 0x30)):
        await copy(bench, rows, row, offset)


@cocotb.test()
async def refused_programs(dut):
    """Wrong version, hash and opcode stop with their code and command; the next program runs."""
    bench = Bench(dut)
    await bench.reset()
    body = [load(memory=Memory.ACT)] * 4
    illegal = assemble(CONFIG, body).copy()
    illegal[3 * 64] = 9
    for program, code, command in (
        (assemble(CONFIG, body, isa_version=99), regs.ErrorCode.ISA_VERSION, 0),
        (assemble(CONFIG, body, config_hash=0), regs.ErrorCode.CONFIG_HASH, 0),
        (illegal, regs.ErrorCode.ILLEGAL_OPCODE, 3),
    ):
        await bench.start(program)
        assert await bench.finish() == (code, command)
    await copy(bench, 10, 0, 0)


@cocotb.test()
async def bus_errors(dut):
    """A load and a store beyond the memory name their command; a soft reset makes the accelerator usable."""
    bench = Bench(dut)
    await bench.reset()
    far = {"offset": 0x4000_0000}
    for command, code in ((load(memory=Memory.WEIGHT, rows=16, **far), regs.ErrorCode.READ_BUS),
                          (store(1, rows=50, **far), regs.ErrorCode.WRITE_BUS)):
        await bench.start(assemble(CONFIG, [load(memory=Memory.ACT), command, load(memory=Memory.WEIGHT, rows=16)]))
        assert await bench.finish() == (code, 2)
        await bench.soft_reset()
        await copy(bench, 20, 3, 0x100)


@cocotb.test()
async def soft_resets(dut):
    """At any time, and out of a wait that never ends (the watchdog)."""
    bench = Bench(dut)
    await bench.reset()
    for cycles in (10, 60, 150, 333):
        await bench.start(assemble(CONFIG, [store(0, rows=60), load(memory=Memory.WEIGHT, rows=16)] * 3))
        await ClockCycles(dut.clk, cycles)
        await bench.soft_reset()
        await copy(bench, 8, cycles % 7, 0)
    await bench.start(assemble(CONFIG, [(Opcode.MATMUL, {"wait_store": 1}, {})]))
    assert (await bench.finish())[0] is regs.ErrorCode.WATCHDOG
    await copy(bench, 8, 0, 0)
