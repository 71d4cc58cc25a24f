"""AXI3 ports with AXI4's widths, which is all that cocotbext-axi knows."""

from amaranth.hdl import Cat, Const, Module, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["WiderPorts"]

_WIDTHS = {"len": 8, "size": 3, "lock": 1}
_FROM_MASTER = ("aw", "w", "ar")
_CHANNELS = (*_FROM_MASTER, "b", "r")


def _wider(layout: data.StructLayout) -> data.StructLayout:
    return data.StructLayout({name: _WIDTHS.get(name, field.width) for name, field in layout})


class WiderPorts(wiring.Component):
    """``inner`` with wider fields at its AXI3 ports: zeros above what it drives, and what it is given is cut.

    Args:
        inner: a component whose members are AXI3 interfaces and plain signals
    """

    def __init__(self, inner: wiring.Component):
        self._inner = inner
        members = {}
        self._buses = {}
        for name, member in inner.signature.members.items():
            if member.is_port:
                members[name] = member
                continue
            bus = getattr(inner, name)
            channels = {
                channel: (Out if channel in _FROM_MASTER else In)(
                    stream.Signature(_wider(getattr(bus, channel).payload.shape()))
                )
                for channel in _CHANNELS
            }
            self._buses[name] = member.flow
            members[name] = member.flow(wiring.Signature(channels))
        super().__init__(members)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.inner = inner = self._inner
        for name, member in self.signature.members.items():
            own, other = getattr(self, name), getattr(inner, name)
            if member.is_port:
                m.d.comb += own.eq(other)
                continue
            for channel in _CHANNELS:
                outer, core = getattr(own, channel), getattr(other, channel)
                inward = (channel in _FROM_MASTER) == (self._buses[name] == In)
                source, target = (outer, core) if inward else (core, outer)
                m.d.comb += [target.valid.eq(source.valid), source.ready.eq(target.ready)]
                for field, _ in target.payload.shape():
                    wanted = Value.cast(target.payload[field])
                    m.d.comb += wanted.eq(Cat(source.payload[field], Const(0, len(wanted)))[: len(wanted)])
        return m
