"""Tokens of each expert in every MoE block of a program, kept for the host."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from edgemoe_hw.primitives.arithmetic import truncate
from edgemoe_hw.spec.config import AcceleratorConfig
from edgemoe_hw.spec.constants import MAX_BLOCKS, TOKEN_BITS

__all__ = ["ExpertLoads"]


class ExpertLoads(wiring.Component):
    """Copies the lengths of the expert queues, which each block's gate empties, to a row of a small memory.

    Blocks after the ``MAX_BLOCKS``th are not recorded.

    Members:
        start: a program starts
        clear: a block's gate empties the queues; their lengths are 0 from the next cycle on
        counts: lengths of the queues
        blocks: number of blocks whose gate has begun, at most ``MAX_BLOCKS``
        block: which row is read, from 0
        loads: lengths at that block's end, or so far; without meaning from ``blocks`` on
    """

    def __init__(self, config: AcceleratorConfig):
        super().__init__(
            {
                "start": In(1),
                "clear": In(1),
                "counts": In(TOKEN_BITS).array(config.max_experts),
                "blocks": Out(range(MAX_BLOCKS + 1)),
                "block": In(range(MAX_BLOCKS)),
                "loads": Out(TOKEN_BITS).array(config.max_experts),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        row = Signal(range(MAX_BLOCKS))
        recording = Signal()
        m.submodules.memory = memory = Memory(
            shape=TOKEN_BITS * len(self.counts), depth=MAX_BLOCKS, init=[], attrs={"ram_style": "distributed"}
        )
        write, read = memory.write_port(), memory.read_port(domain="comb")
        m.d.comb += [
            write.addr.eq(row),
            write.data.eq(Cat(self.counts)),
            write.en.eq(recording),
            read.addr.eq(self.block),
            Cat(self.loads).eq(read.data),
        ]
        with m.If(self.start):
            m.d.sync += [self.blocks.eq(0), recording.eq(0)]
        with m.Elif(self.clear):
            full = self.blocks == MAX_BLOCKS
            m.d.sync += [
                self.blocks.eq(self.blocks + ~full),
                row.eq(truncate(self.blocks, len(row))),
                recording.eq(~full),
            ]
        return m
