"""The command queue: every command leaves in its turn after its waits, or is skipped in its place; all are counted."""

from types import SimpleNamespace
from unittest.mock import patch

from amaranth.hdl import Array, Cat, Const, Mux, Signal, Value
from amaranth.lib import data

from edgemoe_hw.control_plane import command_queue
from edgemoe_hw.control_plane.command_queue import CommandQueue
from edgemoe_hw.formal.check import Check, opened
from edgemoe_hw.formal.queues import fifo_entries, fifo_holds
from edgemoe_hw.formal.tracking import Tracked
from edgemoe_hw.layouts import Header
from edgemoe_hw.spec.constants import COUNT_BITS

__all__ = ["command_queue_check"]

_PAYLOAD = data.StructLayout({"value": 2})
_EXPERTS, _DEPTH = 2, 4
_OUTSTANDING = 8  # instead of the unit's 32: sums over its places are what takes the solver's time
_COUNTED_WITHIN = 3
"""Cycles after a command's finish and all counts before it, of which ``CommandQueue.done`` speaks."""


def command_queue_check(unit: type[CommandQueue] = CommandQueue) -> Check:
    """A queue of any commands, before an engine that finishes only what it has taken, among counts that only grow."""
    check = Check("CommandQueue", depth=16)
    dut = unit(_PAYLOAD, max_experts=_EXPERTS, depth=_DEPTH)
    with patch.object(command_queue, "_OUTSTANDING", _OUTSTANDING):
        inside = opened(dut)
    check.add(dut)
    started = dut.output.valid & dut.output.ready
    working = check.counter(7, started, dut.finished, "working")  # commands that the engine has
    check.assume(~dut.finished | (working != 0) | started)
    for count in dut.all_done:
        check.assume(count >= check.past(count))
    _order_and_waits(check, dut, inside)
    _counts(check, dut, inside, working)
    check.cover("a command waits for its engine's own count", dut.blocked[0] & ~dut.blocked[1])
    check.cover("a finish in the cycle of the start", started & dut.finished & (working == 0))
    return check


def _order_and_waits(check: Check, dut: CommandQueue, inside: SimpleNamespace) -> None:
    queue, head, full, fresh = inside.queue, inside.head, inside.full, inside.fresh
    pushed = dut.commands.valid & dut.commands.ready
    stored = Cat(dut.commands.payload.word[: Header.size + _PAYLOAD.size], dut.commands.payload.index)
    command = Tracked(check, "command", pushed=pushed, popped=inside.leaves, word=stored, most=_DEPTH + 2)
    fifo = opened(queue)
    output = inside.output
    shown = Cat(output.header, output.payload, output.index)
    check.invariant(fifo_entries(check, queue, fifo) + fresh + full == command.count)
    at_output = full & (command.ahead == 0)
    at_head = fresh & (command.ahead == full)
    held = fifo_holds(check, fifo, command.ahead - full - fresh)
    check.invariant(~command.chosen | (command.word == Mux(at_output, shown, Mux(at_head, Value.cast(head), held))))

    check.always(
        "order and content",
        "the command with n in front of it is the (n + 1)-th to start or to be skipped, and starts as it came",
        ~command.leaves | (command.word == shown),
    )
    check.always(
        "one way out",
        "a command leaves either to the engine or by being skipped, never both",
        (inside.leaves & ~inside.skip) == (dut.output.valid & dut.output.ready),
    )
    check.always(
        "after its waits",
        "a command starts, or is skipped, only when every engine's count has reached what it waits for",
        ~full | Cat(done >= wait for done, wait in zip(dut.all_done, output.header.waits, strict=True)).all(),
    )
    arrives = full & ~check.past(full)
    before = Array([check.past(count) for count in dut.expert_counts])  # when the last wait was met
    empty = [check.past(count == 0) for count in dut.expert_counts]
    earlier = Array([check.past(was_empty) for was_empty in empty])
    check.invariant(inside.none == Cat(empty))
    skipped = output.header.predicated & earlier[output.header.expert]
    check.always(
        "skipped exactly when empty",
        "a command is skipped if it is predicated and its expert's queue was empty in the cycle before its last wait "
        "was met, and only then",
        ~arrives | (inside.skip == skipped),
    )
    check.always(
        "tokens",
        "a command starts with the length of its expert's queue of the cycle in which its last wait was met",
        ~arrives | (output.tokens == before[output.header.expert]),
    )
    check.always(
        "valid held",
        "a command that is offered to the engine stays offered until it is taken",
        ~check.past(dut.output.valid & ~dut.output.ready) | dut.output.valid,
    )
    held_back = check.past(full & ~inside.leaves)
    content = Cat(output, inside.skip)
    check.always(
        "payload stable",
        "what waits for the engine does not change",
        ~held_back | (full & (content == check.past(content))),
    )


