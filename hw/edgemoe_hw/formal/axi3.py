"""The AXI3 slave before the registers: AXI's rules on both sides, and an answer of its own ID for each beat."""

from amaranth.hdl import Signal

from edgemoe_hw.bus.axi3 import Axi3Slave
from edgemoe_hw.formal.check import Check, opened

__all__ = ["axi3_slave_check"]

_ID_BITS, _ADDRESS_BITS, _WINDOW_BITS = 4, 4, 6


def axi3_slave_check(unit: type[Axi3Slave] = Axi3Slave) -> Check:
    """A slave between a processor that keeps to AXI3 and registers that keep to AXI4-Lite, of few address bits."""
    check = Check("Axi3Slave", depth=14)
    dut = unit(id_bits=_ID_BITS, address_bits=_ADDRESS_BITS, window_bits=_WINDOW_BITS)
    inside = opened(dut)
    check.add(dut)
    bus, lite = dut.bus, dut.lite
    for channel in (bus.aw, bus.w, bus.ar, lite.b, lite.r):
        check.assume(check.stable(channel))
    took = {name: getattr(bus, name).valid & getattr(bus, name).ready for name in ("aw", "w", "b", "ar", "r")}
    asked = {name: getattr(lite, name).valid & getattr(lite, name).ready for name in ("aw", "w", "b", "ar", "r")}

    # What is under way: which kind, whose, and how many beats are to come behind the next one.
    reading, writing, taken = Signal(), Signal(), Signal()  # taken: all beats of the write
    ident, left = Signal(_ID_BITS), Signal(4)
    with check.m.If(took["ar"]):
        check.m.d.sync += [reading.eq(1), ident.eq(bus.ar.payload.id), left.eq(bus.ar.payload.len)]
    with check.m.If(took["aw"]):
        check.m.d.sync += [writing.eq(1), ident.eq(bus.aw.payload.id), left.eq(bus.aw.payload.len), taken.eq(0)]
    with check.m.If(took["r"] | took["w"]):
        check.m.d.sync += left.eq(left - 1)
    with check.m.If(took["r"] & (left == 0)):
        check.m.d.sync += reading.eq(0)
    with check.m.If(took["w"] & (left == 0)):
        check.m.d.sync += taken.eq(1)
    with check.m.If(took["b"]):
        check.m.d.sync += writing.eq(0)
    reads = check.counter(2, asked["ar"], asked["r"], "lite_reads")
    addresses = check.counter(2, asked["aw"], asked["b"], "lite_addresses")
    words = check.counter(2, asked["w"], asked["b"], "lite_words")
    check.assume(~lite.r.valid | (reads == 1))
    check.assume(~lite.b.valid | ((addresses == 1) & (words == 1)))

    state = {
        name: inside.fsm.ongoing(name)
        for name in ("IDLE", "READ", "READING", "ANSWER", "WRITE", "WRITING", "ACKNOWLEDGE")
    }
    check.invariant(sum(state.values(), start=0) == 1)
    check.invariant(reading == (state["READ"] | state["READING"] | state["ANSWER"]))
    check.invariant(writing == (state["WRITE"] | state["WRITING"] | state["ACKNOWLEDGE"]))
    check.invariant(state["IDLE"] | (inside.ident == ident))
    check.invariant(~(reading | state["WRITE"]) | (inside.left == left))
    check.invariant(~state["WRITING"] | ((inside.left - 1)[:4] == left))
    check.invariant(~state["WRITING"] | (taken == (inside.left == 0)))
    check.invariant(~state["WRITE"] | ~taken)
    check.invariant(~state["ACKNOWLEDGE"] | taken)
    check.invariant((reads == state["READING"]) & (reads <= 1))
    check.invariant(state["WRITE"] | (inside.sent == 0))
    check.invariant(~state["WRITE"] | ((addresses == inside.sent[0]) & (words == inside.sent[1])))
    check.invariant(~state["WRITING"] | ((addresses == 1) & (words == 1)))
    check.invariant(state["WRITE"] | state["WRITING"] | ((addresses == 0) & (words == 0)))
    check.invariant(~(state["READING"] | state["WRITING"]) | ~inside.outside)
    check.invariant(~inside.sent.any() | ~inside.outside)
    check.invariant(~inside.sent.any() | bus.w.valid)

    check.always("B stable", "a write response stays until it is taken", check.stable(bus.b))
    check.always("R stable", "a read's beat stays until it is taken", check.stable(bus.r))
    for name in ("ar", "aw", "w"):
        kept = check.stable(getattr(lite, name))
        check.always(f"{name.upper()} stable", "what the registers are asked stays until they take it", kept)
    check.always(
        "one at a time",
        "a request is taken only when the one before is answered, and never two at once",
        ~((took["ar"] | took["aw"]) & (reading | writing)) & ~(took["ar"] & took["aw"]) & ~(reading & writing),
    )
    check.always(
        "beats of a read",
        "a read gets as many beats as it asks, the last one marked, all with its ID",
        ~bus.r.valid | (reading & (bus.r.payload.id == ident) & (bus.r.payload.last == (left == 0))),
    )
    check.always(
        "a response a write",
        "a write is answered once, with its ID, when all its beats are taken",
        ~bus.b.valid | (writing & taken & (bus.b.payload.id == ident)),
    )
    check.always("beats of a write", "a beat is taken only of a write that lacks one", ~took["w"] | (writing & ~taken))
    beyond = inside.outside & (state["READ"] | state["WRITE"])
    check.always(
        "beyond the registers",
        "an address beyond the registers asks nothing of them",
        ~beyond | ~(lite.ar.valid | lite.aw.valid | lite.w.valid),
    )
    check.cover("a read of two beats ends", took["r"] & (left == 0) & check.past(took["r"], 3))
    check.cover("a write of two beats is answered", took["b"] & (check.counter(3, took["w"], name="beats") == 2))
    check.cover("a read beyond the registers", took["r"] & inside.outside)
    check.cover("a write waits for a read", bus.aw.valid & reading)
    return check
