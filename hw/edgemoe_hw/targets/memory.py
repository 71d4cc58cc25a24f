"""Several AXI4 masters before one SDRAM."""

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from edgemoe_hw.bus.axi import AxiSignature
from edgemoe_hw.targets.sdram import BEAT_BYTES, REQUEST, Sdram

__all__ = ["SharedMemory"]

_ADDRESS_BITS = REQUEST["address"].width


class SharedMemory(wiring.Component):
    """One burst at a time; ports of a lower number first, writes before reads. Whole aligned INCR beats only.

    Bursts outside of the SDRAM are answered with DECERR. A write's beats come after its address.

    Args:
        ports: number of masters
        sdram: the controller, not connected to anything else

    Members:
        axi: a slave for each master, 8 bytes a beat
    """

    def __init__(self, sdram: Sdram, ports: int):
        self._sdram = sdram
        super().__init__({"axi": In(AxiSignature(BEAT_BYTES)).array(ports)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        sdram = self._sdram
        chosen = Signal(range(max(2, len(self.axi))))
        request = Signal(REQUEST)
        missing = Signal()  # there is no such address
        left = Signal(8)  # beats of a read after this one
        identity = Signal(self.axi[0].signature.id_bits)
        with m.FSM():
            with m.State("IDLE"):
                channels = [
                    (index, write, channel)
                    for index, port in enumerate(self.axi)
                    for write, channel in ((1, port.aw), (0, port.ar))
                ]
                for number, (index, write, channel) in enumerate(channels):
                    with (m.Elif if number else m.If)(channel.valid):
                        m.d.comb += channel.ready.eq(1)
                        m.d.sync += [
                            chosen.eq(index),
                            request.write.eq(write),
                            request.len.eq(channel.payload.len),
                            request.address.eq(channel.payload.addr),
                            left.eq(channel.payload.len),
                            missing.eq(channel.payload.addr[_ADDRESS_BITS:] != 0),
                            identity.eq(channel.payload.id),
                        ]
                        m.next = "REQUEST"
            with m.State("REQUEST"):
                m.d.comb += [sdram.request.valid.eq(~missing), sdram.request.payload.eq(request)]
                with m.If(sdram.request.ready | missing):
                    m.next = "READ"
                    with m.If(request.write):
                        m.next = "WRITE"
            with m.State("WRITE"):
                for index, port in enumerate(self.axi):
                    with m.If(chosen == index):
                        m.d.comb += [
                            sdram.write.valid.eq(port.w.valid & ~missing),
                            sdram.write.payload.data.eq(port.w.payload.data),
                            sdram.write.payload.strb.eq(port.w.payload.strb),
                            port.w.ready.eq(sdram.write.ready | missing),
                        ]
                        with m.If(port.w.valid & port.w.ready & port.w.payload.last):
                            m.next = "ANSWER"
            with m.State("ANSWER"):
                for index, port in enumerate(self.axi):
                    with m.If(chosen == index):
                        m.d.comb += [
                            port.b.valid.eq(1),
                            port.b.payload.resp.eq(missing.replicate(2)),
                            port.b.payload.id.eq(identity),
                        ]
                        with m.If(port.b.ready):
                            m.next = "IDLE"
            with m.State("READ"):
                for index, port in enumerate(self.axi):
                    with m.If(chosen == index):
                        m.d.comb += [
                            port.r.valid.eq(sdram.read.valid | missing),
                            sdram.read.ready.eq(port.r.ready & ~missing),
                            port.r.payload.data.eq(sdram.read.payload),
                            port.r.payload.last.eq(left == 0),
                            port.r.payload.resp.eq(missing.replicate(2)),
                            port.r.payload.id.eq(identity),
                        ]
                        with m.If(port.r.valid & port.r.ready):
                            m.d.sync += left.eq(left - 1)
                            with m.If(left == 0):
                                m.next = "IDLE"
        return m