def _counts(check: Check, dut: CommandQueue, inside: SimpleNamespace, working: Signal) -> None:
    order, left, waits, skipped, counts = inside.order, inside.left, inside.waits, inside.skipped, inside.counts
    fifo = opened(order)
    places = fifo.memory.depth
    gone = Tracked(check, "left", pushed=inside.leaves, popped=counts, word=inside.skip, most=places + 2)
    entries = fifo_entries(check, order, fifo)
    check.invariant(entries + left + waits == gone.count)
    at_front = waits & (gone.ahead == 0)
    at_back = left & (gone.ahead == entries + waits)
    held = fifo_holds(check, fifo, gone.ahead - waits)
    check.invariant(~gone.chosen | (gone.word == Mux(at_front, skipped, Mux(at_back, inside.left_skip, held))))

    # What left is remembered in time: the FIFO has room for all that may leave before it is seen to be full.
    one, left_before = check.past(entries), check.past(left)
    two, left_earlier = check.past(one), check.past(left_before)
    check.invariant(order.level == one)
    offered = check.past(dut.output.valid & ~inside.leaves)  # it keeps its place, however many are remembered
    check.invariant(~inside.room | (two < places - 4) | offered)
    check.invariant(~offered | (entries + left <= places - 2))
    check.invariant((entries <= one + left_before) & (one <= two + left_earlier))
    check.always(
        "room",
        "what has left and is not counted always has its place",
        ~left | order.w_rdy,
    )

    # Finishes that are not counted yet: a cycle or two later they are in ``early``.
    unused = check.counter(7, dut.finished, counts & ~skipped, "uncounted_finishes")
    check.invariant(inside.early + inside.finished == unused + inside.counted)
    check.invariant(~inside.counted | ~waits)
    started_inside = _started(check, fifo, entries) + (left & ~inside.left_skip) + (waits & ~skipped)
    check.invariant(working + unused == started_inside)
    check.always(
        "counted in order",
        "the n-th count is that of the n-th command that started or was skipped, each once",
        ~gone.leaves | (skipped == gone.word),
    )
    total = check.counter(COUNT_BITS, inside.leaves, name="commands_left")
    check.always(
        "nothing lost",
        "commands that started or were skipped, less those that are counted, are those that are still remembered",
        (total - dut.done - entries - left - waits)[:COUNT_BITS] == 0,
    )
    check.always(
        "no count without a finish",
        "a command that started counts only when the engine has finished it; one that was skipped needs no finish",
        ~(counts & ~skipped) | (unused != 0) | dut.finished,
    )
    oldest_skipped = Mux(waits, skipped, Mux(entries != 0, fifo_holds(check, fifo, Const(0, 1)), inside.left_skip))
    due = (gone.count != 0) & (oldest_skipped | (unused != 0))
    waiting = check.cycles_since(~due | counts, _COUNTED_WITHIN + 1)
    check.show("cycles_due", waiting)
    check.invariant(~(waiting >= 1) | waits | (entries != 0))
    check.invariant(~(waiting >= 2) | waits)
    check.invariant(~(waiting >= 3) | skipped | (inside.early != 0))
    check.always(
        "counted in time",
        f"at most {_COUNTED_WITHIN} cycles after it has finished, or was skipped, and all before it are counted",
        waiting <= _COUNTED_WITHIN,
    )
    behind = check.past(counts & ~skipped, 2)
    check.cover("a skipped command right behind another one is counted", counts & skipped & behind)
    check.cover("several finishes wait to be counted", unused == 3)


def _started(check: Check, fifo: SimpleNamespace, entries: Value) -> Value:
    """How many entries of the ``opened`` list of what has left were not skipped."""
    bits = len(fifo.taken) - 1
    found: list[Value] = []
    for row in range(fifo.memory.depth):
        port = fifo.memory.read_port(domain="comb")
        check.m.d.comb += port.addr.eq(row)
        inside = (Const(row, bits) - fifo.taken)[:bits] < entries
        found.append(Value.cast(inside & ~port.data))
    return Value.cast(sum(found[1:], found[0]))
