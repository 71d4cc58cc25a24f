"""Controller of a 16-bit SDR SDRAM: bursts of 8-byte beats, one at a time."""

import math
from dataclasses import dataclass

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, fifo, stream, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["BEAT_BYTES", "REQUEST", "Sdram", "SdramPins", "SdramTiming"]

BEAT_BYTES = 8
_WORDS = BEAT_BYTES // 2
_COLUMN_BITS, _BANK_BITS, _ROW_BITS = 9, 2, 13
_ALL_BANKS = 1 << 10  # A10 of PRECHARGE
_MODE = 1 << 9 | 2 << 4  # single writes, CAS latency 2, bursts of 1
_REFRESHES, _REFRESH_GAP = 8, 16  # at start-up; cycles from one to the next

_LEAST = {"recover": 2}  # cycles, whatever the clock

# (ras_n, cas_n, we_n), the first lowest; the chip is always selected.
_NOP, _ACTIVATE, _READ, _WRITE, _PRECHARGE, _REFRESH, _SET_MODE = 0b111, 0b110, 0b101, 0b001, 0b010, 0b100, 0b000

REQUEST = data.StructLayout({"write": 1, "address": 1 + _COLUMN_BITS + _BANK_BITS + _ROW_BITS, "len": 8})


@dataclass(frozen=True)
class SdramTiming:
    """Waits in nanoseconds; the defaults suit chips of the -7 grade and slower clocks than 100 MHz.

    Attributes:
        start: from stable power to the first command
        active: ACTIVATE to PRECHARGE (tRAS), which covers tRCD
        precharge: tRP
        recover: last write to PRECHARGE (tWR)
        refresh: one AUTO REFRESH (tRFC)
        interval: between two AUTO REFRESHes; 8192 in 64 ms would be 7812
    """

    start: float = 200_000
    active: float = 45
    precharge: float = 20
    recover: float = 15
    refresh: float = 70
    interval: float = 7_000


class SdramPins(wiring.Signature):
    """The chip's pins as the FPGA drives them; the chip's clock is the inverse of ours."""

    def __init__(self) -> None:
        super().__init__(
            {
                "command": Out(3, init=_NOP),
                "bank": Out(_BANK_BITS),
                "address": Out(_ROW_BITS),
                "mask": Out(2),
                "write_data": Out(16),
                "drive": Out(1),
                "read_data": In(16),
            }
        )


