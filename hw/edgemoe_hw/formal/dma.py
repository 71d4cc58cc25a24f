"""The DMA engines and the sequencer as the ports' clients: what they ask for lies where it may."""

from types import SimpleNamespace
from typing import Any

from amaranth.hdl import Cat, Mux, Signal, Value
from amaranth.utils import exact_log2

from edgemoe_hw.bus.bursts import AXI3_BEATS, AXI4_BEATS
from edgemoe_hw.control_plane.sequencer import Sequencer
from edgemoe_hw.engines.load import DmaRead
from edgemoe_hw.engines.store import DmaWrite
from edgemoe_hw.formal.bursts import in_one_page
from edgemoe_hw.formal.check import Check, opened
from edgemoe_hw.formal.queues import fifo_entries
from edgemoe_hw.spec import isa
from edgemoe_hw.spec.config import AcceleratorConfig
from edgemoe_hw.spec.constants import ADDRESS_BITS, COMMAND_BYTES, COUNT_BITS

__all__ = ["dma_read_check", "dma_write_check", "sequencer_check"]


_FETCH = 8
"""Commands of the sequencer's longest burst, where the bus allows it."""


def _assume_regions(check: Check, regions: Any, beat_bytes: int) -> None:
    """The host's regions begin at a beat's address and end within the address space."""
    for region in regions:
        check.assume(region.base[: exact_log2(beat_bytes)] == 0)
        check.assume(region.base + region.size <= 1 << ADDRESS_BITS)


def _lies_in(region: Any, address: Value, size: Value) -> Value:
    """Whether ``size`` bytes from ``address`` on are the region's."""
    return Value.cast((address - region.base)[:ADDRESS_BITS] + size <= region.size)


def dma_read_check(config: AcceleratorConfig, unit: type[DmaRead] = DmaRead) -> Check:
    """The LOAD engine given any commands of one region, which the solver chooses."""
    check = Check(f"DmaRead, {config.axi_masters} masters", steps=2, depth=10)
    dut = unit(config)
    inside = opened(dut)
    check.add(dut, constants=("regions",))
    base = check.free("base", len(dut.commands.payload.payload.base), constant=True)
    check.assume(dut.commands.payload.payload.base == base)
    _assume_regions(check, dut.regions, config.axi_bytes)
    region, beat_bits = dut.regions[base], exact_log2(config.axi_bytes)
    splitters, stage, raw, go = inside.splitters, inside.stage, inside.raw, inside.go
    busy = Cat(splitter.busy for splitter in splitters).any()

    # A command's numbers on their way to the splitters.
    check.invariant(~inside.free | ~busy)
    check.invariant(~inside.taken | ~inside.base_exists | ((raw.base == region.base) & (raw.size == region.size)))
    check.invariant(~inside.taken | (inside.base_exists == (base < len(isa.Base))))
    for command in (raw, stage):
        prefix = [~command.takes_part[i + 1] | command.takes_part[i] for i in range(config.axi_masters - 1)]
        check.invariant(Cat(*prefix, ~command.command.skip | (command.beats == 0)).all())
    staged = inside.staged & ~stage.command.skip
    check.invariant(~staged | (base < len(isa.Base)))
    check.invariant(
        ~staged | ((stage.base == (region.base + stage.offset)[:ADDRESS_BITS]) & (stage.size == region.size))
    )
    check.invariant(~inside.staged | (inside.end == stage.offset + (stage.beats << beat_bits)))
    for number, start in enumerate(inside.starts):
        check.invariant(~inside.staged | (start == stage.stride * number))

    started, judged = check.past(go), check.past(go, 2)
    check.invariant(~started | ~Cat(splitter.requests.valid for splitter in splitters).any())
    check.always(
        "splitters started while idle",
        "a transfer is started only when all bursts of the one before are taken, as BurstSplitter asks",
        ~go | ~busy,
    )
    check.always(
        "stable", "a burst that waits keeps valid, address and length", Cat(map(check.stable, dut.requests)).all()
    )
    check.always(
        "no burst before its check",
        "while it is not yet known whether a command stays in its region, none of its bursts is offered",
        ~(go | started | judged) | ~Cat(request.valid for request in dut.requests).any(),
    )
    begins, ends = [], []
    for splitter, start in zip(splitters, inside.starts, strict=True):
        offset = check.past(stage.offset + start)
        transfer = check.past(Cat(splitter.address, splitter.beats))
        address, size = transfer[:ADDRESS_BITS], transfer[ADDRESS_BITS:] << beat_bits
        begins.append((size == 0) | (address == (region.base + offset)[:ADDRESS_BITS]))
        fits = check.past((size == 0) | (offset + size <= region.size))
        ends.append(fits)
    check.invariant(~started | (inside.going == ~check.past(stage.command.skip)))
    check.always(
        "transfers in the region",
        "every master's transfer begins at its region's base and an offset, and ends within the region's size, or none "
        "of its bursts is offered",
        (~started | Cat(begins).all()) & (~judged | inside.outside | Cat(ends).all()),
    )
    check.cover("a burst of all masters", Cat(request.valid for request in dut.requests).all())
    check.cover("a command is refused", dut.error.valid)
    check.cover("a command leaves its region", inside.outside)
    return check


