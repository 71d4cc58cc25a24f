"""Splits a contiguous transfer into AXI bursts."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from edgemoe_hw.interfaces import READ_REQUEST
from edgemoe_hw.primitives.arithmetic import truncate
from edgemoe_hw.spec.config import AcceleratorConfig
from edgemoe_hw.spec.constants import ADDRESS_BITS

__all__ = ["AXI3_BEATS", "AXI4_BEATS", "BEATS_BITS", "BurstSplitter"]

# Of the longest burst.
AXI3_BEATS, AXI4_BEATS = 16, 256
BEATS_BITS = 25


class BurstSplitter(wiring.Component):
    """Makes the bursts of one transfer, one every two cycles; the first is offered four cycles after ``start``.

    A burst ends where the transfer ends or at a multiple of ``burst_beats``, whichever comes first. So none has more
    beats or crosses 4 KiB, and no length is a minimum of others: the transfer is cut into blocks, of which only the
    first and the last may be partial.

    Args:
        burst_beats: of the longest burst, a power of two: what the bus allows

    Members:
        start: one cycle, only while ``busy`` is 0: begin at ``address``, a multiple of a beat's bytes, with ``beats``
            beats (0: nothing to do)
        requests: the bursts
        busy: not all bursts are taken
    """

    def __init__(self, config: AcceleratorConfig, burst_beats: int = AXI4_BEATS):
        self._config, self._burst_beats = config, burst_beats
        super().__init__(
            {
                "start": In(1),
                "address": In(ADDRESS_BITS),
                "beats": In(BEATS_BITS),
                "requests": Out(stream.Signature(READ_REQUEST)),
                "busy": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        beat_bits, block_bits = exact_log2(self._config.axi_bytes), exact_log2(self._burst_beats)
        low = Signal(block_bits)  # beat within the block where the next burst begins
        block = Signal(ADDRESS_BITS - beat_bits - block_bits)
        before_last = Signal(BEATS_BITS)  # beats but one
        started, counted, going = Signal(), Signal(), Signal()
        blocks_left, end = Signal(BEATS_BITS + 1 - block_bits), Signal(block_bits)  # after the next burst; last beat
        final = Signal()  # what ``blocks_left`` says, in time for the next burst
        m.d.comb += self.busy.eq(started | counted | going | self.requests.valid)

        address = self.address[beat_bits:]
        m.d.sync += [
            started.eq(self.start & (self.beats != 0)),
            counted.eq(started),
            final.eq(blocks_left == 0),
        ]
        with m.If(self.start):
            m.d.sync += [low.eq(address[:block_bits]), block.eq(address[block_bits:])]
            m.d.sync += before_last.eq(truncate(self.beats - 1, BEATS_BITS))  # there are beats, or nothing is done
        last = low + before_last  # counted from the first block's begin
        with m.If(self.requests.ready):
            m.d.sync += self.requests.valid.eq(0)
        with m.If(started):
            m.d.sync += Cat(end, blocks_left).eq(last[: BEATS_BITS + 1])
        with m.If(counted):
            m.d.sync += going.eq(1)
        with m.If(going & ~self.requests.valid):
            m.d.sync += [
                self.requests.valid.eq(1),
                self.requests.payload.addr.eq(Cat(low, block) << beat_bits),
                self.requests.payload.len.eq((Mux(final, end, self._burst_beats - 1) - low)[:block_bits]),
                blocks_left.eq(blocks_left - 1),
                block.eq(block + 1),
                low.eq(0),
                going.eq(~final),
            ]
        return m