class Sdram(wiring.Component):
    """32 MiB (8192 rows of 512 columns in 4 banks) behind a stream of bursts.

    A burst opens its row and closes it; within a row a beat takes 4 cycles. Commands leave through registers, the chip
    takes them at the falling edge of our clock, and its data are sampled at our rising edge: half a cycle each way.

    Args:
        clock_hz: of our clock, at most 66 MHz (half a cycle must hold the chip's access time and the pads)

    Members:
        request: a burst; ``len`` is beats - 1, the address a multiple of 8
        write: its beats, with a bit of ``strb`` a byte
        read: its beats, in order
        pins: the chip
    """

    def __init__(self, clock_hz: float, timing: SdramTiming | None = None):
        if not 1e6 <= clock_hz <= 66e6:
            raise ValueError(f"clock_hz must be between 1 and 66 MHz, not {clock_hz!r}")
        timing = timing or SdramTiming()
        self._cycles = {
            name: max(_LEAST.get(name, 1), math.ceil(value * 1e-9 * clock_hz)) for name, value in vars(timing).items()
        }
        super().__init__(
            {
                "request": In(stream.Signature(REQUEST)),
                "write": In(stream.Signature(data.StructLayout({"data": 8 * BEAT_BYTES, "strb": BEAT_BYTES}))),
                "read": Out(stream.Signature(8 * BEAT_BYTES)),
                "pins": Out(SdramPins()),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        cycles, pins = self._cycles, self.pins
        is_write = Signal()
        address = Signal(REQUEST["address"].shape)
        beats = Signal(range(257))  # still to do
        column, bank, row = address[1:10], address[10:12], address[12:]
        part = Signal(range(_WORDS))  # of the current beat
        refresh_due = self._refresh_timer(m)
        room = self._read_side(m)

        m.d.sync += [pins.command.eq(_NOP), pins.drive.eq(0), pins.mask.eq(0)]
        m.d.comb += self.request.ready.eq(0)
        wait = Signal(range(max(cycles["refresh"], cycles["active"])))  # idle cycles before the next command
        recover = Mux(is_write, cycles["recover"] - 1, 0)
        with m.If(wait != 0):
            m.d.sync += wait.eq(wait - 1)

        with m.FSM():
            with m.State("START"):
                self._start(m)
            with m.State("IDLE"):
                with m.If(wait == 0):
                    with m.If(refresh_due):
                        m.d.sync += [pins.command.eq(_REFRESH), wait.eq(cycles["refresh"] - 1)]
                        m.d.comb += self._refreshed.eq(1)
                    with m.Elif(beats != 0):
                        m.d.sync += [
                            pins.command.eq(_ACTIVATE),
                            pins.bank.eq(bank),
                            pins.address.eq(row),
                            wait.eq(cycles["active"] - 1),
                        ]
                        m.next = "OPEN"
                    with m.Else():
                        m.d.comb += self.request.ready.eq(1)
                        with m.If(self.request.valid):
                            request = self.request.payload
                            m.d.sync += [
                                is_write.eq(request.write),
                                address.eq(request.address),
                                beats.eq(request.len + 1),
                            ]
            with m.State("OPEN"):
                begins = ~refresh_due & Mux(is_write, self.write.valid, room)
                row_ends = column == (1 << _COLUMN_BITS) - 1
                with m.If(wait == 0):
                    with m.If((part != 0) | begins):
                        m.d.sync += [
                            pins.command.eq(Mux(is_write, _WRITE, _READ)),
                            pins.address.eq(column),
                            pins.drive.eq(is_write),
                            pins.write_data.eq(self.write.payload.data.word_select(part, 16)),
                            pins.mask.eq(Mux(is_write, ~self.write.payload.strb.word_select(part, 2), 0)),
                            part.eq(part + 1),
                            address.eq(address + 2),
                        ]
                        m.d.comb += self._reads.eq(~is_write)
                        with m.If(part == _WORDS - 1):
                            m.d.comb += self.write.ready.eq(is_write)
                            m.d.sync += beats.eq(beats - 1)
                            with m.If((beats == 1) | row_ends):
                                m.d.sync += wait.eq(recover)
                                m.next = "CLOSE"
                    with m.Elif(refresh_due):
                        m.d.sync += wait.eq(recover)
                        m.next = "CLOSE"
            with m.State("CLOSE"):
                with m.If(wait == 0):
                    m.d.sync += [
                        pins.command.eq(_PRECHARGE),
                        pins.address.eq(_ALL_BANKS),
                        wait.eq(cycles["precharge"] - 1),
                    ]
                    m.next = "IDLE"
        return m

    def _start(self, m: Module) -> None:
        """Counts down through power-up, precharge, refreshes and the mode register."""
        precharge = (_REFRESHES + 2) * _REFRESH_GAP
        left = Signal(range(self._cycles["start"] + precharge + 1), init=self._cycles["start"] + precharge)
        m.d.sync += left.eq(left - 1)
        with m.Switch(left):
            with m.Case(precharge):
                m.d.sync += [self.pins.command.eq(_PRECHARGE), self.pins.address.eq(_ALL_BANKS)]
            with m.Case(*range(2 * _REFRESH_GAP, precharge, _REFRESH_GAP)):
                m.d.sync += self.pins.command.eq(_REFRESH)
            with m.Case(_REFRESH_GAP):
                m.d.sync += [self.pins.command.eq(_SET_MODE), self.pins.address.eq(_MODE), self.pins.bank.eq(0)]
            with m.Case(0):
                m.next = "IDLE"

    def _refresh_timer(self, m: Module) -> Value:
        """Whether a refresh is due; ``_refreshed`` starts the next interval."""
        left = Signal(range(self._cycles["interval"]), init=self._cycles["interval"] - 1)
        self._refreshed = Signal()
        with m.If(self._refreshed):
            m.d.sync += left.eq(self._cycles["interval"] - 1)
        with m.Elif(left != 0):
            m.d.sync += left.eq(left - 1)
        return left == 0

    def _read_side(self, m: Module) -> Value:
        """Collects the words of reads (``_reads``: one is commanded now); returns whether a whole beat has room."""
        self._reads = Signal()
        flight = Signal(3)  # command at the pins, in the chip, data at the pins
        captured = Signal(16)
        words = Signal(8 * BEAT_BYTES)
        count = Signal(range(_WORDS))
        m.submodules.queue = queue = fifo.SyncFIFO(width=8 * BEAT_BYTES, depth=8)
        push = Signal()
        m.d.sync += [flight.eq(Cat(self._reads, flight)), captured.eq(self.pins.read_data), push.eq(0)]
        with m.If(flight[2]):
            m.d.sync += [words.eq(Cat(words[16:], captured)), count.eq(count + 1), push.eq(count == _WORDS - 1)]
        m.d.comb += [
            queue.w_data.eq(words),
            queue.w_en.eq(push),
            self.read.payload.eq(queue.r_data),
            self.read.valid.eq(queue.r_rdy),
            queue.r_en.eq(self.read.ready),
        ]
        return queue.level < queue.depth - 3  # two beats may be on their way