def dma_write_check(config: AcceleratorConfig, unit: type[DmaWrite] = DmaWrite) -> Check:
    """The STORE engine given any commands."""
    check = Check("DmaWrite", steps=4, depth=14)
    dut = unit(config)
    inside = opened(dut)
    check.add(dut, constants=("regions",))
    _assume_regions(check, dut.regions, config.axi_bytes)
    region, beat_bits = dut.regions[isa.Base.OUTPUT], exact_log2(config.axi_bytes)
    split, beats = inside.split, inside.beats
    running = inside.fsm.ongoing("RUN")
    # Rows that are read, or on their way, are in beats or in the queue; none is left over when a command ends.
    asked = check.past(inside.asked)
    comes = check.past(asked)
    row_beats, ahead = inside.row_beats, inside.ahead
    nothing = (ahead == 0) & (inside.part == 0) & ~inside.more
    check.invariant(~(split.busy | inside.asked) | running)
    check.invariant(inside.queue.w_en == comes)
    check.invariant(inside.queue.level + asked + comes == ahead)
    check.invariant((inside.part < row_beats) & (ahead <= 4))
    check.invariant(inside.more == ((inside.rows != 0) & running))
    unread = (inside.rows + ahead) * row_beats
    check.always(
        "as many beats as promised",
        "beats not handed over are those of the rows not read or still inside; when a command ends none is left",
        Mux(running, beats + inside.part == unread, nothing),
    )
    check.invariant(~(running & inside.quiet) | (beats == 0))
    check.always(
        "splitter started while idle",
        "a transfer is started only when all bursts of the one before are taken, as BurstSplitter asks",
        ~split.start | ~split.busy,
    )
    check.always("stable", "a burst that waits keeps valid, address and length", check.stable(dut.requests))
    first = Cat(split.address[:beat_bits] & 0, split.address[beat_bits:])
    check.always(
        "in OUTPUT",
        "a transfer is started only if it lies in the region OUTPUT",
        ~split.start | _lies_in(region, first, split.beats << beat_bits),
    )
    check.cover("a burst", dut.requests.valid)
    check.cover("a command is refused", dut.error.valid & ~dut.failed)
    check.cover("a command ends", dut.done & running)
    return check


