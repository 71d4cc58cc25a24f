"""The register file: AXI4-Lite's rules, and that registers are written and read as the register map says."""

from collections.abc import Iterator
from typing import Any

from amaranth.hdl import Cat, Const, Signal, Value

from edgemoe_hw.bus.axi_lite import RegisterFile
from edgemoe_hw.formal.check import Check, opened
from edgemoe_hw.spec import regs

__all__ = ["register_file_check"]

_READ_WITHIN, _WRITE_WITHIN = 3, 1
"""Cycles from the request, and from address and data, to the response, of which ``RegisterFile`` speaks."""


def register_file_check(unit: type[RegisterFile] = RegisterFile) -> Check:
    """A register file before a master that keeps to AXI, and hardware whose values are anything in every cycle."""
    check = Check("RegisterFile", steps=2, depth=14)
    dut = unit()
    inside = opened(dut)
    check.add(dut)
    bus = dut.s_axi
    for channel in (bus.aw, bus.w, bus.ar):
        check.assume(check.stable(channel))
    took_aw, took_w, took_ar = (channel.valid & channel.ready for channel in (bus.aw, bus.w, bus.ar))
    gave_b, gave_r = (channel.valid & channel.ready for channel in (bus.b, bus.r))

    # Requests without a response, at most one of each kind.
    addresses = check.counter(2, took_aw, gave_b, "writes_by_address")
    words = check.counter(2, took_w, gave_b, "writes_by_data")
    reads = check.counter(2, took_ar, gave_r, "reads")
    check.invariant(addresses == inside.have_addr + bus.b.valid)
    check.invariant(words == inside.have_data + bus.b.valid)
    check.invariant(reads == inside.first + inside.second + bus.r.valid)
    check.invariant((reads <= 1) & (bus.b.payload.resp == 0) & (bus.r.payload.resp == 0))
    check.always("B stable", "a write response stays until it is taken", check.stable(bus.b))
    check.always("R stable", "a read response and its data stay until it is taken", check.stable(bus.r))
    check.always(
        "a response a write",
        "a write response comes only for an address and data without one, and never an error",
        ~bus.b.valid | ((addresses != 0) & (words != 0) & (bus.b.payload.resp == 0)),
    )
    check.always(
        "a response a read",
        "a read response comes only for a read without one, and never an error",
        ~bus.r.valid | ((reads == 1) & (bus.r.payload.resp == 0)),
    )
    wait_write = check.cycles_since(~inside.have_addr | ~inside.have_data | bus.b.valid, _WRITE_WITHIN + 1)
    wait_read = check.cycles_since((reads == 0) | bus.r.valid, _READ_WITHIN + 1)
    check.invariant(~inside.first | (wait_read == 0))
    check.invariant(~inside.second | (wait_read <= 1))
    check.always(
        "in time",
        f"a read's response comes {_READ_WITHIN} cycles after it, a write's {_WRITE_WITHIN + 1} after address and data",
        (wait_write <= _WRITE_WITHIN) & (wait_read < _READ_WITHIN),
    )
    write = inside.have_addr & inside.have_data & ~bus.b.valid
    address = _taken(check, bus.aw, took_aw, "write_address").addr
    check.invariant(~inside.have_addr | (inside.write_addr == address[2:]))
    data = _taken(check, bus.w, took_w, "write_data")
    check.invariant(~inside.have_data | (Cat(inside.write_data, inside.write_strb) == Value.cast(data)))
    _written(check, dut, write, address[2:], data.data, data.strb)
    address = _taken(check, bus.ar, took_ar, "read_address").addr
    check.invariant((reads == 0) | (inside.address == address[2:]))
    _read(check, dut, inside.first, inside.second, address[2:], inside.latched)
    check.cover("a write's response", gave_b)
    check.cover("data before its address", took_aw & (words == 1) & ~bus.b.valid)
    check.cover("two reads", gave_r & (check.counter(2, gave_r, name="reads_done") == 1))
    check.cover("a read waits", check.past(bus.r.valid & ~bus.r.ready))
    return check


