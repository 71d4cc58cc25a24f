"""cocotb tests of the control plane against cocotbext-axi; run by test_control_cocotb.py, once for each STALL."""

import os
import random

import cocotb
import numpy as np
from cocotb.triggers import ClockCycles, RisingEdge
from cocotbext.axi import AxiResp

from edgemoe_hw.spec import regs
from edgemoe_hw.spec.config import AcceleratorConfig
from edgemoe_hw.spec.isa import Base, Engine, Header, LayerNorm, Load, MatMul, Memory, Store, waits
from support.axi_bench import AxiBench, pauses
from support.control_bench import assemble, loaded, stored

CONFIG = AcceleratorConfig.from_json(os.environ["CONFIG"])
MASTERS = CONFIG.load_masters("RESIDUAL")
STALL = float(os.environ["STALL"])
PROGRAM, WEIGHTS, OUTPUT, BYTES = 0x0, 0x4000, 0x1_8000, 0x2_0000


class Bench(AxiBench):
    """The control plane with pauses on its memories too."""

    def __init__(self, dut):
        super().__init__(dut, CONFIG, STALL, BYTES)
        if STALL:
            cocotb.start_soon(self._stall_memories())

    async def _stall_memories(self):
        for value in pauses(self.seed - 1, STALL):
            await RisingEdge(self.dut.clk)
            self.dut.memory_stall.value = int(value)

    async def reset(self):
        self.dut.memory_stall.value = 0
        await super().reset()

    async def run(self, program: np.ndarray, **registers: int):
        self.fill(PROGRAM, program)
        bases = {"BASE_WEIGHTS": WEIGHTS, "BASE_OUTPUT": OUTPUT}
        await self.start(PROGRAM, len(program) // 64, **bases, WATCHDOG=3000, **registers)


def load(**fields):
    return Load(**{"plane_stride": 0x800, "rows": 1} | fields), Header()


def store(loads: int, **fields):
    return Store(base=Base.OUTPUT, **fields), Header(waits=waits({Engine.LOAD: loads}))


async def copy(bench: Bench, rows: int, row: int, offset: int):
    """A program that copies residual rows through the accelerator; checks code and data."""
    command = load(memory=Memory.RESIDUAL, rows=rows, row=row, offset=offset)
    await bench.run(
        assemble(
            CONFIG,
            [
                load(memory=Memory.ACTIVATION),
                command,
                load(memory=Memory.NORM, rows=3),
                store(3, rows=rows, row=row, offset=0x40),
            ],
        )
    )
    assert await bench.finish() == (regs.ErrorCode.NONE, 0)
    dram = bench.dram()
    slices = [
        np.concatenate(
            [
                np.zeros((row, 2 * CONFIG.epilogue_lanes // MASTERS), np.uint8),
                loaded(CONFIG, dram, command[0], WEIGHTS, master),
            ]
        )
        for master in range(MASTERS)
    ]
    expected = stored(CONFIG, slices, row, rows)
    assert np.array_equal(dram[OUTPUT + 0x40 :][: len(expected)], expected)


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
async def skipped_commands(dut):
    """Predicated commands of every engine: those of expert 0, which has no tokens, move nothing, and all count."""
    bench = Bench(dut)
    await bench.reset()
    count = 40
    chosen = [random.randrange(4) for _ in range(count)]
    body = [load(memory=Memory.RESIDUAL, rows=count)]
    for number, expert in enumerate(chosen):
        header = Header(predicated=True, expert=expert, waits=waits({Engine.LOAD: 1}))
        body += [
            (Load(memory=Memory.ACT, rows=3), header),
            (MatMul(tokens=5), header),
            (LayerNorm(tokens=3), header),
            (Store(base=Base.OUTPUT, offset=64 * number, row=number, rows=1), header),
        ]
    before = bench.dram()
    await bench.run(assemble(CONFIG, body))
    assert await bench.finish() == (regs.ErrorCode.NONE, 0)
    row = 2 * CONFIG.epilogue_lanes
    slices = [loaded(CONFIG, before, body[0][0], WEIGHTS, master) for master in range(MASTERS)]
    after = bench.dram()
    for number, expert in enumerate(chosen):
        place = OUTPUT + 64 * number
        expected = before[place : place + row] if expert == 0 else stored(CONFIG, slices, number, 1)
        assert np.array_equal(after[place : place + row], expected), number
    for engine in Engine:
        assert await bench.read(f"DONE_{engine.name}") == count + (engine is Engine.LOAD)
    assert await bench.read("ARRAY_BUSY") == 5 * sum(expert > 0 for expert in chosen)


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
        await bench.run(program)
        assert await bench.finish() == (code, command)
    await copy(bench, 10, 0, 0)


@cocotb.test()
async def regions(dut):
    """A load and a store that leave their regions name their command; nothing is written, and the next program runs."""
    bench = Bench(dut)
    await bench.reset()
    sizes = {"SIZE_WEIGHTS": 0x1000, "SIZE_OUTPUT": 0x100}
    row = 2 * CONFIG.epilogue_lanes
    for command in (
        load(memory=Memory.RESIDUAL, offset=0x1000 - CONFIG.axi_bytes, rows=2),
        store(0, rows=0x100 // row + 1),
        store(0, rows=1, offset=0xFFFF_FF00),
    ):
        body = [load(memory=Memory.ACTIVATION, rows=8), command, store(0, rows=1)]
        before = bench.dram().copy()
        await bench.run(assemble(CONFIG, body), **sizes)
        assert await bench.finish() == (regs.ErrorCode.REGION, 2)
        await bench.soft_reset()
        assert np.array_equal(bench.dram()[WEIGHTS:], before[WEIGHTS:])
        await copy(bench, 10, 1, 0)


@cocotb.test()
async def bus_errors(dut):
    """A load and a store beyond the memory name their command; a soft reset makes the accelerator usable."""
    bench = Bench(dut)
    await bench.reset()
    far = {"offset": 0x4000_0000}
    for command, code in (
        (load(memory=Memory.WEIGHT, rows=16, **far), regs.ErrorCode.READ_BUS),
        (store(1, rows=50, **far), regs.ErrorCode.WRITE_BUS),
    ):
        await bench.run(assemble(CONFIG, [load(memory=Memory.ACT), command, load(memory=Memory.WEIGHT, rows=16)]))
        assert await bench.finish() == (code, 2)
        await bench.soft_reset()
        await copy(bench, 20, 3, 0x100)


@cocotb.test()
async def soft_resets(dut):
    """At any time, and out of a wait that never ends (the watchdog)."""
    bench = Bench(dut)
    await bench.reset()
    for cycles in (10, 60, 150, 333):
        await bench.run(assemble(CONFIG, [store(0, rows=60), load(memory=Memory.WEIGHT, rows=16)] * 3))
        await ClockCycles(dut.clk, cycles)
        await bench.soft_reset()
        await copy(bench, 8, cycles % 7, 0)
    await bench.run(assemble(CONFIG, [(MatMul(), Header(waits=waits({Engine.STORE: 1})))]))
    assert (await bench.finish())[0] is regs.ErrorCode.WATCHDOG
    await copy(bench, 8, 0, 0)
