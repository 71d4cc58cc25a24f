"""On-chip memories, each one read port and one write port, as block RAM has."""

from amaranth import Cat, Module, Mux, Signal, unsigned
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In
from amaranth.utils import ceil_log2, exact_log2

from edgemoe_hw.ports import LoadPort, MemoryRead, MemoryWrite, StationaryWrite
from edgemoe_hw.primitives.arithmetic import truncate
from edgemoe_hw.primitives.delay import copies
from edgemoe_hw.primitives.memory import read_memory
from edgemoe_hw.spec.config import AcceleratorConfig
from edgemoe_hw.spec.constants import ROW_BITS
from edgemoe_hw.spec.timing import WEIGHT_READ

__all__ = ["SlicedMemory", "WeightScratchpad"]

_ADDRESS_BANKS = 8
"""Banks of the weight scratchpad that share a copy of the address."""


class SlicedMemory(wiring.Component):
    """A memory whose rows are shared by ``masters`` loaders; the compute side's writes have priority.

    Args:
        depth: rows
        row_bytes: bytes a row; a multiple of masters * axi_bytes
        masters, axi_bytes: loaders and the bytes of one of their beats
        read_cycles: of the compute-side read

    Members:
        read: compute-side read
        write: compute-side write, a mask bit a byte
        load: one LoadPort a master
    """

    def __init__(self, depth: int, row_bytes: int, masters: int, axi_bytes: int, *, read_cycles: int = 1):
        if row_bytes % (masters * axi_bytes):
            raise ValueError(f"row_bytes must be a multiple of {masters * axi_bytes}, not {row_bytes!r}")
        self._depth, self._masters, self._axi_bytes = depth, masters, axi_bytes
        self._slice_bytes, self._read_cycles = row_bytes // masters, read_cycles
        super().__init__(
            {
                "read": In(MemoryRead(row_bytes * 8)),
                "write": In(MemoryWrite(row_bytes * 8, row_bytes)),
                "load": In(LoadPort(axi_bytes)).array(masters),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        beats = self._slice_bytes // self._axi_bytes
        for master in range(self._masters):
            memory = Memory(shape=unsigned(self._slice_bytes * 8), depth=self._depth, init=[])
            m.submodules[f"slice_{master}"] = memory
            write = memory.write_port(granularity=8)
            row = truncate(self.read.row, len(write.addr))
            load = self.load[master]
            part = slice(master * self._slice_bytes, (master + 1) * self._slice_bytes)
            bits = slice(part.start * 8, part.stop * 8)
            m.d.comb += [
                self.read.data[bits].eq(read_memory(m, memory, row, self._read_cycles, f"slice_{master}")),
                load.ready.eq(~self.write.valid),
            ]
            with m.If(self.write.valid):
                m.d.comb += [
                    write.addr.eq(truncate(self.write.row, len(write.addr))),
                    write.en.eq(self.write.mask[part]),
                    write.data.eq(self.write.data[bits]),
                ]
            with m.Else():
                select = load.beat[: exact_log2(beats)]
                m.d.comb += [
                    write.addr.eq(truncate(load.row, len(write.addr))),
                    write.data.eq(load.data.replicate(beats)),
                    write.en.eq(
                        Cat(((select == beat) & load.valid).replicate(self._axi_bytes) for beat in range(beats))
                    ),
                ]
        return m


class WeightScratchpad(wiring.Component):
    """Stationary operands: ``lanes_n`` banks of ``lanes_k`` bytes a row, for weights, keys and values.

    Keys and values are written by the epilogue (``kv``, before the loaders): a key's channels are bytes of one
    bank, a value's channels are one byte each in neighbouring banks, so that both are stationary rows afterwards.

    Members:
        read: lanes_n x lanes_k x int8, flat, because wide views make huge Verilog; in WEIGHT_READ cycles
        kv: a group of a key or of a value
        load: one LoadPort a master; master m owns bytes [m * lanes_k / M, (m + 1) * lanes_k / M) of each bank, and its
            beats run over the banks
    """

    def __init__(self, config: AcceleratorConfig):
        self._config = config
        super().__init__(
            {
                "read": In(MemoryRead(config.lanes_n * config.lanes_k * 8)),
                "kv": In(StationaryWrite(config)),
                "load": In(LoadPort(config.axi_bytes)).array(config.axi_masters),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self._config
        slice_bytes = config.lanes_k // config.axi_masters
        parts = slice_bytes // config.axi_bytes
        shift = exact_log2(parts)
        values = self.kv.data.as_value()
        for master in range(config.axi_masters):
            load = self.load[master]
            start = master * slice_bytes
            m.d.comb += load.ready.eq(~self.kv.valid)

            # Address, data and byte masks are the same for many banks; only the enables differ.
            address = Signal(ROW_BITS, name=f"address_{master}")
            m.d.comb += address.eq(Mux(self.kv.valid, self.kv.row, load.row))
            if slice_bytes >= config.epilogue_lanes:
                key_row = values.replicate(slice_bytes // config.epilogue_lanes)
            else:  # a slice narrower than a group holds a part of it
                offset = start % config.epilogue_lanes
                key_row = values[offset * 8 : (offset + slice_bytes) * 8]
            write_rows = []
            for lane in range(config.epilogue_lanes):
                write_row = Signal(slice_bytes * 8, name=f"write_row_{master}_{lane}")
                value_row = values.word_select(lane, 8).replicate(slice_bytes)
                with m.If(~self.kv.valid):
                    m.d.comb += write_row.eq(load.data.replicate(parts))
                with m.Elif(self.kv.is_value):
                    m.d.comb += write_row.eq(value_row)
                with m.Else():
                    m.d.comb += write_row.eq(key_row)
                write_rows.append(write_row)
            part_mask = Signal(slice_bytes, name=f"part_mask_{master}")
            part = load.beat[:shift]
            with m.If(self.kv.valid):
                m.d.comb += part_mask.eq(self.kv.bytes[start : start + slice_bytes])
            with m.Else():
                m.d.comb += part_mask.eq(Cat((part == index).replicate(config.axi_bytes) for index in range(parts)))

            # One register cannot drive the addresses of hundreds of block RAMs: a copy for a few banks.
            row = truncate(self.read.row, ceil_log2(config.weight_depth))
            rows = copies(m, row, -(-config.lanes_n // _ADDRESS_BANKS), f"read_row_{master}")
            for bank in range(config.lanes_n):
                memory = Memory(shape=unsigned(slice_bytes * 8), depth=config.weight_depth, init=[])
                m.submodules[f"bank_{bank}_{master}"] = memory
                write = memory.write_port(granularity=8)
                first_bit = (bank * config.lanes_k + start) * 8
                hit = Signal(name=f"hit_{bank}_{master}")
                m.d.comb += [
                    self.read.data[first_bit : first_bit + slice_bytes * 8].eq(
                        read_memory(m, memory, rows[bank // _ADDRESS_BANKS], WEIGHT_READ - 1, f"bank_{bank}_{master}")
                    ),
                    hit.eq(Mux(self.kv.valid, self.kv.banks[bank], load.valid & (load.beat[shift:] == bank))),
                    write.addr.eq(truncate(address, len(write.addr))),
                    write.data.eq(write_rows[bank % config.epilogue_lanes]),
                    write.en.eq(part_mask & hit.replicate(slice_bytes)),
                ]
        return m
