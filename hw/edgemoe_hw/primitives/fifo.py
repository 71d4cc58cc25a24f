"""A small FIFO of short paths."""

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

__all__ = ["Fifo"]


class Fifo(wiring.Component):
    """As ``amaranth.lib.fifo.SyncFIFO``, of a power of two entries.

    Two pointers with one bit more than a place, and no level: none of its registers waits for an addition that waits
    for the other side.

    Args:
        width: bits of an entry
        depth: entries, 2, 4, 8, ...

    Members:
        w_data, w_en, w_rdy: ``w_data`` goes in in a cycle with both
        r_data, r_en, r_rdy: ``r_data`` (LUT memory, while ``r_rdy``) goes out in a cycle with both
        level: entries, one cycle ago
    """

    def __init__(self, width: int, depth: int):
        self._bits = exact_log2(depth)
        self._depth = depth
        super().__init__(
            {
                "w_data": In(width),
                "w_en": In(1),
                "w_rdy": Out(1),
                "r_data": Out(width),
                "r_en": In(1),
                "r_rdy": Out(1),
                "level": Out(range(depth + 1)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.memory = memory = Memory(shape=len(self.w_data), depth=self._depth, init=[])
        write, read = memory.write_port(), memory.read_port(domain="comb")
        written, taken = Signal(self._bits + 1), Signal(self._bits + 1)
        m.d.comb += [
            self.r_rdy.eq(written != taken),
            self.w_rdy.eq((written ^ taken) != self._depth),
            write.addr.eq(written[:-1]),
            write.data.eq(self.w_data),
            write.en.eq(self.w_en & self.w_rdy),
            read.addr.eq(taken[:-1]),
            self.r_data.eq(read.data),
        ]
        m.d.sync += self.level.eq(written - taken)
        with m.If(self.w_en & self.w_rdy):
            m.d.sync += written.eq(written + 1)
        with m.If(self.r_en & self.r_rdy):
            m.d.sync += taken.eq(taken + 1)
        return m
