"""The LOAD engine: DRAM to scratchpads over all read masters."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, fifo, stream, wiring
from amaranth.lib.wiring import In, Out

from edgemoe_hw.bus.bursts import BEATS_BITS, BurstSplitter
from edgemoe_hw.interfaces import (
    BASES,
    ERROR_REPORT,
    READ_REQUEST,
    beat_layout,
    queued_layout,
    read_response,
)
from edgemoe_hw.layouts import Load
from edgemoe_hw.primitives.arithmetic import times
from edgemoe_hw.spec import isa
from edgemoe_hw.spec.config import AcceleratorConfig
from edgemoe_hw.spec.constants import ADDRESS_BITS, COUNT_BITS, ROW_BITS, ROW_COUNT_BITS
from edgemoe_hw.spec.memories import memory_depths, slice_beats
from edgemoe_hw.spec.regs import ErrorCode

__all__ = ["DmaRead"]

# What the data side of a master must know of a command; rows = 0: nothing comes, only count it.
_EXPECTED = data.StructLayout({"memory": 4, "row": ROW_BITS, "rows": ROW_BITS, "index": COUNT_BITS})


class DmaRead(wiring.Component):
    """Executes LOADs: requests run ahead of data, so each master moves a beat a cycle at any latency.

    Master m reads its slice of every row, contiguously, at base + offset + m * plane_stride; loads of NORM and GELU
    use master 0 only. A command occupies the address side for two cycles and two a burst; beats of successive
    commands follow each other without a gap.

    Members:
        commands: from the LOAD queue
        bases: DRAM base addresses, by ``isa.Base``
        requests, responses: one pair a master (``ReadPort``)
        beats: one stream a master (``interfaces.beat_layout``)
        done: a LOAD has finished; two cycles after its last beat was accepted
        error: ADDRESS_RANGE or READ_BUS
    """

    def __init__(self, config: AcceleratorConfig, *, queued: int = 16):
        self._config = config
        self._queued = queued
        masters = config.axi_masters
        super().__init__(
            {
                "commands": In(stream.Signature(queued_layout(Load))),
                "bases": In(BASES),
                "requests": Out(stream.Signature(READ_REQUEST)).array(masters),
                "responses": In(stream.Signature(read_response(config))).array(masters),
                "beats": Out(stream.Signature(beat_layout(config))).array(masters),
                "done": Out(1),
                "error": Out(ERROR_REPORT),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        masters = self._config.axi_masters
        splitters = [BurstSplitter(self._config) for _ in range(masters)]
        expected = [fifo.SyncFIFOBuffered(width=_EXPECTED.size, depth=self._queued) for _ in range(masters)]
        for number in range(masters):
            m.submodules[f"split{number}"] = splitters[number]
            m.submodules[f"expected{number}"] = expected[number]
            wiring.connect(m, splitters[number].requests, wiring.flipped(self.requests[number]))
        out_of_range, range_index = self._address_side(m, splitters, expected)
        sides = [self._data_side(m, number, expected[number]) for number in range(masters)]
        counted = Signal(COUNT_BITS)  # finished by all masters
        m.d.comb += self.done.eq(Cat(finished != counted for _, _, finished in sides).all())
        m.d.sync += counted.eq(counted + self.done)
        with m.If(out_of_range):
            m.d.comb += [
                self.error.valid.eq(1),
                self.error.code.eq(ErrorCode.ADDRESS_RANGE),
                self.error.index.eq(range_index),
            ]
        with m.Else():
            for failed, index, _ in sides:
                with m.If(failed):
                    m.d.comb += [
                        self.error.valid.eq(1),
                        self.error.code.eq(ErrorCode.READ_BUS),
                        self.error.index.eq(index),
                    ]
        return m

    def _address_side(
        self, m: Module, splitters: list[BurstSplitter], expected: list[fifo.SyncFIFOBuffered]
    ) -> tuple[Signal, Signal]:
        """Checks a command, then starts the bursts of all masters at once; returns (range error, command index)."""
        command = self.commands.payload
        load = command.payload
        beats = Signal(BEATS_BITS)
        depth = Signal(ROW_COUNT_BITS)
        with m.Switch(load.memory):
            for memory, count in slice_beats(self._config).items():
                with m.Case(memory):
                    m.d.comb += [beats.eq(times(load.rows, count)), depth.eq(memory_depths(self._config)[memory])]
        base_exists = load.base < len(isa.Base)
        valid_range = (load.row + load.rows <= depth) & base_exists

        staged = Signal()
        bad = Signal()
        stage = Signal(_EXPECTED)
        stage_beats = Signal(BEATS_BITS)
        address = Signal(ADDRESS_BITS)
        stride = Signal(32)
        single = Signal()
        accepts = Signal()
        go = Signal()
        out_of_range = Signal()
        m.d.comb += [
            go.eq(staged & ~bad & ~Cat(s.busy for s in splitters).any() & Cat(f.w_rdy for f in expected).all()),
            accepts.eq(~staged | go),
            out_of_range.eq(staged & bad),  # and so it stays, until the error has stopped the program
            self.commands.ready.eq(accepts),
        ]
        with m.If(accepts):
            m.d.sync += [
                staged.eq(self.commands.valid),
                bad.eq((load.rows != 0) & ~valid_range),
                Cat(stage.memory, stage.row, stage.rows, stage.index).eq(
                    Cat(load.memory, load.row, load.rows, command.index)
                ),
                stage_beats.eq(beats),
                address.eq(self.bases[load.base] + load.offset),
                stride.eq(load.plane_stride),
                single.eq((load.memory == isa.Memory.NORM) | (load.memory == isa.Memory.GELU)),
            ]
        for number, (splitter, queue) in enumerate(zip(splitters, expected, strict=True)):
            takes_part = 1 if number == 0 else ~single
            m.d.comb += [
                splitter.start.eq(go),
                splitter.address.eq(address + times(stride, number)),
                splitter.beats.eq(Mux(takes_part, stage_beats, 0)),
                queue.w_en.eq(go),
                queue.w_data.eq(Cat(stage.memory, stage.row, Mux(takes_part, stage.rows, 0), stage.index)),
            ]
        return out_of_range, stage.index

    def _data_side(self, m: Module, number: int, queue: fifo.SyncFIFOBuffered) -> tuple[Value, Signal, Signal]:
        """Names the beats of a master; returns (bus error, command index, number of its finished commands)."""
        response = self.responses[number]
        beats = self.beats[number]
        head = data.View(_EXPECTED, queue.r_data)
        last_beat = Signal(8)
        with m.Switch(head.memory):
            for memory, count in slice_beats(self._config).items():
                with m.Case(memory):
                    m.d.comb += last_beat.eq(count - 1)
        row = Signal(ROW_BITS, name=f"row{number}")
        beat = Signal(8, name=f"beat{number}")
        active = queue.r_rdy & (head.rows != 0)
        moved = response.valid & response.ready
        ends = Signal(name=f"ends{number}")
        m.d.comb += [
            beats.valid.eq(response.valid & active),
            response.ready.eq(beats.ready & active),
            beats.payload.memory.eq(head.memory),
            beats.payload.row.eq(head.row + row),
            beats.payload.beat.eq(beat),
            beats.payload.data.eq(response.payload.data),
            ends.eq(queue.r_rdy & ((head.rows == 0) | (moved & (beat == last_beat) & (row == head.rows - 1)))),
            queue.r_en.eq(ends),
        ]
        with m.If(moved):
            m.d.sync += beat.eq(beat + 1)
            with m.If(beat == last_beat):
                m.d.sync += [beat.eq(0), row.eq(row + 1)]
        with m.If(ends):
            m.d.sync += row.eq(0)

        finished = Signal(COUNT_BITS, name=f"finished{number}")
        m.d.sync += finished.eq(finished + ends)
        return moved & response.payload.error, head.index, finished
