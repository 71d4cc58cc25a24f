"""The queue in front of one engine: holds commands until what they wait for is finished."""

from amaranth.hdl import Array, Cat, Module, Signal, Value
from amaranth.lib import data, fifo, stream, wiring
from amaranth.lib.wiring import In, Out

from edgemoe_hw.interfaces import COMMAND, queued_layout
from edgemoe_hw.layouts import Header
from edgemoe_hw.spec.constants import COUNT_BITS, QUEUE_COMMANDS, TOKEN_BITS
from edgemoe_hw.spec.isa import Engine

__all__ = ["CommandQueue"]


_OUTSTANDING = 32
"""Commands that have left the queue and do not count yet: what an engine takes, and what was skipped behind that."""


class CommandQueue(wiring.Component):
    """FIFO of commands whose head goes to the engine only when all four of its ``waits`` are met, and their counter.

    A predicated command of an expert without tokens is skipped: it never reaches the engine, and counts as finished as
    soon as all commands before it are.

    Throughput one command in two cycles, as fast as the engines take them; three cycles from input to output.

    Args:
        payload: the command's payload (``layouts.Load``, ...); only its bits are stored
        max_experts: number of expert queues
        depth: commands that it holds

    Members:
        commands: from the sequencer
        output: the command (``interfaces.queued_layout``), from registers
        finished: the engine has finished the oldest of the commands that it took and had not finished; in the cycle in
            which it takes that command at the earliest
        done: commands that have finished or were skipped, in their order. Programs have fewer than 2**16 commands, so
            it never wraps and a plain comparison is exact
        all_done: the ``done`` of every engine's queue (``isa.Engine`` order)
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
                "finished": In(1),
                "done": Out(COUNT_BITS),
                "all_done": In(COUNT_BITS).array(len(Engine)),
                "expert_counts": In(TOKEN_BITS).array(max_experts),
                "blocked": Out(len(Engine)),
                "empty": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
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
        # while the waits still run, so that only its `full`, one bit, depends on them.
        head = Signal(stored)
        valid, full, skip = Signal(), Signal(), Signal()
        waiting, take, leaves = Signal(), Signal(), Signal()
        m.d.comb += [
            waiting.eq(valid & ~full),
            take.eq(waiting & ~self.blocked.any()),
            queue.r_en.eq(~valid | take),
            self.empty.eq(~valid & ~full),
        ]
        with m.If(queue.r_en):
            m.d.sync += [valid.eq(queue.r_rdy), head.eq(queue.r_data)]
        for engine in Engine:
            m.d.comb += self.blocked[engine].eq(waiting & (self.all_done[engine] < head.header.waits[engine]))
        tokens = Signal(TOKEN_BITS)
        m.d.comb += tokens.eq(Array(list(self.expert_counts))[head.header.expert])
        with m.If(full):
            m.d.sync += full.eq(~leaves)
        with m.Else():
            m.d.sync += [
                full.eq(take),
                skip.eq(head.header.predicated & (tokens == 0)),
                self.output.payload.header.eq(head.header),
                self.output.payload.payload.eq(head.payload),
                self.output.payload.index.eq(head.index),
                self.output.payload.tokens.eq(tokens),
            ]
        room = self._count(m, leaves, skip)
        m.d.comb += [
            self.output.valid.eq(full & ~skip & room),
            leaves.eq(full & room & (skip | self.output.ready)),
        ]
        return m

    def _count(self, m: Module, leaves: Signal, skip: Signal) -> Value:
        """Counts in the order in which commands left; returns whether one more may leave."""
        m.submodules.order = order = fifo.SyncFIFO(width=1, depth=_OUTSTANDING)  # whether it was skipped
        early = Signal(range(_OUTSTANDING + 1))  # finished, and not counted: those before them come first
        skipped, executed = order.r_rdy & order.r_data, order.r_rdy & ~order.r_data
        counts = Signal()  # the oldest is one that the engine executes, and has finished
        m.d.comb += [
            order.w_en.eq(leaves),
            order.w_data.eq(skip),
            counts.eq(executed & (self.finished | (early != 0))),
            order.r_en.eq(skipped | counts),
        ]
        m.d.sync += [early.eq(early + self.finished - counts), self.done.eq(self.done + order.r_en)]
        return order.w_rdy
