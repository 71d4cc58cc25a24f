"""The ports that share the AXI masters: legal channels, and every beat where it belongs."""

from amaranth.hdl import Cat, Mux, Value
from amaranth.utils import exact_log2

from edgemoe_hw.bus.axi import BURST_INCR
from edgemoe_hw.bus.axi_ports import ReadPort
from edgemoe_hw.formal.bursts import in_one_page
from edgemoe_hw.formal.check import Check, opened
from edgemoe_hw.formal.queues import fifo_entries, fifo_holds, slice_holds
from edgemoe_hw.formal.tracking import Tracked
from edgemoe_hw.spec.config import AcceleratorConfig

__all__ = ["address_claims", "read_port_check"]

_OUTSTANDING = 8


def address_claims(check: Check, name: str, channel: object, config: AcceleratorConfig) -> None:
    """What AXI asks of an address channel."""
    payload = channel.payload  # type: ignore[attr-defined]
    valid = channel.valid  # type: ignore[attr-defined]
    check.always(
        f"{name} stable", f"a burst on {name} keeps valid and payload until it is taken", check.stable(channel)
    )
    check.always(
        f"{name} legal",
        "whole beats, incrementing, within 4 KiB, at most 256 beats",
        ~valid
        | (
            in_one_page(payload.addr, payload.len, config.axi_bytes)
            & (payload.burst == BURST_INCR)
            & (payload.size == exact_log2(config.axi_bytes))
        ),
    )


def read_port_check(config: AcceleratorConfig, unit: type[ReadPort] = ReadPort) -> Check:
    """A read port of two clients, whose requests are legal bursts, before a slave that answers only what was asked."""
    check = Check(f"ReadPort, {config.axi_bytes} B")
    dut = unit(config, clients=2, outstanding=_OUTSTANDING)
    inside = opened(dut)
    order, beats = opened(inside.order), opened(inside.beats)
    check.add(dut)
    for request in dut.requests:
        payload = request.payload
        check.assume(~request.valid | in_one_page(payload.addr, payload.len, config.axi_bytes))
    takes = Cat(request.valid & request.ready for request in dut.requests)
    requested, ended = takes.any(), dut.r.valid & dut.r.ready & dut.r.payload.last
    answering = check.counter(5, dut.ar.valid & dut.ar.ready, ended, "answering")  # bursts that the slave has
    check.assume(~dut.r.valid | (answering != 0))

    burst = Tracked(check, "burst", pushed=requested, popped=inside.ends, word=takes[1], most=_OUTSTANDING + 1)
    entries = fifo_entries(check, inside.order, order)
    one, asked = check.past(entries), check.past(requested)  # a cycle ago
    two, asked_two = check.past(one), check.past(asked)
    known, client = inside.known, inside.client
    check.invariant(inside.order.level == one)
    check.invariant(~inside.room | (two < _OUTSTANDING - 2))
    check.invariant(~asked | dut.ar.valid)
    check.invariant((entries <= one + asked) & (one <= two + asked_two))
    check.invariant(entries + known == burst.count)
    at_front = known & (burst.ahead == 0)
    held = fifo_holds(check, order, burst.ahead - known)
    check.invariant(~burst.chosen | (burst.word == Mux(at_front, client, held)))
    behind = inside.beats.o  # the slice's output, where the beats inside end or not
    ends_inside = (behind.valid & behind.payload.last) + (beats.waits & beats.spare.last)
    newest_ends = Mux(beats.waits, beats.spare.last, behind.payload.last)
    check.invariant(~behind.valid | newest_ends | (answering != 0))
    check.invariant(burst.count == dut.ar.valid + answering + ends_inside)
    beat = inside.beat
    moved = beat.valid & beat.ready
    passed = Tracked(
        check, "beat", pushed=dut.r.valid & dut.r.ready, popped=moved, word=Value.cast(dut.r.payload), most=2
    )
    slice_holds(check, inside.beats, beats, passed)

    address_claims(check, "AR", dut.ar, config)
    check.always(
        "one burst a request",
        "AR has exactly the burst of the request that was taken in the cycle before",
        ~asked
        | (
            dut.ar.valid
            & (
                Cat(dut.ar.payload.addr, dut.ar.payload.len)
                == check.past(
                    Mux(takes[1], *(Cat(r.payload.addr, r.payload.len) for r in reversed(list(dut.requests))))
                )
            )
        ),
    )
    check.always("one client a burst", "no two requests are taken in a cycle", ~takes.all())
    check.always(
        "room",
        f"at most {_OUTSTANDING} bursts wait for their beats, and the list of their clients never overflows",
        ~inside.order.w_en | inside.order.w_rdy,
    )
    valid = Cat(response.valid for response in dut.responses)
    mine = burst.chosen & (burst.ahead == 0) & known
    check.always(
        "routing",
        "beats of a burst go to the client that asked for it and to no other; to none while aborted",
        ~(mine & beat.valid) | (valid == Mux(dut.abort, 0, Mux(burst.word, 0b10, 0b01))),
    )
    check.always("no beat from nowhere", "a client gets beats only of a burst", ~valid.any() | (beat.valid & known))
    check.always(
        "beats in order",
        "each beat comes out once, with its data and error, and ends its burst if it was the last",
        ~passed.leaves | (Value.cast(beat.payload) == passed.word),
    )
    sent = Value.cast(beat.payload.data)
    check.always(
        "data",
        "a client gets the beat's data, and whether its response was an error",
        Cat(
            ~response.valid | ((response.payload.data == sent) & (response.payload.error == (beat.payload.resp != 0)))
            for response in dut.responses
        ).all(),
    )
    nothing = ~dut.ar.valid & (answering == 0) & ~inside.beats.o.valid
    check.always("idle", "idle only when no burst waits for its beats", ~dut.idle | (nothing & (burst.count == 0)))
    check.cover("two bursts of both clients end", burst.leaves & (check.past(burst.ahead) == 1) & burst.word)
    check.cover("all room is used", burst.count == _OUTSTANDING - 1)
    check.cover("idle again", dut.idle & check.past(inside.ends, 3))
    return check
