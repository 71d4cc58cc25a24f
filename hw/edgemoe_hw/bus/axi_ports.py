"""Burst-level access to one AXI4 master: the only places that drive its channels, and that drain them when a
program is stopped."""

from amaranth.hdl import Array, Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from edgemoe_hw.bus.axi import BURST_INCR, CACHE_BUFFERABLE, AxiSignature
from edgemoe_hw.interfaces import READ_REQUEST, read_response
from edgemoe_hw.primitives.fifo import Fifo
from edgemoe_hw.primitives.register_slice import RegisterSlice
from edgemoe_hw.spec.config import AcceleratorConfig

__all__ = ["ReadPort", "WritePort"]


def _address(m: Module, channel: wiring.PureInterface, config: AcceleratorConfig, request: data.View) -> None:
    """Load an address channel's registers with a burst."""
    m.d.sync += [
        channel.payload.addr.eq(request.addr),
        channel.payload.len.eq(request.len),
        channel.payload.size.eq(exact_log2(config.axi_bytes)),
        channel.payload.burst.eq(BURST_INCR),
        channel.payload.cache.eq(CACHE_BUFFERABLE),
        channel.valid.eq(1),
    ]


class ReadPort(wiring.Component):
    """Shares a master's read channels among ``clients``, lower number first; beats return in request order.

    One ID is used, so the bus returns bursts in order and a FIFO of client numbers routes them. A client must accept
    its beats in finite time whatever the others do. A burst is taken every two cycles at most. No output to the bus
    depends on an input from it in the same cycle, and neither do the clients': beats take one cycle more.

    Args:
        outstanding: most bursts requested and not finished

    Members:
        requests, responses: one pair a client
        bus: AR and R are driven, the write channels are not
        abort: requests are not taken, and beats of outstanding bursts are accepted and dropped
        idle: nothing is outstanding
    """

    def __init__(self, config: AcceleratorConfig, *, clients: int, outstanding: int = 32):
        self._config = config
        self._clients = clients
        self._outstanding = outstanding
        axi = AxiSignature(config.axi_bytes).members
        super().__init__(
            {
                "requests": In(stream.Signature(READ_REQUEST)).array(clients),
                "responses": Out(stream.Signature(read_response(config))).array(clients),
                "ar": axi["ar"],
                "r": axi["r"],
                "abort": In(1),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.order = order = Fifo(max(1, (self._clients - 1).bit_length()), self._outstanding)

        # ``room`` does not know of the last burst that was taken, nor of the one whose beats come now.
        free, room = Signal(), Signal()
        m.d.sync += room.eq(order.level < self._outstanding - 2)
        m.d.comb += free.eq(~self.ar.valid & room & ~self.abort)
        with m.If(self.ar.ready):
            m.d.sync += self.ar.valid.eq(0)
        earlier = Const(0)  # whether a client of a lower number requests
        for client, request in enumerate(self.requests):
            m.d.comb += request.ready.eq(free & ~earlier)
            with m.If(request.valid & request.ready):
                _address(m, self.ar, self._config, request.payload)
                m.d.comb += [order.w_en.eq(1), order.w_data.eq(client)]
            earlier = earlier | request.valid

        m.submodules.beats = beats = RegisterSlice(self.r.payload.shape())
        wiring.connect(m, wiring.flipped(self.r), beats.i)
        beat = beats.o
        client, known = Signal.like(order.r_data, reset_less=True), Signal()  # whose beats come now
        ends = beat.valid & beat.ready & beat.payload.last
        with m.If(~known | ends):
            m.d.sync += [known.eq(order.r_rdy), client.eq(order.r_data)]
        accepts = Array(response.ready for response in self.responses)
        m.d.comb += [
            beat.ready.eq(known & (self.abort | accepts[client])),
            order.r_en.eq(~known | ends),
            self.idle.eq(~self.ar.valid & ~order.r_rdy & ~known),
        ]
        for number, response in enumerate(self.responses):
            m.d.comb += [
                response.valid.eq(beat.valid & known & (client == number) & ~self.abort),
                response.payload.data.eq(beat.payload.data),
                response.payload.error.eq(beat.payload.resp != 0),
            ]
        return m


class WritePort(wiring.Component):
    """Write bursts of one client, one after the other, with several unanswered ones.

    Members:
        request: a burst, taken when the one before has sent all its beats
        data: its beats
        aw, w, b: the bus
        abort: no burst is taken; the beats that a started one still owes are sent without write strobes
        outstanding: bursts taken and not answered
        failed: one cycle for each error response, a cycle after it
        idle: nothing is outstanding
    """

    def __init__(self, config: AcceleratorConfig):
        self._config = config
        axi = AxiSignature(config.axi_bytes).members
        super().__init__(
            {
                "request": In(stream.Signature(READ_REQUEST)),
                "data": In(stream.Signature(data.StructLayout({"data": 8 * config.axi_bytes}))),
                "aw": axi["aw"],
                "w": axi["w"],
                "b": axi["b"],
                "abort": In(1),
                "outstanding": Out(8),
                "failed": Out(1),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        owing = Signal()  # the current burst has beats that are not on their way
        left, last = Signal(8), Signal()  # after the next one; nothing is left
        taken = self.request.valid & self.request.ready
        answered = self.b.valid & self.b.ready
        m.d.comb += [
            self.request.ready.eq(~owing & ~self.aw.valid & ~self.abort & (self.outstanding != 255)),
            self.b.ready.eq(1),
            self.idle.eq((self.outstanding == 0) & ~self.aw.valid & ~self.w.valid),
        ]
        m.d.sync += [
            self.outstanding.eq(self.outstanding + taken - answered),
            self.failed.eq(answered & (self.b.payload.resp != 0)),
        ]
        with m.If(self.aw.ready):
            m.d.sync += self.aw.valid.eq(0)
        with m.If(taken):
            _address(m, self.aw, self._config, self.request.payload)
            m.d.sync += [owing.eq(1), left.eq(self.request.payload.len), last.eq(self.request.payload.len == 0)]

        # Beats go through registers, so that W never waits for AW, its payload stays while it is valid, and the client
        # does not see the bus.
        m.submodules.beats = beats = RegisterSlice(self.w.payload.shape())
        wiring.connect(m, beats.o, wiring.flipped(self.w))
        m.d.comb += [
            self.data.ready.eq(owing & beats.i.ready & ~self.abort),
            beats.i.valid.eq(owing & (self.data.valid | self.abort)),
            beats.i.payload.data.eq(self.data.payload.data),
            beats.i.payload.strb.eq(Mux(self.abort, 0, (1 << self._config.axi_bytes) - 1)),
            beats.i.payload.last.eq(last),
        ]
        with m.If(beats.i.valid & beats.i.ready):
            m.d.sync += [owing.eq(~last), left.eq(left - 1), last.eq(left == 1)]
        return m
