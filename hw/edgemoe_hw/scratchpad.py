"""On-chip memories, each one read port and one write port, as block RAM has."""

from amaranth import Cat, Module, Mux, Signal, Value, unsigned
from amaranth.lib import wiring
from amaranth.lib.memory import WritePort
from amaranth.lib.wiring import In
from amaranth.utils import ceil_log2, exact_log2

from edgemoe_hw.ports import LoadPort, MemoryRead, MemoryWrite, StationaryWrite
from edgemoe_hw.primitives.arithmetic import truncate
from edgemoe_hw.primitives.delay import copies
from edgemoe_hw.primitives.memory import memory_parts, read_memory, read_parts, styled_memory
from edgemoe_hw.spec.config import AcceleratorConfig
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
        style: which kind of memory, as Vivado and Yosys name it (``ram_style``); "auto": what they choose

    Members:
        read: compute-side read
        write: compute-side write, a mask bit a byte
        load: one LoadPort a master
    """

    def __init__(
        self, depth: int, row_bytes: int, masters: int, axi_bytes: int, *, read_cycles: int = 1, style: str = "auto"
    ):
        if row_bytes % (masters * axi_bytes):
            raise ValueError(f"row_bytes must be a multiple of {masters * axi_bytes}, not {row_bytes!r}")
        self._depth, self._masters, self._axi_bytes = depth, masters, axi_bytes
        self._slice_bytes, self._read_cycles, self._style = row_bytes // masters, read_cycles, style
        super().__init__(
            {
                "read": In(MemoryRead(row_bytes * 8)),
                "write": In(MemoryWrite(row_bytes * 8, row_bytes)),
                "load": In(LoadPort(axi_bytes)).array(masters),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        parts = memory_parts(self._depth, self._style)
        for master in range(self._masters):
            name = f"slice_{master}"
            memories = [styled_memory(unsigned(self._slice_bytes * 8), len(rows), self._style) for rows in parts]
            part = slice(master * self._slice_bytes, (master + 1) * self._slice_bytes)
            bits = slice(part.start * 8, part.stop * 8)
            for number, memory in enumerate(memories):
                m.submodules[name if number == 0 else f"{name}_last"] = memory
                write = memory.write_port(granularity=8)
                self._writes(m, write, master, number)
            rows = [truncate(self.read.row, ceil_log2(memory.depth)) for memory in memories]
            in_last = self._in_last(self.read.row)
            found = read_parts(m, memories, rows, in_last, self._read_cycles, name)
            m.d.comb += [self.read.data[bits].eq(found), self.load[master].ready.eq(~self.write.valid)]
        return m

    def _in_last(self, row: Value) -> Value:
        """Whether a row lies in the second of ``memory_parts``."""
        start = memory_parts(self._depth, self._style)[-1].start
        low = exact_log2(start & -start) if start else 0
        return row[low : ceil_log2(self._depth)] == start >> low if start else Value.cast(0)

    def _writes(self, m: Module, write: WritePort.Signature, master: int, number: int) -> None:
        """What the compute side and a loader write to one of ``memory_parts``."""
        load, beats = self.load[master], self._slice_bytes // self._axi_bytes
        part = slice(master * self._slice_bytes, (master + 1) * self._slice_bytes)
        split = len(memory_parts(self._depth, self._style)) > 1

        def own(enables: Value, row: Value) -> Value:
            mine = self._in_last(row) if number else ~self._in_last(row)
            return enables & mine.replicate(len(enables)) if split else enables

        with m.If(self.write.valid):
            m.d.comb += [
                write.addr.eq(truncate(self.write.row, len(write.addr))),
                write.en.eq(own(self.write.mask[part], self.write.row)),
                write.data.eq(self.write.data[part.start * 8 : part.stop * 8]),
            ]
        with m.Else():
            select = load.beat[: exact_log2(beats)]
            enables = Cat(((select == beat) & load.valid).replicate(self._axi_bytes) for beat in range(beats))
            m.d.comb += [
                write.addr.eq(truncate(load.row, len(write.addr))),
                write.data.eq(load.data.replicate(beats)),
                write.en.eq(own(enables, load.row)),
            ]


class WeightScratchpad(wiring.Component):
    """Stationary operands: ``lanes_n`` banks of ``lanes_k`` bytes a row, for weights, keys and values.

    Keys and values are written by the epilogue (``kv``, before the loaders): a key's channels are bytes of one
    bank, a value's channels are one byte each in neighbouring banks, so that both are stationary rows afterwards.
    What is written passes a register, so a read finds it WEIGHT_WRITE cycles after ``valid``.

    Members:
        read: lanes_n x lanes_k x int8, flat, because wide views make huge Verilog; in WEIGHT_READ cycles
        kv: a group of a key or of a value
        load: one LoadPort a master; master m owns the banks from m * lanes_n / M on, and its beats run over them
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
        for master in range(self._config.axi_masters):
            self._banks(m, master)
        return m

    def _banks(self, m: Module, master: int) -> None:
        """The banks of one master, and the registers before them.

        A register drives the banks of its master at most; row numbers have a register for a few banks, and what
        chooses a bank's data has one a bank.
        """
        config, load, kv = self._config, self.load[master], self.kv
        parts = config.lanes_k // config.axi_bytes  # beats of a bank's row
        period = max(config.axi_bytes, config.epilogue_lanes)  # bytes after which what is written repeats itself
        shift = exact_log2(parts)
        values = kv.data.as_value()

        # A bank takes its lane of a value in every byte, or what is the same for all banks: a key, or a beat.
        value = Signal(8 * config.epilogue_lanes, name=f"value_{master}", attrs={"keep": "true"}, reset_less=True)
        common = Signal(8 * period, name=f"common_{master}", reset_less=True)
        part_mask = Signal(config.lanes_k, name=f"part_mask_{master}")
        m.d.comb += load.ready.eq(~kv.valid)
        m.d.sync += value.eq(values)
        with m.If(kv.valid):
            m.d.sync += [common.eq(values.replicate(period // config.epilogue_lanes)), part_mask.eq(kv.bytes)]
        with m.Else():
            m.d.sync += [
                common.eq(load.data.replicate(period // config.axi_bytes)),
                part_mask.eq(Cat((load.beat[:shift] == part).replicate(config.axi_bytes) for part in range(parts))),
            ]

        count = config.lanes_n // config.axi_masters
        depth_bits = ceil_log2(config.weight_depth)
        # One register cannot drive the addresses of hundreds of block RAMs: a copy for a few banks.
        read_rows = copies(m, truncate(self.read.row, depth_bits), -(-count // _ADDRESS_BANKS), f"read_row_{master}")
        write_row = truncate(Mux(kv.valid, kv.row, load.row), depth_bits)
        write_rows = copies(m, write_row, len(read_rows), f"write_row_{master}")
        for index in range(count):
            bank = master * count + index
            style = "block" if config.ultra_ram else "auto"  # UltraRAM is for the others
            memory = styled_memory(unsigned(config.lanes_k * 8), config.weight_depth, style)
            m.submodules[f"bank_{bank}"] = memory
            write = memory.write_port(granularity=8)
            read_row = read_rows[index // _ADDRESS_BANKS]
            is_value = Signal(name=f"is_value_{bank}", attrs={"keep": "true"}, reset_less=True)
            hit = Signal(name=f"hit_{bank}")
            m.d.sync += [
                is_value.eq(kv.valid & kv.is_value),
                hit.eq(Mux(kv.valid, kv.banks[bank], load.valid & (load.beat[shift:] == index))),
            ]
            of_lane = value.word_select(bank % config.epilogue_lanes, 8).replicate(period)
            bits = slice(bank * config.lanes_k * 8, (bank + 1) * config.lanes_k * 8)
            m.d.comb += [
                self.read.data[bits].eq(read_memory(m, memory, read_row, WEIGHT_READ - 1, f"bank_{bank}")),
                write.addr.eq(write_rows[index // _ADDRESS_BANKS]),
                write.data.eq(Mux(is_value, of_lane, common).replicate(config.lanes_k // period)),
                write.en.eq(part_mask & hit.replicate(config.lanes_k)),
            ]
