"""Splits a contiguous transfer into AXI bursts."""

from amaranth.hdl import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from edgemoe_hw.interfaces import READ_REQUEST
from edgemoe_hw.primitives.arithmetic import minimum, truncate
from edgemoe_hw.spec.config import AcceleratorConfig
from edgemoe_hw.spec.constants import ADDRESS_BITS

__all__ = ["BurstSplitter"]

MAX_BEATS = 256
PAGE_BYTES = 4096
BEATS_BITS = 25


class BurstSplitter(wiring.Component):
    """Makes the bursts of one transfer, each at most 256 beats and within 4 KiB, one every two cycles.

    Members:
        start: one cycle, only while ``busy`` is 0: begin at ``address`` with ``beats`` beats (0: nothing to do)
        requests: the bursts
        busy: not all bursts are taken
    """

    def __init__(self, config: AcceleratorConfig):
        self._config = config
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
        beat_bits = exact_log2(self._config.axi_bytes)
        address = Signal(ADDRESS_BITS)
        left = Signal(BEATS_BITS)
        page_left = Signal(range(PAGE_BYTES // self._config.axi_bytes + 1))
        limit = Signal(range(MAX_BEATS + 1))
        m.d.comb += [
            self.busy.eq((left != 0) | self.requests.valid),
            page_left.eq(PAGE_BYTES // self._config.axi_bytes - address[beat_bits:12]),
            limit.eq(minimum(page_left, MAX_BEATS)),
        ]
        length = Signal(range(MAX_BEATS + 1))
        m.d.comb += length.eq(minimum(left, limit))

        with m.If(self.requests.ready):
            m.d.sync += self.requests.valid.eq(0)
        with m.If(self.start):
            m.d.sync += [address.eq(self.address), left.eq(self.beats)]
        with m.Elif((left != 0) & ~self.requests.valid):
            m.d.sync += [
                self.requests.valid.eq(1),
                self.requests.payload.addr.eq(address),
                self.requests.payload.len.eq(truncate(length - 1, 8)),  # 0 to 255: there is something left
                left.eq(left - length),
                address.eq(address + (length << beat_bits)),
            ]
        return m
