"""The STORE engine: residual scratchpad to DRAM."""

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib import data, fifo, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from edgemoe_hw.bus.bursts import BEATS_BITS, BurstSplitter
from edgemoe_hw.interfaces import ERROR_REPORT, READ_REQUEST, REGIONS, queued_layout
from edgemoe_hw.layouts import Store
from edgemoe_hw.ports import SharedRead
from edgemoe_hw.primitives.arithmetic import times
from edgemoe_hw.primitives.delay import delay
from edgemoe_hw.spec import isa
from edgemoe_hw.spec.config import AcceleratorConfig
from edgemoe_hw.spec.constants import COUNT_BITS, ROW_BITS, SIZE_BITS
from edgemoe_hw.spec.regs import ErrorCode
from edgemoe_hw.spec.timing import RESIDUAL_READ

__all__ = ["DmaWrite"]

_ROWS_AHEAD = 4  # read from the scratchpad before the bus takes them


class DmaWrite(wiring.Component):
    """Executes STOREs one after the other; a beat a cycle while the scratchpad is free.

    Row r of a command goes to base + offset + r * 2 * epilogue_lanes. All rows must lie in the region OUTPUT: a command
    that would write elsewhere starts no burst.

    Args:
        read_cycles: from a residual row's address to its data

    Members:
        commands: from the STORE queue
        regions: of DRAM, by ``isa.Base``
        read: residual rows
        requests, data: to ``WritePort``; ``outstanding`` and ``failed`` come from it
        done: a STORE has finished: its last write response is there
        error: ADDRESS_RANGE, REGION or WRITE_BUS
    """

    def __init__(self, config: AcceleratorConfig, *, read_cycles: int = RESIDUAL_READ):
        self._config = config
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
        m.submodules.split = split = BurstSplitter(self._config)

        command = self.commands.payload
        store = command.payload
        row_beats = 2 * self._config.epilogue_lanes // self._config.axi_bytes
        index = Signal(COUNT_BITS)
        row = Signal(ROW_BITS)
        rows = Signal(ROW_BITS)  # not yet read
        beats = Signal(BEATS_BITS)  # not yet handed to the bus
        region = self.regions[isa.Base.OUTPUT]
        outside = self._stay_inside(m, split, store, beats, region.size)

        def fail(code: ErrorCode, command: Value) -> None:
            m.d.comb += [self.error.valid.eq(1), self.error.code.eq(code), self.error.index.eq(command)]

        m.d.comb += [split.address.eq(region.base + store.offset), split.beats.eq(times(store.rows, row_beats))]
        with m.FSM():
            with m.State("IDLE"):
                with m.If(self.commands.valid):
                    with m.If(store.rows == 0):
                        m.d.comb += [self.commands.ready.eq(1), self.done.eq(1)]
                    with m.Elif((store.row + store.rows > self._config.residual_depth) | (store.base >= len(isa.Base))):
                        fail(ErrorCode.ADDRESS_RANGE, command.index)
                    with m.Else():
                        m.d.comb += [self.commands.ready.eq(1), split.start.eq(1)]
                        m.d.sync += [
                            index.eq(command.index),
                            row.eq(store.row),
                            rows.eq(store.rows),
                            beats.eq(split.beats),
                        ]
                        m.next = "RUN"
            with m.State("RUN"):
                with m.If((beats == 0) & ~split.busy & (self.outstanding == 0)):
                    m.d.comb += self.done.eq(1)
                    m.next = "IDLE"
        with m.If(self.failed):
            fail(ErrorCode.WRITE_BUS, index)
        with m.If(outside):
            fail(ErrorCode.REGION, index)
        with m.If(self.data.valid & self.data.ready):
            m.d.sync += beats.eq(beats - 1)
        with m.If(self.read.valid & self.read.ready):
            m.d.sync += [row.eq(row + 1), rows.eq(rows - 1)]
        m.d.comb += self.read.row.eq(row)
        self._rows(m, rows, row_beats)
        return m

    def _stay_inside(self, m: Module, split: BurstSplitter, store: data.View, beats: Signal, size: Value) -> Signal:
        """Passes the splitter's requests on unless the command leaves its region; returns whether it does.

        That is known when the splitter offers its first request, two cycles after its start.
        """
        offset = Signal(SIZE_BITS)
        started, elsewhere, outside = Signal(), Signal(), Signal()
        m.d.sync += [started.eq(split.start), offset.eq(store.offset), elsewhere.eq(store.base != isa.Base.OUTPUT)]
        end = offset + (beats << exact_log2(self._config.axi_bytes))
        with m.If(started & (elsewhere | (end > size))):
            m.d.sync += outside.eq(1)
        m.d.comb += [
            self.requests.payload.eq(split.requests.payload),
            self.requests.valid.eq(split.requests.valid & ~outside),
            split.requests.ready.eq(self.requests.ready & ~outside),
        ]
        return outside

    def _rows(self, m: Module, rows: Signal, row_beats: int) -> None:
        """Reads rows ahead into a FIFO and cuts them into beats."""
        m.submodules.rows = queue = fifo.SyncFIFO(width=len(self.read.data), depth=_ROWS_AHEAD)
        part = Signal(range(row_beats))
        moved = self.data.valid & self.data.ready
        ahead = Signal(range(_ROWS_AHEAD + 1))  # read, or on the way, and not all in beats
        asked = self.read.valid & self.read.ready
        m.d.sync += ahead.eq(ahead + asked - queue.r_en)
        m.d.comb += [
            self.read.valid.eq((rows != 0) & (ahead != _ROWS_AHEAD)),
            queue.w_en.eq(delay(m, asked, self._read_cycles, "asked")),
            queue.w_data.eq(self.read.data),
            self.data.valid.eq(queue.r_rdy),
            self.data.payload.data.eq(queue.r_data.word_select(part, 8 * self._config.axi_bytes)),
            queue.r_en.eq(moved & (part == row_beats - 1)),
        ]
        with m.If(moved):
            m.d.sync += part.eq(Mux(part == row_beats - 1, 0, part + 1))
