"""Memory ports that several units share, by fixed priority."""

from amaranth.hdl import Const, Module, ShapeLike
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from edgemoe_hw.ports import MemoryRead, MemoryWrite, SharedRead, SharedWrite

__all__ = ["ReadArbiter", "WriteArbiter"]


class ReadArbiter(wiring.Component):
    """Several readers of one port, the earlier before the later; combinational.

    Args:
        shape: of a row
        readers: how many

    Members:
        readers: the first is never refused
        memory: the port
    """

    def __init__(self, shape: ShapeLike, readers: int):
        super().__init__({"readers": In(SharedRead(shape)).array(readers), "memory": Out(MemoryRead(shape))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        earlier = Const(0)  # whether a reader of a lower number reads
        for reader in self.readers:
            m.d.comb += [reader.ready.eq(~earlier), reader.data.eq(self.memory.data)]
            with m.If(~earlier):
                m.d.comb += self.memory.row.eq(reader.row)
            earlier = earlier | reader.valid
        return m


class WriteArbiter(wiring.Component):
    """Two writers of one port; combinational.

    Args:
        shape: of a row
        masked: parts of it with a mask bit

    Members:
        urgent: is never refused
        patient: writes when ``urgent`` does not
        memory: the port
    """

    def __init__(self, shape: ShapeLike, masked: int):
        super().__init__(
            {
                "urgent": In(MemoryWrite(shape, masked)),
                "patient": In(SharedWrite(shape, masked)),
                "memory": Out(MemoryWrite(shape, masked)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.d.comb += [
            self.patient.ready.eq(~self.urgent.valid),
            self.memory.valid.eq(self.urgent.valid | self.patient.valid),
        ]
        for name in ("row", "mask", "data"):
            with m.If(self.urgent.valid):
                m.d.comb += getattr(self.memory, name).eq(getattr(self.urgent, name))
            with m.Else():
                m.d.comb += getattr(self.memory, name).eq(getattr(self.patient, name))
        return m
