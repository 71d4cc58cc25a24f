"""The STORE engine: residual scratchpad to DRAM."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, fifo, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from edgemoe_hw.bus.bursts import AXI4_BEATS, BEATS_BITS, BurstSplitter
from edgemoe_hw.interfaces import ERROR_REPORT, READ_REQUEST, REGIONS, queued_layout
from edgemoe_hw.layouts import Store
from edgemoe_hw.ports import SharedRead
from edgemoe_hw.primitives.arithmetic import times
from edgemoe_hw.primitives.delay import delay
from edgemoe_hw.spec import isa
from edgemoe_hw.spec.config import AcceleratorConfig
from edgemoe_hw.spec.constants import ADDRESS_BITS, COUNT_BITS, ROW_BITS, ROW_COUNT_BITS, SIZE_BITS
from edgemoe_hw.spec.regs import ErrorCode
from edgemoe_hw.spec.timing import RESIDUAL_READ

__all__ = ["DmaWrite"]

_ROWS_AHEAD = 4  # read from the scratchpad before the bus takes them

# A command's fields, and what follows from them.
_CHECKS = data.StructLayout(
    {
        "offset": SIZE_BITS,
        "base_exists": 1,
        "elsewhere": 1,
        "address": ADDRESS_BITS,
        "nothing": 1,
        "no_rows": 1,
        "outside": 1,
    }
)


class DmaWrite(wiring.Component):
    """Executes STOREs one after the other; a beat a cycle while the scratchpad is free.

    Row r of a command goes to base + offset + r * 2 * epilogue_lanes. All rows must lie in the region OUTPUT: a command
    that would write elsewhere starts no burst. A command is checked for three cycles before it starts.

    Args:
        read_cycles: from a residual row's address to its data
        burst_beats: of the longest burst

    Members:
        commands: from the STORE queue
        regions: of DRAM, by ``isa.Base``
        read: residual rows
        requests, data: to ``WritePort``; ``outstanding`` and ``failed`` come from it
        done: a STORE has finished: its last write response is there
        error: ADDRESS_RANGE, REGION or WRITE_BUS
    """

    def __init__(self, config: AcceleratorConfig, *, read_cycles: int = RESIDUAL_READ, burst_beats: int = AXI4_BEATS):
        self._config, self._burst_beats = config, burst_beats
        self._read_cycles = read_cycles
        super().__init__(
            {
                "commands": In(stream.Signature(queued_layout(Store))),
                "regions": In(REGIONS),
                "read": Out(SharedRead(16 * config.epilogue_lanes)),
                "requests": Out(stream.Signature(READ_REQUEST)),
                "data": Out(stream.Signature(data.StructLayout({"data": 8 * config.axi_bytes}))),
                "outstanding": In(8),
                "failed": In(1),
                "done": Out(1),
                "error": Out(ERROR_REPORT),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.split = split = BurstSplitter(self._config, self._burst_beats)
        wiring.connect(m, split.requests, wiring.flipped(self.requests))

        command = self.commands.payload
        store = command.payload
        row_beats = 2 * self._config.epilogue_lanes // self._config.axi_bytes
        index = Signal(COUNT_BITS)
        row = Signal(ROW_BITS)
        rows = Signal(ROW_BITS)  # not yet read
        beats = Signal(BEATS_BITS)  # not yet handed to the bus
        more = Signal()  # rows to read
        checks = self._check(m, row, rows, beats)
        code, quiet = Signal(ErrorCode), Signal()
        m.d.comb += [split.address.eq(checks.address), split.beats.eq(beats)]
        m.d.sync += quiet.eq((beats == 0) & ~split.busy & (self.outstanding == 0))
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.commands.ready.eq(1)
                m.d.sync += [
                    index.eq(command.index),
                    row.eq(store.row),
                    rows.eq(store.rows),
                    beats.eq(times(store.rows, row_beats)),
                    checks.offset.eq(store.offset),
                    checks.base_exists.eq(store.base < len(isa.Base)),
                    checks.elsewhere.eq(store.base != isa.Base.OUTPUT),
                ]
                with m.If(self.commands.valid):
                    m.next = "ADD"
            with m.State("ADD"):
                m.next = "COMPARE"
            with m.State("COMPARE"):
                m.next = "DECIDE"
            with m.State("DECIDE"):
                with m.If(checks.nothing):
                    m.d.comb += self.done.eq(1)
                    m.next = "IDLE"
                with m.Elif(checks.no_rows):
                    m.d.sync += code.eq(ErrorCode.ADDRESS_RANGE)
                    m.next = "REFUSED"
                with m.Elif(checks.outside):
                    m.d.sync += code.eq(ErrorCode.REGION)
                    m.next = "REFUSED"
                with m.Else():
                    m.d.comb += split.start.eq(1)
                    m.d.sync += more.eq(1)
                    m.next = "RUN"
            with m.State("RUN"):
                with m.If(quiet):
                    m.d.comb += self.done.eq(1)
                    m.next = "IDLE"
            with m.State("REFUSED"):  # until the error has stopped the program
                m.d.comb += self.error.valid.eq(1)
        m.d.comb += [self.error.code.eq(code), self.error.index.eq(index)]
        with m.If(self.failed):
            m.d.comb += [self.error.valid.eq(1), self.error.code.eq(ErrorCode.WRITE_BUS)]
        with m.If(self.data.valid & self.data.ready):
            m.d.sync += beats.eq(beats - 1)
        with m.If(self.read.valid & self.read.ready):
            m.d.sync += [row.eq(row + 1), rows.eq(rows - 1), more.eq(rows != 1)]
        m.d.comb += self.read.row.eq(row)
        self._rows(m, more, row_beats)
        return m

    def _check(self, m: Module, row: Signal, rows: Signal, beats: Signal) -> data.View:
        """What must be known of a command before it starts: the sums a cycle, the rest two cycles after its fields."""
        region = self.regions[isa.Base.OUTPUT]
        checks = Signal(_CHECKS)
        row_end, end = Signal(ROW_COUNT_BITS + 1), Signal(SIZE_BITS + 1)
        m.d.sync += [
            row_end.eq(row + rows),
            end.eq(checks.offset + (beats << exact_log2(self._config.axi_bytes))),
            checks.address.eq(region.base + checks.offset),
            checks.nothing.eq(rows == 0),
            checks.no_rows.eq((row_end > self._config.residual_depth) | ~checks.base_exists),
            checks.outside.eq((end > region.size) | checks.elsewhere),
        ]
        return checks

    def _rows(self, m: Module, more: Signal, row_beats: int) -> None:
        """Reads rows ahead into a FIFO and cuts them into beats."""
        m.submodules.rows = queue = fifo.SyncFIFO(width=len(self.read.data), depth=_ROWS_AHEAD)
        part = Signal(range(row_beats))
        moved = self.data.valid & self.data.ready
        ahead = Signal(range(_ROWS_AHEAD + 1))  # read, or on the way, and not all in beats
        asked = self.read.valid & self.read.ready
        m.d.sync += ahead.eq(ahead + asked - queue.r_en)
        m.d.comb += [
            self.read.valid.eq(more & (ahead != _ROWS_AHEAD)),
            queue.w_en.eq(delay(m, asked, self._read_cycles, "asked")),
            queue.w_data.eq(self.read.data),
            self.data.valid.eq(queue.r_rdy),
            self.data.payload.data.eq(queue.r_data.word_select(part, 8 * self._config.axi_bytes)),
            queue.r_en.eq(moved & (part == row_beats - 1)),
        ]
        with m.If(moved):
            m.d.sync += part.eq(Mux(part == row_beats - 1, 0, part + 1))
