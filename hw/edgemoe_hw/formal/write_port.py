"""The port of all writes: legal channels, and on W exactly the beats that AW promised, in their order."""

from amaranth.hdl import Cat, Mux, Signal, Value

from edgemoe_hw.bus.axi_ports import WritePort
from edgemoe_hw.formal.bursts import in_one_page
from edgemoe_hw.formal.check import Check, opened
from edgemoe_hw.formal.ports import address_claims
from edgemoe_hw.formal.queues import slice_holds
from edgemoe_hw.formal.tracking import Tracked
from edgemoe_hw.spec.config import AcceleratorConfig

__all__ = ["write_port_check"]


def write_port_check(config: AcceleratorConfig, unit: type[WritePort] = WritePort) -> Check:
    """A write port whose client asks for legal bursts, before a slave that answers only bursts that are complete."""
    check = Check(f"WritePort, {config.axi_bytes} B")
    dut = unit(config)
    inside = opened(dut)
    gate = inside.beats  # the register slice before the bus
    opened_gate = opened(gate)
    check.add(dut)
    request = dut.request.payload
    taken, sent, out = inside.taken, gate.i.valid & gate.i.ready, dut.w.valid & dut.w.ready
    check.assume(~dut.request.valid | in_one_page(request.addr, request.len, config.axi_bytes))

    # Bursts: their addresses on the bus, their last beats, both and no answer yet.
    open_aw = check.counter(9, taken, dut.aw.valid & dut.aw.ready, "bursts_without_address")
    open_w = check.counter(9, taken, out & dut.w.payload.last, "bursts_without_last_beat")
    open_b = check.counter(9, taken, dut.b.valid & dut.b.ready, "bursts_without_answer")
    complete = (open_b > open_aw) & (open_b > open_w)
    check.assume(~dut.b.valid | complete)

    # The burst whose beats go in: its length, and how many have gone. What is followed through the slice says so too.
    length, number = Signal(8), Signal(9)
    with check.m.If(taken):
        check.m.d.sync += [length.eq(request.len), number.eq(0)]
    with check.m.Elif(sent):
        check.m.d.sync += number.eq(number + 1)
    owed = length - number
    check.invariant(~inside.owing | ((owed >= 0) & (inside.left == owed) & (inside.last == (owed == 0))))
    strobes = Mux(dut.abort, 0, (1 << config.axi_bytes) - 1)
    ends = number == length
    word = Cat(dut.data.payload.data, Value.cast(strobes)[: config.axi_bytes], ends)
    beat = Tracked(check, "beat", pushed=sent, popped=out, word=word, most=2)
    slice_holds(check, gate, opened_gate, beat)
    last_inside = (gate.o.valid & gate.o.payload.last) + (opened_gate.waits & opened_gate.spare.last)
    check.invariant(open_aw == dut.aw.valid)
    check.invariant(open_w == inside.owing + last_inside)
    newest_ends = Mux(opened_gate.waits, opened_gate.spare.last, gate.o.payload.last)
    check.invariant(~gate.o.valid | newest_ends | inside.owing)
    check.invariant(dut.outstanding == open_b)
    check.invariant((open_b >= open_w) & (open_b >= open_aw))

    address_claims(check, "AW", dut.aw, config)
    check.always(
        "one burst a request",
        "AW has exactly the burst of the request that was taken in the cycle before",
        ~check.past(taken)
        | (dut.aw.valid & (Cat(dut.aw.payload.addr, dut.aw.payload.len) == check.past(Cat(request.addr, request.len)))),
    )
    check.always("W stable", "a beat on W keeps valid, data, strobes and last until it is taken", check.stable(dut.w))
    check.always(
        "WLAST",
        "a burst has as many beats as AW says, WLAST on its last and on no other; no beat belongs to none",
        ~sent | ((owed >= 0) & (gate.i.payload.last == ends)),
    )
    check.always(
        "beats in order",
        "each beat comes to W once, with its data and WLAST; its strobes are all 1, or 0 if it went in while aborted",
        ~beat.leaves | (Value.cast(dut.w.payload) == beat.word),
    )
    check.always(
        "data is the client's",
        "a beat goes in with the client's data when that has some, without it only while aborted",
        (sent == (inside.owing & gate.i.ready & (dut.data.valid | dut.abort)))
        & ((dut.data.valid & dut.data.ready) == (sent & ~dut.abort)),
    )
    check.always(
        "bursts in order",
        "a burst is taken only when all beats of the one before have gone in and its address is on the bus",
        ~taken | (~inside.owing & ~dut.aw.valid),
    )
    check.always("answers", "outstanding is the number of bursts without an answer", dut.outstanding == open_b)
    check.always(
        "idle",
        "idle only when no address, no beat and no answer is owed",
        ~dut.idle | ((open_aw == 0) & (open_w == 0) & (open_b == 0) & ~dut.w.valid),
    )
    check.cover("a burst of three beats is answered", dut.idle & (length == 2) & check.past(dut.b.valid))
    check.cover("beats of an aborted burst", out & (dut.w.payload.strb == 0))
    check.cover("two bursts wait for answers", dut.outstanding == 2)
    return check
