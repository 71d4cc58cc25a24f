"""AXI3, which Zynq-7000's processing system speaks: a slave in front of AXI4-Lite."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from edgemoe_hw.bus.axi import AxiLiteSignature

__all__ = ["Axi3Signature", "Axi3Slave"]

_FIXED = 0  # a burst to one address
_LEN_BITS = 4


class Axi3Signature(wiring.Signature):
    """AXI3 of 32-bit addresses, as seen from the master: bursts of at most 16 beats, and an ID on write data.

    Args:
        data_bytes: bytes of a beat
        id_bits: width of the IDs
    """

    def __init__(self, data_bytes: int, id_bits: int):
        address = data.StructLayout(
            {
                "id": id_bits,
                "addr": 32,
                "len": _LEN_BITS,
                "size": 2,
                "burst": 2,
                "lock": 2,
                "cache": 4,
                "prot": 3,
                "qos": 4,
            }
        )
        bits = 8 * data_bytes
        write = data.StructLayout({"id": id_bits, "data": bits, "strb": data_bytes, "last": 1})
        super().__init__(
            {
                "aw": Out(stream.Signature(address)),
                "w": Out(stream.Signature(write)),
                "b": In(stream.Signature(data.StructLayout({"id": id_bits, "resp": 2}))),
                "ar": Out(stream.Signature(address)),
                "r": In(stream.Signature(data.StructLayout({"id": id_bits, "data": bits, "resp": 2, "last": 1}))),
            }
        )


class Axi3Slave(wiring.Component):
    """AXI3 transfers of 32 bits, one after the other, each beat as one of AXI4-Lite's.

    The CPU's own accesses are single beats, but its write buffer and ``memcpy`` merge them into bursts. IDs come back
    as they were sent: the processing system waits forever for an answer that has another. Reads and writes take turns
    where both wait. A narrow beat is a whole word on the other side, with the strobes of its bytes. Beyond
    ``address_bits`` nothing is there: reads give 0, writes do nothing, and both are answered with OKAY, because an
    error would be a bus fault of the CPU's. A wrapping burst, which only caches make, counts as an incrementing one.

    Args:
        id_bits: width of the IDs
        address_bits: of the AXI4-Lite side
        window_bits: addresses of the port's window, of which ``address_bits`` are in use

    Members:
        bus: the processing system's master
        lite: what answers
    """

    def __init__(self, *, id_bits: int = 12, address_bits: int = 12, window_bits: int = 30):
        self._id_bits, self._address_bits, self._window_bits = id_bits, address_bits, window_bits
        super().__init__(
            {"bus": In(Axi3Signature(4, id_bits)), "lite": Out(AxiLiteSignature(address_bits))},
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        bus, lite = self.bus, self.lite
        ident = Signal(self._id_bits)
        address = Signal(self._window_bits)
        left = Signal(_LEN_BITS)
        step = Signal(4)  # bytes to the next beat
        outside = Signal()
        word, response = Signal(32), Signal(2)
        writes_next = Signal()  # whose turn it is
        m.d.comb += [
            outside.eq(address[self._address_bits :] != 0),
            bus.r.payload.id.eq(ident),
            bus.r.payload.data.eq(word),
            bus.r.payload.resp.eq(response),
            bus.r.payload.last.eq(left == 0),
            bus.b.payload.id.eq(ident),
            bus.b.payload.resp.eq(response),
            *(channel.payload.addr.eq(address[2 : self._address_bits] << 2) for channel in (lite.ar, lite.aw)),
            lite.w.payload.data.eq(bus.w.payload.data),
            lite.w.payload.strb.eq(bus.w.payload.strb),
        ]
        following = [address.eq(address + step), left.eq(left - 1)]
        sent = Signal(2)  # of a write: address, data
        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += response.eq(0)
                reads = bus.ar.valid & ~(writes_next & bus.aw.valid)
                m.d.comb += [bus.ar.ready.eq(reads), bus.aw.ready.eq(bus.aw.valid & ~reads)]
                taken = Mux(reads, bus.ar.payload.as_value(), bus.aw.payload.as_value())
                request = data.View(bus.ar.payload.shape(), taken)
                m.d.sync += [
                    ident.eq(request.id),
                    address.eq(request.addr),
                    left.eq(request.len),
                    step.eq(Mux(request.burst == _FIXED, 0, 1 << request.size)),
                ]
                with m.If(reads):
                    m.d.sync += writes_next.eq(1)
                    m.next = "READ"
                with m.Elif(bus.aw.valid):
                    m.d.sync += writes_next.eq(0)
                    m.next = "WRITE"
            with m.State("READ"):
                m.d.comb += lite.ar.valid.eq(~outside)
                with m.If(outside):
                    m.d.sync += word.eq(0)
                    m.next = "ANSWER"
                with m.Elif(lite.ar.ready):
                    m.next = "READING"
            with m.State("READING"):
                m.d.comb += lite.r.ready.eq(1)
                with m.If(lite.r.valid):
                    m.d.sync += [word.eq(lite.r.payload.data), response.eq(lite.r.payload.resp)]
                    m.next = "ANSWER"
            with m.State("ANSWER"):
                m.d.comb += bus.r.valid.eq(1)
                with m.If(bus.r.ready):
                    m.d.sync += following
                    m.next = "READ"
                    with m.If(left == 0):
                        m.next = "IDLE"
            with m.State("WRITE"):
                with m.If(outside):
                    m.d.comb += bus.w.ready.eq(1)
                    with m.If(bus.w.valid):
                        m.d.sync += following
                        with m.If(left == 0):
                            m.next = "ACKNOWLEDGE"
                with m.Else():
                    m.d.comb += [lite.aw.valid.eq(bus.w.valid & ~sent[0]), lite.w.valid.eq(bus.w.valid & ~sent[1])]
                    done = sent | Cat(lite.aw.valid & lite.aw.ready, lite.w.valid & lite.w.ready)
                    m.d.sync += sent.eq(done)
                    with m.If(done.all()):
                        m.d.comb += bus.w.ready.eq(1)
                        m.d.sync += sent.eq(0)
                        m.next = "WRITING"
            with m.State("WRITING"):
                m.d.comb += lite.b.ready.eq(1)
                with m.If(lite.b.valid):
                    m.d.sync += [response.eq(response | lite.b.payload.resp), *following]
                    m.next = "WRITE"
                    with m.If(left == 0):
                        m.next = "ACKNOWLEDGE"
            with m.State("ACKNOWLEDGE"):
                m.d.comb += bus.b.valid.eq(1)
                with m.If(bus.b.ready):
                    m.next = "IDLE"
        return m
