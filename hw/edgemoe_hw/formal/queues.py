"""The FIFO and the register slice: nothing is lost, doubled, overtaken or changed inside."""

from types import SimpleNamespace

from amaranth.hdl import Value

from edgemoe_hw.formal.check import Check, opened
from edgemoe_hw.formal.tracking import Tracked
from edgemoe_hw.primitives.fifo import Fifo
from edgemoe_hw.primitives.register_slice import RegisterSlice

__all__ = ["fifo_entries", "fifo_holds", "fifo_check", "slice_check", "slice_holds"]

_WIDTH = 3


def fifo_entries(check: Check, fifo: Fifo, inside: SimpleNamespace) -> Value:
    """Number of entries of an ``opened`` FIFO, from its pointers, which never hold more than it has places."""
    entries = (inside.written - inside.taken)[: len(inside.written)]
    check.invariant(entries <= (1 << (len(inside.written) - 1)))
    return Value.cast(entries)


def fifo_holds(check: Check, inside: SimpleNamespace, place: Value) -> Value:
    """What is in an ``opened`` FIFO, ``place`` entries behind the oldest one."""
    port = inside.memory.read_port(domain="comb")
    check.m.d.comb += port.addr.eq(inside.taken + place)
    return Value.cast(port.data)


def fifo_check(depth: int = 8, unit: type[Fifo] = Fifo) -> Check:
    """A FIFO whose both sides do what they like."""
    check = Check(f"Fifo of {depth}", depth=depth + 4)
    dut = unit(_WIDTH, depth)
    inside = opened(dut)
    check.add(dut)
    pushed, popped = dut.w_en & dut.w_rdy, dut.r_en & dut.r_rdy
    entry = Tracked(check, "fifo", pushed=pushed, popped=popped, word=dut.w_data, most=depth)
    check.invariant(fifo_entries(check, dut, inside) == entry.count)
    check.invariant(~entry.chosen | (fifo_holds(check, inside, entry.ahead) == entry.word))
    check.always(
        "order and content",
        "the entry with n in front of it is the (n + 1)-th to come out, as it went in",
        ~entry.leaves | (dut.r_data == entry.word),
    )
    check.always(
        "no underflow, no overflow",
        "r_rdy exactly while there are entries, w_rdy exactly while there are free places",
        (dut.r_rdy == (entry.count != 0)) & (dut.w_rdy == (entry.count != depth)),
    )
    check.always("level", "level is the number of entries, one cycle ago", dut.level == check.past(entry.count))
    check.cover("full", ~dut.w_rdy)
    check.cover("an entry behind others leaves", entry.leaves & (check.past(entry.ahead) == 1))
    return check


def slice_holds(check: Check, unit: RegisterSlice, inside: SimpleNamespace, entry: Tracked) -> None:
    """Where an ``opened`` slice has the transfer that is followed through it."""
    check.invariant(entry.count == unit.o.valid + inside.waits)
    check.invariant(~inside.waits | unit.o.valid)
    check.invariant(~(entry.chosen & (entry.ahead == 1)) | (Value.cast(inside.spare) == entry.word))
    check.invariant(~(entry.chosen & (entry.ahead == 0)) | (Value.cast(unit.o.payload) == entry.word))


def slice_check(unit: type[RegisterSlice] = RegisterSlice) -> Check:
    """A register slice whose both sides do what they like."""
    check = Check("RegisterSlice", depth=8)
    dut = unit(_WIDTH)
    inside = opened(dut)
    check.add(dut)
    pushed, popped = dut.i.valid & dut.i.ready, dut.o.valid & dut.o.ready
    entry = Tracked(check, "slice", pushed=pushed, popped=popped, word=dut.i.payload, most=2)
    slice_holds(check, dut, inside, entry)
    check.always(
        "order and content",
        "the transfer with n in front of it is the (n + 1)-th to come out, as it went in",
        ~entry.leaves | (dut.o.payload == entry.word),
    )
    check.always("stable", "a transfer that waits keeps valid and payload", check.stable(dut.o))
    check.always("capacity", "not ready only with two transfers inside", dut.i.ready == (entry.count != 2))
    check.cover("two wait", entry.count == 2)
    check.cover("the second one leaves", entry.leaves & (check.past(entry.ahead) == 1))
    return check
