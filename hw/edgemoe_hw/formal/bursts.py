"""The burst splitter: bursts that AXI allows, and together exactly the transfer."""

from amaranth.hdl import Cat, Const, Mux, Signal, Value
from amaranth.utils import exact_log2

from edgemoe_hw.bus.bursts import AXI3_BEATS, AXI4_BEATS, BEATS_BITS, BurstSplitter
from edgemoe_hw.formal.check import Check, opened
from edgemoe_hw.spec.config import AcceleratorConfig
from edgemoe_hw.spec.constants import ADDRESS_BITS

__all__ = ["in_one_page", "splitter_check"]

_PAGE_BITS = 12


def in_one_page(address: Value, length: Value, beat_bytes: int) -> Value:
    """Whether ``length + 1`` beats from ``address`` on, a multiple of a beat, cross no multiple of 4 KiB."""
    bits = exact_log2(beat_bytes)
    whole_beats = address[:bits] == 0
    return Value.cast(whole_beats & (address[bits:_PAGE_BITS] + length < (1 << (_PAGE_BITS - bits))))


def splitter_check(
    config: AcceleratorConfig, burst_beats: int = AXI4_BEATS, unit: type[BurstSplitter] = BurstSplitter
) -> Check:
    """A splitter that is started with any transfer, but only while it is not busy."""
    bus = ", AXI3" if burst_beats == AXI3_BEATS else ""
    check = Check(f"BurstSplitter, {config.axi_bytes} B{bus}", depth=10)
    dut = unit(config, burst_beats)
    inside = opened(dut)
    check.add(dut)
    check.assume(~(dut.start & dut.busy))
    beat_bits = exact_log2(config.axi_bytes)
    index_bits = ADDRESS_BITS - beat_bits
    request, taken = dut.requests.payload, dut.requests.valid & dut.requests.ready

    # The transfer: its first beat, its beats, and how many of them have been requested.
    first, total, done = Signal(index_bits), Signal(BEATS_BITS), Signal(BEATS_BITS)
    with check.m.If(dut.start):
        check.m.d.sync += [first.eq(dut.address[beat_bits:]), total.eq(dut.beats), done.eq(0)]
    with check.m.Elif(taken):
        check.m.d.sync += done.eq(done + request.len + 1)
    offered = Mux(dut.requests.valid, request.len + 1, 0)
    left = total - done - offered  # behind the burst that is offered
    check.show("transfer_first_beat", first)
    check.show("transfer_beats", total)
    check.show("transfer_done", done)

    # The unit's registers say the same: where the next burst begins, and how far it is to the last beat.
    begun = inside.counted | inside.going
    distance = Cat(inside.end, inside.blocks_left)
    waits = inside.started | begun  # for its next burst
    check.invariant(inside.started + inside.counted + inside.going <= 1)
    check.invariant(~(inside.started | inside.counted) | (~dut.requests.valid & (done == 0)))
    check.invariant(~inside.started | (inside.before_last == total - 1))
    check.invariant(~begun | (distance == inside.low + left - 1))
    check.invariant(~(inside.going & ~dut.requests.valid) | (inside.final == (inside.blocks_left == 0)))
    check.invariant(Mux(waits, left > 0, left == 0))
    check.invariant(~waits | (Cat(inside.low, inside.block) == (first + done + offered)[:index_bits]))
    check.invariant(~dut.requests.valid | (inside.low == 0) | ~inside.going)

    check.always("stable", "a burst that waits keeps valid, address and length", check.stable(dut.requests))
    check.always(
        "4 KiB",
        "a burst begins at a beat's address and crosses no multiple of 4 KiB (its length has 8 bits: 256 beats)",
        ~dut.requests.valid | in_one_page(request.addr, request.len, config.axi_bytes),
    )
    check.always(
        "contiguous",
        "a burst begins where the one before ended, the first one where the transfer does",
        ~dut.requests.valid | (request.addr == Cat(Const(0, beat_bits), (first + done)[:index_bits])),
    )
    check.always(
        "complete",
        "no burst leaves the transfer, and when busy ends all its beats have been requested",
        (left >= 0) & (dut.busy | (done == total)),
    )
    if bus:
        check.always(
            "length", f"a burst has at most {burst_beats} beats", ~dut.requests.valid | (request.len < burst_beats)
        )
    check.cover("a transfer of three bursts ends", (check.past(dut.busy) & ~dut.busy) & (total > 2 * burst_beats))
    return check
