"""The queue in front of one engine: holds commands until what they wait for is finished."""

from amaranth.hdl import Array, Cat, Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from edgemoe_hw.interfaces import COMMAND, queued_layout
from edgemoe_hw.layouts import Header
from edgemoe_hw.primitives.fifo import Fifo
from edgemoe_hw.spec.constants import COUNT_BITS, QUEUE_COMMANDS, TOKEN_BITS
from edgemoe_hw.spec.isa import Engine

__all__ = ["CommandQueue"]


_OUTSTANDING = 32
"""Commands that have left the queue and do not count yet: what an engine takes, and what was skipped behind that."""


class CommandQueue(wiring.Component):
    """FIFO of commands whose head goes to the engine only when all four of its ``waits`` are met, and their counter.

    A predicated command of an expert without tokens is skipped: it never reaches the engine, and counts as finished as
    soon as all commands before it are.

    Throughput one command in two cycles, as fast as the engines take them; three cycles from input to output, one from
    the last count that a command waits for to its output.

    Args:
        payload: the command's payload (``layouts.Load``, ...); only its bits are stored
        max_experts: number of expert queues
        depth: commands that it holds

    Members:
        commands: from the sequencer
        output: the command (``interfaces.queued_layout``), from registers
        finished: the engine has finished the oldest of the commands that it took and had not finished; in the cycle in
            which it takes that command at the earliest. ``done`` counts it a cycle later, or up to three where several
            have just left or finished
        done: commands that have finished or were skipped, in their order. Programs have fewer than 2**16 commands, so
            it never wraps and a plain comparison is exact
        all_done: the ``done`` of every engine's queue (``isa.Engine`` order)
        expert_counts: tokens of each expert; final in the cycle before the last count that says so
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
        m.submodules.fifo = queue = Fifo(stored.size, self._depth)
        word = self.commands.payload.word
        bits = Header.size + self._payload.size
        m.d.comb += [
            queue.w_data.eq(Cat(word[:bits], self.commands.payload.index)),
            queue.w_en.eq(self.commands.valid),
            self.commands.ready.eq(queue.w_rdy),
        ]

        # The head is replaced in the cycle after the output has taken it over, so that its enable and the FIFO's are a
        # register. The output loads while it is free; whether it then counts as full, one bit, depends on the waits.
        head = Signal(stored, reset_less=True)
        fresh, full, skip, tokens = Signal(), Signal(), Signal(), Signal(TOKEN_BITS)
        leaves, room = Signal(), Signal()
        output = Signal(queued_layout(self._payload), reset_less=True)
        m.d.comb += [queue.r_en.eq(~fresh), self.empty.eq(~fresh & ~full)]
        waiting = fresh & ~full
        for engine in Engine:
            m.d.comb += self.blocked[engine].eq(waiting & (self.all_done[engine] < head.header.waits[engine]))
        release = waiting & ~self.blocked.any()
        with m.If(~fresh):
            m.d.sync += [fresh.eq(queue.r_rdy), head.eq(queue.r_data)]
        with m.Elif(release):
            m.d.sync += fresh.eq(0)

        none = Signal(len(self.expert_counts))  # a cycle late: of the experts, which have no tokens
        m.d.sync += none.eq(Cat(count == 0 for count in self.expert_counts))
        m.d.comb += tokens.eq(Array(list(self.expert_counts))[head.header.expert])
        with m.If(full):
            m.d.sync += full.eq(~leaves)
        with m.Else():
            m.d.sync += [
                full.eq(release),
                skip.eq(head.header.predicated & Array(list(none))[head.header.expert]),
                output.header.eq(head.header),
                output.payload.eq(head.payload),
                output.index.eq(head.index),
                output.tokens.eq(tokens),
            ]
        self._count(m, leaves, skip, room)
        m.d.comb += [
            self.output.payload.eq(output),
            self.output.valid.eq(full & ~skip & room),
            leaves.eq(full & room & (skip | self.output.ready)),
        ]
        return m

    def _count(self, m: Module, leaves: Signal, skip: Signal, room: Signal) -> None:
        """Counts in the order in which commands left; ``room``: one more may leave, beside those on their way here.

        A command that is offered to the engine has its place and keeps it, as the engine may look at it a cycle late.
        """
        m.submodules.order = order = Fifo(1, _OUTSTANDING)  # whether it was skipped
        left, left_skip = Signal(), Signal()
        offered = self.output.valid & ~leaves
        m.d.sync += [left.eq(leaves), left_skip.eq(skip), room.eq((order.level < _OUTSTANDING - 4) | offered)]
        m.d.comb += [order.w_en.eq(left), order.w_data.eq(left_skip)]

        # `waits`: there is an oldest command. `finished` may come late in its cycle, so only the count's enable and one
        # bit depend on it; the number of those that have finished and are not counted, `early`, follows a cycle later.
        waits, skipped, counts = Signal(), Signal(), Signal()
        early = Signal(range(_OUTSTANDING + 1))
        finished, counted = Signal(), Signal()
        m.d.comb += [order.r_en.eq(~waits), counts.eq(waits & (skipped | (early != 0) | self.finished))]
        m.d.sync += [finished.eq(self.finished), counted.eq(counts & ~skipped)]
        with m.If(finished & ~counted):
            m.d.sync += early.eq(early + 1)
        with m.Elif(counted & ~finished):
            m.d.sync += early.eq(early - 1)
        with m.If(~waits):
            m.d.sync += [waits.eq(order.r_rdy), skipped.eq(order.r_data)]
        with m.Elif(counts):
            m.d.sync += [waits.eq(0), self.done.eq(self.done + 1)]
