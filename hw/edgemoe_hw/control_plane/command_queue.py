"""The queue in front of one engine: holds commands until what they wait for is finished."""

from amaranth.hdl import Array, Cat, Module, Signal
from amaranth.lib import data, fifo, stream, wiring
from amaranth.lib.wiring import In, Out

from edgemoe_hw.interfaces import COMMAND, queued_layout
from edgemoe_hw.layouts import Header
from edgemoe_hw.spec.constants import COUNT_BITS, QUEUE_COMMANDS, TOKEN_BITS
from edgemoe_hw.spec.isa import Engine

__all__ = ["CommandQueue"]


class CommandQueue(wiring.Component):
    """FIFO of commands whose head goes to the output only when all four of its ``wait_*`` conditions hold.

    Throughput one command in two cycles, as fast as the engines take them; three cycles from input to output.

    Args:
        payload: the command's payload (``layouts.Load``, ...); only its bits are stored
        max_experts: number of expert queues
        depth: commands that it holds

    Members:
        commands: from the sequencer
        output: the command (``interfaces.queued_layout``), from registers
        done: commands that each engine has finished (``Engine`` order). Programs have fewer than 2**16 commands, so
            the counters never wrap and a plain comparison is exact
        expert_counts: tokens of each expert
        blocked: which engines the head waits for (0 while there is none, or while there is an output)
        empty: there is neither a head nor an output
    """

    def __init__(self, payload: data.StructLayout, *, max_experts: int, depth: int = QUEUE_COMMANDS):
        if depth < 2:
            raise ValueError(f"depth must be at least 2, not {depth!r}")
        self._payload = payload
        self._depth = depth
        super().__init__(
            {
                "commands": In(stream.Signature(COMMAND)),
                "output": Out(stream.Signature(queued_layout(payload))),
                "done": In(COUNT_BITS).array(len(Engine)),
                "expert_counts": In(TOKEN_BITS).array(max_experts),
                "blocked": Out(len(Engine)),
                "empty": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        stored = data.StructLayout({"header": Header, "payload": self._payload, "index": COUNT_BITS})
        m.submodules.fifo = queue = fifo.SyncFIFO(width=stored.size, depth=self._depth)
        word = self.commands.payload.word
        bits = Header.size + self._payload.size
        m.d.comb += [
            queue.w_data.eq(Cat(word[:bits], self.commands.payload.index)),
            queue.w_en.eq(self.commands.valid),
            self.commands.ready.eq(queue.w_rdy),
        ]

        # A register behind the FIFO keeps its asynchronous read out of the comparisons' path, and one behind the
        # comparisons keeps these, and the choice of the expert's count, out of the engine's. It takes the head over
        # while the waits still run, so that only its `valid`, one bit, depends on them.
        head = Signal(stored)
        valid = Signal()
        waiting = Signal()
        take = Signal()
        m.d.comb += [
            waiting.eq(valid & ~self.output.valid),
            take.eq(waiting & ~self.blocked.any()),
            queue.r_en.eq(~valid | take),
        ]
        with m.If(queue.r_en):
            m.d.sync += [valid.eq(queue.r_rdy), head.eq(queue.r_data)]

        for engine in Engine:
            m.d.comb += self.blocked[engine].eq(waiting & (self.done[engine] < head.header.waits[engine]))
        tokens = Signal(TOKEN_BITS)
        m.d.comb += [
            tokens.eq(Array(list(self.expert_counts))[head.header.expert]),
            self.empty.eq(~valid & ~self.output.valid),
        ]
        with m.If(self.output.valid):
            m.d.sync += self.output.valid.eq(~self.output.ready)
        with m.Else():
            m.d.sync += [
                self.output.valid.eq(take),
                self.output.payload.header.eq(head.header),
                self.output.payload.payload.eq(head.payload),
                self.output.payload.index.eq(head.index),
                self.output.payload.skip.eq(head.header.predicated & (tokens == 0)),
                self.output.payload.tokens.eq(tokens),
            ]
        return m
