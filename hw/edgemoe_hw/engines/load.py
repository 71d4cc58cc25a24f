"""The LOAD engine: DRAM to scratchpads over all read masters."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, fifo, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from edgemoe_hw.bus.bursts import BEATS_BITS, BurstSplitter
from edgemoe_hw.interfaces import (
    ERROR_REPORT,
    READ_REQUEST,
    REGIONS,
    beat_layout,
    queued_layout,
    read_response,
)
from edgemoe_hw.layouts import Load
from edgemoe_hw.primitives.arithmetic import times
from edgemoe_hw.spec import isa
from edgemoe_hw.spec.config import AcceleratorConfig
from edgemoe_hw.spec.constants import ADDRESS_BITS, COUNT_BITS, ROW_BITS, ROW_COUNT_BITS, SIZE_BITS
from edgemoe_hw.spec.memories import memory_depths, slice_beats
from edgemoe_hw.spec.regs import ErrorCode

__all__ = ["DmaRead"]

# What the data side of a master must know of a command; rows = 0: nothing comes, only count it.
_EXPECTED = data.StructLayout({"memory": 4, "row": ROW_BITS, "rows": ROW_BITS, "index": COUNT_BITS})

# A command on the address side, its numbers computed.
_STAGE = data.StructLayout(
    {
        "command": _EXPECTED,
        "beats": BEATS_BITS,
        "address": ADDRESS_BITS,
        "offset": SIZE_BITS,
        "size": SIZE_BITS,
        "stride": SIZE_BITS,
        "single": 1,
    }
)


class DmaRead(wiring.Component):
    """Executes LOADs: requests run ahead of data, so each master moves a beat a cycle at any latency.

    Master m reads its slice of every row, contiguously, at base + offset + m * plane_stride; loads of NORM and GELU
    use master 0 only. A command whose bytes do not all lie in their region of DRAM requests nothing. A command occupies
    the address side for two cycles and two a burst; beats of successive commands follow each other without a gap.

    Members:
        commands: from the LOAD queue
        regions: of DRAM, by ``isa.Base``
        requests, responses: one pair a master (``ReadPort``)
        beats: one stream a master (``interfaces.beat_layout``)
        done: a LOAD has finished; two cycles after its last beat was accepted
        error: ADDRESS_RANGE, REGION or READ_BUS
    """

    def __init__(self, config: AcceleratorConfig, *, queued: int = 16):
        self._config = config
        self._queued = queued
        masters = config.axi_masters
        super().__init__(
            {
                "commands": In(stream.Signature(queued_layout(Load))),
                "regions": In(REGIONS),
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
        refused, code, index = self._address_side(m, splitters, expected)
        sides = [self._data_side(m, number, expected[number]) for number in range(masters)]
        counted = Signal(COUNT_BITS)  # finished by all masters
        m.d.comb += self.done.eq(Cat(finished != counted for _, _, finished in sides).all())
        m.d.sync += counted.eq(counted + self.done)
        with m.If(refused):
            m.d.comb += [self.error.valid.eq(1), self.error.code.eq(code), self.error.index.eq(index)]
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
    ) -> tuple[Value, Value, Value]:
        """Checks a command, then starts the bursts of all masters at once.

        Returns:
            whether a command is refused (until the error has stopped the program), why, and the command's index
        """
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
        stage = Signal(_STAGE)
        accepts = Signal()
        go = Signal()
        m.d.comb += [
            go.eq(staged & ~bad & ~Cat(s.busy for s in splitters).any() & Cat(f.w_rdy for f in expected).all()),
            accepts.eq(~staged | go),
            self.commands.ready.eq(accepts),
        ]
        with m.If(accepts):
            m.d.sync += [
                staged.eq(self.commands.valid),
                bad.eq((load.rows != 0) & ~valid_range),
                stage.command.memory.eq(load.memory),
                stage.command.row.eq(load.row),
                stage.command.rows.eq(load.rows),
                stage.command.index.eq(command.index),
                stage.beats.eq(beats),
                stage.address.eq(self.regions[load.base].base + load.offset),
                stage.offset.eq(load.offset),
                stage.size.eq(self.regions[load.base].size),
                stage.stride.eq(load.plane_stride),
                stage.single.eq((load.memory == isa.Memory.NORM) | (load.memory == isa.Memory.GELU)),
            ]
        for number, (splitter, queue) in enumerate(zip(splitters, expected, strict=True)):
            takes_part = 1 if number == 0 else ~stage.single
            rows = Mux(takes_part, stage.command.rows, 0)
            m.d.comb += [
                splitter.start.eq(go),
                splitter.address.eq(stage.address + times(stage.stride, number)),
                splitter.beats.eq(Mux(takes_part, stage.beats, 0)),
                queue.w_en.eq(go),
                queue.w_data.eq(Cat(stage.command.memory, stage.command.row, rows, stage.command.index)),
            ]
        going, outside, index = self._stay_inside(m, go, stage, splitters)
        code = Mux(outside, ErrorCode.REGION, ErrorCode.ADDRESS_RANGE)
        return outside | (staged & bad & ~going), code, Mux(outside, index, stage.command.index)

    def _stay_inside(
        self, m: Module, go: Signal, stage: data.View, splitters: list[BurstSplitter]
    ) -> tuple[Signal, Signal, Signal]:
        """Passes the splitters' requests on unless their command leaves its region.

        Whether it does is known when the splitters offer its first requests, two cycles after ``go``, and not earlier,
        so that each of these cycles has one long addition only.

        Returns:
            whether that is not yet known, whether the command leaves its region, and its index
        """
        last = self._config.axi_masters - 1
        going, outside, index = Signal(), Signal(), Signal(COUNT_BITS)
        end, size = Signal(SIZE_BITS + 1), Signal(SIZE_BITS)  # of master 0's bytes, of the region
        reach = Signal(len(times(stage.stride, last)) if last else 1)  # by which the last master's end comes later
        m.d.sync += [
            going.eq(go & (stage.command.rows != 0)),
            end.eq(stage.offset + (stage.beats << exact_log2(self._config.axi_bytes))),
            reach.eq(Mux(stage.single, 0, times(stage.stride, last))),
            size.eq(stage.size),
        ]
        with m.If(go):
            m.d.sync += index.eq(stage.command.index)
        with m.If(going & (end + reach > size)):
            m.d.sync += outside.eq(1)
        for splitter, port in zip(splitters, self.requests, strict=True):
            m.d.comb += [
                port.payload.eq(splitter.requests.payload),
                port.valid.eq(splitter.requests.valid & ~outside),
                splitter.requests.ready.eq(port.ready & ~outside),
            ]
        return going, outside, index

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