def sequencer_check(
    config: AcceleratorConfig, burst_beats: int = AXI4_BEATS, unit: type[Sequencer] = Sequencer
) -> Check:
    """The sequencer launched once after its reset, as the supervisor does, with any address of a command."""
    bus = ", AXI3" if burst_beats == AXI3_BEATS else ""
    check = Check(f"Sequencer{bus}", depth=20 if bus else 16)
    dut = unit(config, burst_beats)
    inside = opened(dut)
    check.add(dut)
    launched = Signal()
    check.m.d.sync += launched.eq(launched | dut.launch)
    check.assume(~dut.launch | ~launched)
    first, length, fetched = Signal(ADDRESS_BITS - 6), Signal(COUNT_BITS), Signal(COUNT_BITS + 1)
    request, beats = dut.request.payload, COMMAND_BYTES // config.axi_bytes
    count = (request.len + 1)[:9] >> exact_log2(beats)
    with check.m.If(dut.launch):
        check.m.d.sync += [first.eq(dut.address[6:]), length.eq(dut.length)]
    with check.m.Elif(dut.request.valid & dut.request.ready):
        check.m.d.sync += fetched.eq(fetched + count)
    check.show("program_length", length)
    check.show("commands_fetched", fetched)
    fetch = inside.methods["_fetch"]
    state = {name: inside.fsm.ongoing(name) for name in ("IDLE", "ALIGN", "WAIT", "REQUEST", "UPDATE")}
    most = min(_FETCH, burst_beats // beats)
    room = most - fetch.address[: exact_log2(most)]  # commands up to the next multiple of a burst's most
    next_one = Mux(state["UPDATE"], fetched - fetch.count, fetched)
    check.invariant((state["IDLE"] == ~launched) & (launched | (fetched == 0)))
    check.invariant(~launched | ((fetch.left + next_one == length) & (next_one >= 0)))
    check.invariant(~launched | (fetch.address == (first + next_one)[: len(first)]) | (fetch.left == 0))
    check.invariant(~state["WAIT"] | (fetch.aligned == room))
    chosen = state["REQUEST"] | state["UPDATE"]
    check.invariant(~chosen | ((fetch.count != 0) & (fetch.count <= room) & (fetch.count <= fetch.left)))
    check.invariant(~chosen | (fetch.count == room) | (fetch.count == fetch.left))
    check.always("stable", "a burst that waits keeps valid, address and length", check.stable(dut.request))
    check.always(
        "4 KiB",
        "a burst has whole commands and crosses no multiple of 4 KiB",
        ~dut.request.valid
        | (in_one_page(request.addr, request.len, config.axi_bytes) & (count << exact_log2(beats) == request.len + 1)),
    )
    if bus:
        short = ~dut.request.valid | (request.len < burst_beats)
        check.always("length", f"a burst has at most {burst_beats} beats", short)
    check.always(
        "the program and no more",
        "bursts follow each other from PROGRAM_ADDR on and end with the last of PROGRAM_COMMANDS commands",
        ~dut.request.valid | ((request.addr[6:] == (first + fetched)[: len(first)]) & (fetched + count <= length)),
    )
    _fetched_fits(check, dut, inside, Mux(state["UPDATE"], fetch.count, 0), state["WAIT"])
    check.cover("a second burst", dut.request.valid & (fetched != 0))
    check.cover("a command has come", inside.methods["_receive"].queue.r_rdy)
    return check


def _fetched_fits(check: Check, dut: Sequencer, inside: SimpleNamespace, coming: Value, waits: Value) -> None:
    """The queue has a place for every command that was asked for, so its beats are always taken."""
    fetch, receive = inside.methods["_fetch"], inside.methods["_receive"]
    queue = receive.queue
    fifo = opened(queue)
    entries, places = fifo_entries(check, queue, fifo), fifo.memory.depth
    beats = 1 << len(receive.beat)  # of a command
    promised = (fetch.requested - fetch.taken)[: len(fetch.taken)]
    due = promised + coming  # asked for and not taken out
    arrived = Signal(12, name="beats_inside")
    check.m.d.sync += arrived.eq(arrived + dut.response.valid - Mux(queue.r_rdy & queue.r_en, beats, 0))
    check.assume(~dut.response.valid | (arrived < due * beats))
    check.invariant(due <= places)
    check.invariant(~waits | (fetch.promised >= promised))
    check.invariant(~inside.fsm.ongoing("REQUEST") | (promised + fetch.count <= places))
    check.invariant((arrived == entries * beats + receive.beat + receive.arrived) & (arrived <= due * beats))
    check.always(
        "room",
        "a command that comes always has its place in the queue",
        ~queue.w_en | queue.w_rdy,
    )