def _taken(check: Check, channel: Any, taken: Value, name: str) -> Any:
    """The payload of the last transfer of ``channel``."""
    last = Signal(channel.payload.shape(), name=name)
    with check.m.If(taken):
        check.m.d.sync += last.eq(channel.payload)
    check.show(f"last_{name}", last)
    return last


def _bits(register: regs.Register, field: regs.Field) -> Iterator[tuple[int, int, int]]:
    """Of each bit of a field: its number in the field, the word's index, and its number there."""
    for bit in range(field.width):
        place = field.lsb + bit
        yield bit, register.offset // 4 + place // 32, place % 32


def _written(check: Check, dut: RegisterFile, write: Value, index: Value, word: Value, strobes: Value) -> None:
    """Every field that can be written, against a model of it that sees only the bus."""
    right: dict[str, list[Value]] = {"rw": [], "strobe": [], "w1c": []}
    for register in regs.REGISTERS:
        for field in register.fields:
            if field.access == "ro":
                continue
            name = register.port(field) + ("_clear" if field.access == "w1c" else "")
            model = Signal(field.width, name=f"model_{name}")
            if field.access != "rw":
                check.m.d.sync += model.eq(0)
            for bit, place, number in _bits(register, field):
                with check.m.If(write & (index == place) & strobes[number // 8]):
                    check.m.d.sync += model[bit].eq(word[number])
            right[field.access].append(getattr(dut, name) == model)
    check.always(
        "written",
        "a stored field has the value that was last written to it, byte by byte, and no other write changes it",
        Cat(right["rw"]).all(),
    )
    check.always(
        "strobes",
        "a strobe, or the clear of a field, is 1 for the one cycle after a 1 was written to it",
        Cat(right["strobe"] + right["w1c"]).all(),
    )


def _read(check: Check, dut: RegisterFile, first: Value, second: Value, index: Value, latched: Value) -> None:
    """What is read: the word as it was in the cycle after the request, or the upper half that was latched."""
    word, upper, latches = Signal(32), Signal(32), Signal()
    upper_half = Signal(32)  # of the counter whose lower half was read last
    with check.m.Switch(index):
        for register in regs.REGISTERS:
            counter = register.words == 2 and register.fields[0].access == "ro"
            for number in range(register.count):
                for half in range(register.words):
                    with check.m.Case(register.offset // 4 + number + half):
                        if counter and half:
                            check.m.d.comb += word.eq(upper_half)
                        else:
                            check.m.d.comb += word.eq(_value(dut, register, number) >> 32 * half)
                        if counter and not half:
                            check.m.d.comb += [latches.eq(1), upper.eq(_value(dut, register, number) >> 32)]
    expected, next_upper, latch = Signal(32), Signal(32), Signal()
    with check.m.If(first):
        check.m.d.sync += [expected.eq(word), next_upper.eq(upper), latch.eq(latches)]
    with check.m.If(second & latch):
        check.m.d.sync += upper_half.eq(next_upper)
    check.show("expected", expected)
    check.invariant(latched == upper_half)
    response = dut.s_axi.r
    check.always(
        "read",
        "a read gives its word of the register map as it was in the cycle after the request, 0 where there is none; "
        "the upper half of a counter as it was when a lower half was last read",
        ~response.valid | (response.payload.data == expected),
    )


def _value(dut: RegisterFile, register: regs.Register, number: int) -> Value:
    """All bits of a register as they are read; of the ``number``-th of several equal ones."""
    value: list[Value] = []
    for field in sorted(register.fields, key=lambda field: field.lsb):
        value.append(Const(0, field.lsb - sum(map(len, value))))
        port = getattr(dut, register.port(field))
        port = port[number] if register.count > 1 else port
        value.append(Const(0, field.width) if field.access == "strobe" else port)
    return Cat(value)
