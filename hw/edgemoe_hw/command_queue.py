"""The queue in front of one engine: holds commands until what they wait for is finished."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import data, fifo, stream, wiring
from amaranth.lib.wiring import In, Out

from . import isa
from .interfaces import COMMAND, queued_layout

__all__ = ["QUEUE_COMMANDS", "CommandQueue"]

QUEUE_COMMANDS = 16
"""Commands that an engine's queue holds; the compiler orders programs by it."""


class CommandQueue(wiring.Component):
    """FIFO of commands whose output is valid only when all four ``wait_*`` conditions of its head hold.

    Throughput one command a cycle; two cycles from input to output.

    Parameters
    ----------
    payload: the command's payload (``isa.Load``, ...); only its bits are stored
    max_experts: width of ``queue_nonempty``
    depth: commands that it holds

    Members
    -------
    commands: from the sequencer
    output: the head (``interfaces.queued_layout``); ``skip`` is valid with it
    done: commands that each engine has finished (``isa.Engine`` order). Programs have fewer than 2**16 commands, so
        the counters never wrap and a plain comparison is exact
    queue_nonempty: bit e is set while expert e has tokens
    blocked: which engines the head waits for (0 while there is none)
    empty: there is no head
    """

    def __init__(self, payload, *, max_experts: int, depth: int = QUEUE_COMMANDS):
        if depth < 2:
            raise ValueError(f"depth must be at least 2, not {depth!r}")
        self._payload = payload
        self._depth = depth
        super().__init__({
            "commands": In(stream.Signature(COMMAND)),
            "output": Out(stream.Signature(queued_layout(payload))),
            "done": In(16).array(len(isa.Engine)),
            "queue_nonempty": In(max_experts),
            "blocked": Out(len(isa.Engine)),
            "empty": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        stored = data.StructLayout({"header": isa.Header, "payload": self._payload, "index": 16})
        m.submodules.fifo = queue = fifo.SyncFIFO(width=stored.size, depth=self._depth)
        word = self.commands.payload.word
        bits = isa.HEADER_BITS + self._payload.as_shape().size
        m.d.comb += [
            queue.w_data.eq(Cat(word[:bits], self.commands.payload.index)),
            queue.w_en.eq(self.commands.valid),
            self.commands.ready.eq(queue.w_rdy),
        ]

        # A register behind the FIFO keeps its asynchronous read out of the comparisons' path.
        head = Signal(stored)
        valid = Signal()
        take = self.output.valid & self.output.ready
        m.d.comb += queue.r_en.eq(~valid | take)
        with m.If(queue.r_en):
            m.d.sync += [valid.eq(queue.r_rdy), head.eq(queue.r_data)]

        waits = (head.header.wait_load, head.header.wait_matmul, head.header.wait_norm, head.header.wait_store)
        for engine, wait in enumerate(waits):
            m.d.comb += self.blocked[engine].eq(valid & (self.done[engine] < wait))
        m.d.comb += [
            self.empty.eq(~valid),
            self.output.valid.eq(valid & ~self.blocked.any()),
            self.output.payload.header.eq(head.header),
            self.output.payload.payload.eq(head.payload),
            self.output.payload.index.eq(head.index),
            self.output.payload.skip.eq(
                head.header.predicated & ~self.queue_nonempty.bit_select(head.header.expert, 1)),
        ]
        return m
