"""cocotb tests of the accelerator at a Zynq-7000's AXI3 ports; run by test_zynq7_cocotb.py, once for each STALL."""

import cocotb
import numpy as np
from cocotb.triggers import ClockCycles, RisingEdge
from cocotbext.axi import AxiBurstType, AxiBus, AxiMaster

from edgemoe_hw.spec import regs
from support.network_bench import NetworkBench

_ID_BITS = 12
_GP0 = 0x4000_0000  # the port's window in the processing system
_BURST = 16


class Bench(NetworkBench):
    """AXI3 where the processing system has it: 16 beats a burst, 12-bit IDs on the registers' side."""

    memory_port = "hp{}"

    def __init__(self, dut):
        super().__init__(dut)
        self.longest = 0
        for index in range(self.bundle.config.axi_masters):
            for channel in ("ar", "aw"):
                cocotb.start_soon(self._watch(f"hp{index}_{channel}"))

    def control_master(self):
        return AxiMaster(AxiBus.from_prefix(self.dut, "gp0"), self.dut.clk, self.dut.rst, max_burst_len=_BURST)

    async def _watch(self, channel: str):
        """Every burst is one that the port takes: aligned, incrementing, whole words, within 4 KiB."""
        size = self.bundle.config.axi_bytes
        valid, ready = (getattr(self.dut, f"{channel}{pin}") for pin in ("valid", "ready"))
        while True:
            await RisingEdge(self.dut.clk)
            if valid.value and ready.value:
                address, beats = (int(getattr(self.dut, f"{channel}{pin}").value) for pin in ("addr", "len"))
                self.longest = max(self.longest, beats + 1)
                assert address % size == 0 and (address % 4096) + (beats + 1) * size <= 4096
                for pin, wanted in {"id": 0, "burst": 1, "lock": 0, "qos": 0, "size": size.bit_length() - 1}.items():
                    assert int(getattr(self.dut, f"{channel}{pin}").value) == wanted, pin


@cocotb.test()
async def inferences(dut):
    """Every task, registers in the lowest page of GP0's window."""
    bench = Bench(dut)
    await bench.reset()
    assert await bench.read("CONFIG_HASH") == bench.bundle.config.hash32
    for number, task in enumerate(bench.bundle.tasks):
        await bench.infer(task, number)
    assert bench.longest == _BURST


@cocotb.test()
async def registers_as_a_processor_reads_them(dut):
    """Bursts of every length and kind, narrow accesses, all IDs, at the window's base and beyond the registers."""
    bench = Bench(dut)
    await bench.reset()
    bus, first = bench.registers, regs.find("PROGRAM_ADDR").offset
    words = np.array([0x0400, 0x15], "<u4")  # an address of 40 bits
    await bus.write(_GP0 + first, words.tobytes())  # one burst
    for beats in (1, 2):
        assert (await bus.read(_GP0 + first, 4 * beats)).data == words[:beats].tobytes()
    whole = await bus.read(_GP0, 64 * 4)  # bursts of 16
    for word in range(64):
        alone = await bus.read(_GP0 + 4 * word, 4)
        assert alone.data == whole.data[4 * word :][:4]
    for ident in (0, 1, 0xABC, (1 << _ID_BITS) - 1):
        assert (await bus.read(_GP0 + first, 4, arid=ident)).data == words[:1].tobytes()
        await bus.write(_GP0 + first, words[:1].tobytes(), awid=ident)
    await bus.write(_GP0 + first + 1, b"\x7f")  # a byte: strobes
    assert await bus.read_dword(_GP0 + first) == 0x7F00
    fixed = await bus.read(_GP0 + first, 12, burst=AxiBurstType.FIXED)
    assert fixed.data == (0x7F00).to_bytes(4, "little") * 3
    for beyond in (1 << regs.ADDRESS_BITS, 0x0200_0000, 0x3FFF_FFC0):
        await bus.write(_GP0 + beyond + first, b"\xff" * 8)
        assert (await bus.read(_GP0 + beyond + first, 8)).data == bytes(8)
    assert await bus.read_dword(_GP0 + first) == 0x7F00


@cocotb.test()
async def reads_and_writes_at_once(dut):
    """Two processors: neither waits for ever, and each gets its own answers."""
    bench = Bench(dut)
    await bench.reset()
    bus, place = bench.registers, _GP0 + regs.find("WATCHDOG").offset
    reads = [cocotb.start_soon(bus.read(_GP0 + regs.find("CONFIG_HASH").offset, 4)) for _ in range(20)]
    writes = [cocotb.start_soon(bus.write(place, number.to_bytes(4, "little"))) for number in range(20)]
    for read in reads:
        assert int.from_bytes((await read).data, "little") == bench.bundle.config.hash32
    for write in writes:
        await write
    await ClockCycles(dut.clk, 5)
    assert await bus.read_dword(place) == 19
