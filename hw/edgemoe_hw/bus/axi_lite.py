"""The register file behind the AXI4-Lite slave, made from ``regs.REGISTERS``."""

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from edgemoe_hw.bus.axi import AxiLiteSignature
from edgemoe_hw.spec import regs

__all__ = ["RegisterFile"]

_GROUP_BITS = 4  # words that are read in one step of two: 16


def _members() -> dict[str, wiring.Member]:
    members: dict[str, wiring.Member] = {"s_axi": In(AxiLiteSignature())}
    for register in regs.REGISTERS:
        for field in register.fields:
            port = register.port(field)
            member = Out(field.width) if field.access in ("rw", "strobe") else In(field.width)
            members[port] = member.array(register.count) if register.count > 1 else member
            if field.access == "w1c":
                members[f"{port}_clear"] = Out(field.width)
    return members


class RegisterFile(wiring.Component):
    """AXI4-Lite slave: one transfer in each direction at a time, never an error response.

    Reads take three cycles, writes one after both address and data. Unmapped addresses read as 0: an error response
    would be a bus fault on a board's CPU.

    Members:
        s_axi: the bus
        <register>[_<field>]: input for ``ro`` and ``w1c`` fields, output for ``rw`` and (one cycle) ``strobe`` fields
        <register>_<field>_clear: one cycle for each 1 written to a ``w1c`` field
    """

    def __init__(self) -> None:
        super().__init__(_members())

    def elaborate(self, platform: object) -> Module:
        m = Module()
        bus = self.s_axi
        words: dict[int, Value] = {}  # word index -> what is read
        latched = Signal(32)
        latch: dict[int, Value] = {}  # word index of a lower half -> the upper one

        write = Signal()
        write_addr = Signal(regs.ADDRESS_BITS - 2)
        write_data = Signal(32)
        write_strb = Signal(4)
        mask = Cat(strobe.replicate(8) for strobe in write_strb)

        for register in regs.REGISTERS:
            index = register.offset // 4
            if register.count > 1:
                for i, port in enumerate(getattr(self, register.name.lower())):
                    words[index + i] = port
            elif register.words == 2:
                port = getattr(self, register.name.lower())
                words[index] = port[:32]
                if register.fields[0].access == "ro":
                    words[index + 1] = latched
                    latch[index] = port[32:]
                else:
                    words[index + 1] = port[32:]
                    for half, part in enumerate((port[:32], port[32:])):
                        with m.If(write & (write_addr == index + half)):
                            m.d.sync += part.eq(((write_data & mask) | (part & ~mask))[: len(part)])
            else:
                words[index] = self._single_word(m, register, write & (write_addr == index), write_data, mask)

        self._write_channels(m, bus, write, write_addr, write_data, write_strb)
        self._read_channels(m, bus, words, latched, latch)
        return m

    def _single_word(
        self, m: Module, register: regs.Register, selected: Value, write_data: Signal, mask: Value
    ) -> Signal:
        """A register of one word: what is read, and the fields that a write sets."""
        value = Signal(32, name=f"{register.name.lower()}_word")
        for field in register.fields:
            port = getattr(self, register.port(field))
            bits = slice(field.lsb, field.lsb + field.width)
            if field.access != "strobe":
                m.d.comb += value[bits].eq(port)
            if field.access == "rw":
                with m.If(selected):
                    m.d.sync += port.eq((write_data[bits] & mask[bits]) | (port & ~mask[bits]))
            elif field.access == "strobe":
                m.d.sync += port.eq(Mux(selected, write_data[bits] & mask[bits], 0))
            elif field.access == "w1c":
                clear = getattr(self, f"{register.port(field)}_clear")
                m.d.sync += clear.eq(Mux(selected, write_data[bits] & mask[bits], 0))
        return value

    def _write_channels(
        self,
        m: Module,
        bus: wiring.PureInterface,
        write: Signal,
        write_addr: Signal,
        write_data: Signal,
        write_strb: Signal,
    ) -> None:
        """Address and data in any order; ``write`` when both are there."""
        have_addr = Signal()
        have_data = Signal()
        m.d.comb += [
            bus.aw.ready.eq(~have_addr),
            bus.w.ready.eq(~have_data),
            write.eq(have_addr & have_data & ~bus.b.valid),
        ]
        with m.If(bus.aw.valid & bus.aw.ready):
            m.d.sync += [have_addr.eq(1), write_addr.eq(bus.aw.payload.addr[2:])]
        with m.If(bus.w.valid & bus.w.ready):
            m.d.sync += [have_data.eq(1), write_data.eq(bus.w.payload.data), write_strb.eq(bus.w.payload.strb)]
        with m.If(bus.b.valid & bus.b.ready):
            m.d.sync += bus.b.valid.eq(0)
        with m.If(write):
            m.d.sync += [have_addr.eq(0), have_data.eq(0), bus.b.valid.eq(1)]

    def _read_channels(
        self, m: Module, bus: wiring.PureInterface, words: dict[int, Value], latched: Signal, latch: dict[int, Value]
    ) -> None:
        """One word a read; the upper half of a counter is latched with the lower.

        First the words of each group that the low bits of the address choose, all groups at once, then one of these.
        """
        first, second = Signal(), Signal()
        address = Signal(regs.ADDRESS_BITS - 2)
        m.d.comb += bus.ar.ready.eq(~first & ~second & ~bus.r.valid)
        m.d.sync += second.eq(first)
        with m.If(bus.ar.valid & bus.ar.ready):
            m.d.sync += [first.eq(1), address.eq(bus.ar.payload.addr[2:])]
        with m.If(first):
            m.d.sync += first.eq(0)
        place, group = address[:_GROUP_BITS], address[_GROUP_BITS:]
        with m.If(second):
            m.d.sync += [bus.r.valid.eq(1), bus.r.payload.data.eq(0)]
        for number in sorted({index >> _GROUP_BITS for index in words}):
            indices = range(number << _GROUP_BITS, (number + 1) << _GROUP_BITS)
            chosen = Signal(32, name=f"chosen_{number}", reset_less=True)
            m.d.sync += chosen.eq(Array(words.get(index, Const(0)) for index in indices)[place])
            with m.If(second & (group == number)):
                m.d.sync += bus.r.payload.data.eq(chosen)
            if not latch.keys() & set(indices):
                continue
            upper, has_upper = Signal(32, name=f"upper_{number}", reset_less=True), Signal(name=f"has_upper_{number}")
            m.d.sync += [
                upper.eq(Array(latch.get(index, Const(0)) for index in indices)[place]),
                has_upper.eq(Array(Const(int(index in latch)) for index in indices)[place]),
            ]
            with m.If(second & (group == number) & has_upper):
                m.d.sync += latched.eq(upper)
        with m.If(bus.r.valid & bus.r.ready):
            m.d.sync += bus.r.valid.eq(0)
