"""The LOAD engine: DRAM to scratchpads over all read masters."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from edgemoe_hw.bus.bursts import AXI4_BEATS, BEATS_BITS, BurstSplitter
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
from edgemoe_hw.primitives.fifo import Fifo
from edgemoe_hw.primitives.register_slice import RegisterSlice
from edgemoe_hw.spec import isa
from edgemoe_hw.spec.config import AcceleratorConfig
from edgemoe_hw.spec.constants import ADDRESS_BITS, COUNT_BITS, ROW_BITS, ROW_COUNT_BITS, SIZE_BITS
from edgemoe_hw.spec.memories import memory_depths, slice_beats
from edgemoe_hw.spec.regs import ErrorCode

__all__ = ["DmaRead"]

# What the data side of a master must know of a command. `skip`: nothing comes, only count it. `last_beat` is that of a
# row; `one_beat` and `one_row` say that a row has, or the command, no more.
_EXPECTED = data.StructLayout(
    {
        "memory": 4,
        "row": ROW_BITS,
        "rows": ROW_BITS,
        "last_beat": 8,
        "one_beat": 1,
        "one_row": 1,
        "skip": 1,
        "index": COUNT_BITS,
    }
)


def _stage(masters: int) -> data.StructLayout:
    """A command on the address side: as it was taken, and with its sums a cycle later."""
    return data.StructLayout(
        {
            "command": _EXPECTED,
            "takes_part": masters,
            "beats": BEATS_BITS,
            "base": ADDRESS_BITS,  # where its region begins; the first master's address a cycle later
            "offset": SIZE_BITS,
            "size": SIZE_BITS,
            "stride": SIZE_BITS,
        }
    )


class DmaRead(wiring.Component):
    """Executes LOADs: requests run ahead of data, so each master moves a beat a cycle at any latency.

    Master m reads its slice of every row, contiguously, at base + offset + m * plane_stride; loads of a memory whose
    rows are too narrow for all masters use the first of them (``AcceleratorConfig.load_masters``). A command whose
    bytes do not all lie in their region of DRAM requests nothing. A command occupies the address side for four cycles
    and two a burst; beats of successive commands follow each other without a gap.

    Members:
        commands: from the LOAD queue
        regions: of DRAM, by ``isa.Base``
        requests, responses: one pair a master (``ReadPort``)
        beats: one stream a master (``interfaces.beat_layout``)
        done: a LOAD has finished; two cycles after its last beat was accepted
        error: ADDRESS_RANGE, REGION or READ_BUS
    """

    def __init__(self, config: AcceleratorConfig, *, queued: int = 16, burst_beats: int = AXI4_BEATS):
        self._config, self._burst_beats = config, burst_beats
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
        splitters = [BurstSplitter(self._config, self._burst_beats) for _ in range(masters)]
        expected = [Fifo(_EXPECTED.size, self._queued) for _ in range(masters)]
        for number in range(masters):
            m.submodules[f"split{number}"] = splitters[number]
            m.submodules[f"expected{number}"] = expected[number]
        refused, code, index = self._address_side(m, splitters, expected)
        sides = [self._data_side(m, number, expected[number]) for number in range(masters)]
        self._count(m, [finishes for _, _, finishes in sides])
        m.d.sync += [self.error.valid.eq(refused), self.error.code.eq(code), self.error.index.eq(index)]
        for failed, index, _ in sides:
            with m.If(failed & ~refused):
                m.d.sync += [
                    self.error.valid.eq(1),
                    self.error.code.eq(ErrorCode.READ_BUS),
                    self.error.index.eq(index),
                ]
        return m

    def _count(self, m: Module, finishes: list[Signal]) -> None:
        """A command has finished when every master has finished it."""
        waiting = []
        both = Signal()
        for number, finish in enumerate(finishes):
            # Finished by this master and not by all: no more than the others can hold, in FIFO, registers and slice.
            early = Signal(range(self._queued + 8), name=f"early{number}")
            m.d.sync += early.eq(early + finish - both)
            waiting.append(early != 0)
        m.d.comb += [both.eq(Cat(waiting).all()), self.done.eq(both)]

    def _address_side(
        self, m: Module, splitters: list[BurstSplitter], expected: list[Fifo]
    ) -> tuple[Value, Value, Value]:
        """Checks a command, then starts the bursts of all masters at once.

        Two registers stand one behind the other, so that each cycle has one addition or comparison of addresses.

        Returns:
            whether a command is refused (until the error has stopped the program), why, and the command's index
        """
        config = self._config
        taken, staged, bad = Signal(), Signal(), Signal()  # staged: one that may go; bad: one that must not
        raw, stage = Signal(_stage(config.axi_masters)), Signal(_stage(config.axi_masters))
        row_end, depth, base_exists = Signal(ROW_COUNT_BITS + 1), Signal(ROW_COUNT_BITS), Signal()
        proceeds, go = Signal(), Signal()
        free = Signal()  # a cycle old: nothing starts in the cycle after a start, which it does not know of
        m.d.sync += free.eq(~go & ~Cat(s.busy for s in splitters).any() & Cat(f.w_rdy for f in expected).all())
        m.d.comb += [
            go.eq(staged & free),
            proceeds.eq(~(staged | bad) | go),
            self.commands.ready.eq(~taken | proceeds),
        ]
        load = self.commands.payload.payload
        with m.If(self.commands.ready):
            m.d.sync += [
                taken.eq(self.commands.valid),
                row_end.eq(load.row + load.rows),
                base_exists.eq(load.base < len(isa.Base)),
                raw.command.memory.eq(load.memory),
                raw.command.row.eq(load.row),
                raw.command.rows.eq(load.rows),
                raw.command.one_row.eq(load.rows == 1),
                raw.command.skip.eq(load.rows == 0),
                raw.command.index.eq(self.commands.payload.index),
                raw.base.eq(self.regions[load.base].base),
                raw.offset.eq(load.offset),
                raw.size.eq(self.regions[load.base].size),
                raw.stride.eq(load.plane_stride),
                raw.beats.eq(0),
                depth.eq(0),
            ]
            with m.Switch(load.memory):
                for memory, count in slice_beats(config).items():
                    with m.Case(memory):
                        m.d.sync += [
                            depth.eq(memory_depths(config)[memory]),
                            raw.beats.eq(times(load.rows, count)),
                            raw.command.last_beat.eq(count - 1),
                            raw.command.one_beat.eq(count == 1),
                            raw.takes_part.eq((1 << config.load_masters(memory.name)) - 1),
                        ]
        starts = [Signal(SIZE_BITS + 2, name=f"start{master}") for master in range(config.axi_masters)]
        end = Signal(SIZE_BITS + 1)  # of master 0's bytes
        wrong = ~raw.command.skip & ((row_end > depth) | ~base_exists)
        with m.If(proceeds):
            m.d.sync += [
                staged.eq(taken & ~wrong),
                bad.eq(taken & wrong),
                stage.eq(raw),
                stage.base.eq(raw.base + raw.offset),
                end.eq(raw.offset + (raw.beats << exact_log2(config.axi_bytes))),
                *(start.eq(times(raw.stride, master)) for master, start in enumerate(starts)),
            ]
        for number, (splitter, queue) in enumerate(zip(splitters, expected, strict=True)):
            entry = Signal(_EXPECTED, name=f"entry{number}")
            m.d.comb += [
                splitter.start.eq(go),
                splitter.address.eq(stage.base + starts[number]),
                splitter.beats.eq(Mux(stage.takes_part[number], stage.beats, 0)),
                entry.eq(stage.command),
                entry.skip.eq(stage.command.skip | ~stage.takes_part[number]),
                queue.w_en.eq(go),
                queue.w_data.eq(entry),
            ]
        reach = starts[0]  # by which the last master's bytes end later
        for number, start in enumerate(starts):
            reach = Mux(stage.takes_part[number], start, reach)
        going, outside, index = self._stay_inside(m, go, stage, end, reach, splitters)
        code = Mux(outside, ErrorCode.REGION, ErrorCode.ADDRESS_RANGE)
        return outside | (bad & ~going), code, Mux(outside, index, stage.command.index)

    def _stay_inside(
        self, m: Module, go: Signal, stage: data.View, end: Value, reach: Value, splitters: list[BurstSplitter]
    ) -> tuple[Signal, Signal, Signal]:
        """Passes the splitters' requests on unless their command leaves its region.

        Whether it does is known two cycles after ``go``, before the splitters offer its first requests.

        Returns:
            whether that is not yet known, whether the command leaves its region, and its index
        """
        going, outside, index = Signal(), Signal(), Signal(COUNT_BITS)
        last, size = Signal(SIZE_BITS + 3), Signal(SIZE_BITS)  # end of all masters' bytes, and of the region
        m.d.sync += [going.eq(go & ~stage.command.skip), last.eq(end + reach), size.eq(stage.size)]
        with m.If(go):
            m.d.sync += index.eq(stage.command.index)
        with m.If(going & (last > size)):
            m.d.sync += outside.eq(1)
        for splitter, port in zip(splitters, self.requests, strict=True):
            m.d.comb += [
                port.payload.eq(splitter.requests.payload),
                port.valid.eq(splitter.requests.valid & ~outside),
                splitter.requests.ready.eq(port.ready & ~outside),
            ]
        return going, outside, index

    def _data_side(self, m: Module, number: int, queue: Fifo) -> tuple[Value, Signal, Signal]:
        """Names the beats of a master; returns (bus error, command index, whether it finishes a command).

        The command in progress is counted down, with a register that says "this beat, or row, is the last", and the
        next one waits in a register, so that no comparison stands between a beat and the command behind it. Beats leave
        through a register slice: the scratchpads' other writes do not hold up this side in the same cycle. A command
        without beats passes the slice as an empty one, so that all are counted in order.
        """
        response = self.responses[number]
        head, following = Signal(_EXPECTED, name=f"head{number}"), Signal(_EXPECTED, name=f"following{number}")
        active, known = Signal(name=f"active{number}"), Signal(name=f"known{number}")
        beat, beats_left = Signal(8, name=f"beat{number}"), Signal(8, name=f"beats_left{number}")
        beat_ends, row_ends = Signal(name=f"beat_ends{number}"), Signal(name=f"row_ends{number}")
        named = data.StructLayout({**beat_layout(self._config).members, "last": 1, "empty": 1})
        m.submodules[f"beats{number}"] = out = RegisterSlice(named)
        moved, ends = Signal(name=f"moved{number}"), Signal(name=f"ends{number}")
        m.d.comb += [
            out.i.valid.eq(active & (head.skip | response.valid)),
            response.ready.eq(active & ~head.skip & out.i.ready),
            moved.eq(response.valid & response.ready),
            ends.eq(active & out.i.ready & (head.skip | (response.valid & beat_ends & row_ends))),
            out.i.payload.memory.eq(head.memory),
            out.i.payload.row.eq(head.row),
            out.i.payload.beat.eq(beat),
            out.i.payload.data.eq(response.payload.data),
            out.i.payload.last.eq(head.skip | (beat_ends & row_ends)),
            out.i.payload.empty.eq(head.skip),
        ]
        with m.If(moved):
            m.d.sync += [beat.eq(beat + 1), beats_left.eq(beats_left - 1), beat_ends.eq(beats_left == 1)]
            with m.If(beat_ends):
                m.d.sync += [
                    beat.eq(0),
                    beats_left.eq(head.last_beat),
                    beat_ends.eq(head.one_beat),
                    head.row.eq(head.row + 1),
                    head.rows.eq(head.rows - 1),
                    row_ends.eq(head.rows == 2),
                ]
        with m.If(ends | ~active):
            m.d.sync += [
                active.eq(known),
                head.eq(following),
                beat.eq(0),
                beats_left.eq(following.last_beat),
                beat_ends.eq(following.one_beat),
                row_ends.eq(following.one_row),
                known.eq(0),
            ]
        m.d.comb += queue.r_en.eq(~known)
        with m.If(~known):
            m.d.sync += [known.eq(queue.r_rdy), following.eq(queue.r_data)]

        beats, finishes = self.beats[number], Signal(name=f"finishes{number}")
        m.d.comb += [
            beats.valid.eq(out.o.valid & ~out.o.payload.empty),
            out.o.ready.eq(beats.ready | out.o.payload.empty),
            *(beats.payload[name].eq(out.o.payload[name]) for name in beat_layout(self._config).members),
            finishes.eq(out.o.valid & out.o.ready & out.o.payload.last),
        ]
        return moved & response.payload.error, head.index, finishes
