"""The host's side of the serial line: commands as bytes to the accelerator's registers and to memory.

A command is 8 bytes (operation, three of the number of words, four of the first word's address, lowest byte first),
then a write's data. It is answered by a read's data, then by one byte: ``ANSWER`` with all bus responses ORed below it.
Words of registers have 4 bytes, words of memory 8.
"""

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, fifo, stream, wiring
from amaranth.lib.wiring import In, Out

from edgemoe_hw.bus.axi import BURST_INCR, AxiLiteSignature, AxiSignature
from edgemoe_hw.spec.serial_protocol import ANSWER, MEMORY, WRITE

__all__ = ["Bridge"]

_HEADER = data.StructLayout({"operation": 8, "count": 24, "address": 32})
_MEMORY_BYTES, _REGISTER_BYTES = 8, 4
_SIZE_8_BYTES = 3
_SLVERR = 2


class Bridge(wiring.Component):
    """Executes the host's commands, one after the other, a word at a time.

    Single words, because a burst of the host's would keep memory from the accelerator for as long as the line takes.

    Args:
        queued: received bytes that wait while the accelerator has memory

    Members:
        received, sent: bytes from and to the host
        registers: AXI4-Lite master
        memory: AXI4 master
    """

    def __init__(self, *, queued: int = 32):
        self._queued = queued
        super().__init__(
            {
                "received": In(stream.Signature(8, always_ready=True)),
                "sent": Out(stream.Signature(8)),
                "registers": Out(AxiLiteSignature()),
                "memory": Out(AxiSignature(_MEMORY_BYTES)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.queue = queue = fifo.SyncFIFO(width=8, depth=self._queued)
        m.d.comb += [queue.w_data.eq(self.received.payload), queue.w_en.eq(self.received.valid)]
        header = Signal(_HEADER)
        word = Signal(8 * _MEMORY_BYTES)
        status = Signal(2)
        left = Signal(range(_MEMORY_BYTES + 1))  # bytes of the header or of the word
        is_memory, is_write = header.operation[MEMORY], header.operation[WRITE]
        size = Mux(is_memory, _MEMORY_BYTES, _REGISTER_BYTES)
        last = header.count == 1
        next_word = [header.address.eq(header.address + size), header.count.eq(header.count - 1), left.eq(size)]

        with m.FSM():
            with m.State("HEADER"):
                m.d.comb += queue.r_en.eq(1)
                with m.If(queue.r_rdy):
                    m.d.sync += [header.eq(Cat(header.as_value()[8:], queue.r_data)), left.eq(left + 1)]
                    with m.If(left == _MEMORY_BYTES - 1):
                        m.next = "DECODE"
            with m.State("DECODE"):
                m.d.sync += [status.eq(0), left.eq(size)]
                with m.If(header.operation[2:] != 0):
                    m.d.sync += status.eq(_SLVERR)
                    m.next = "ANSWER"
                with m.Elif(header.count == 0):
                    m.next = "ANSWER"
                with m.Elif(is_write):
                    m.next = "FILL"
                with m.Else():
                    m.next = "READ"
            with m.State("FILL"):
                m.d.comb += queue.r_en.eq(1)
                with m.If(queue.r_rdy):
                    m.d.sync += [word.eq(Cat(word[8:], queue.r_data)), left.eq(left - 1)]
                    with m.If(left == 1):
                        m.next = "WRITE"
            with m.State("WRITE"):
                taken = Signal(2)  # address, data
                for selected, bus in ((~is_memory, self.registers), (is_memory, self.memory)):
                    done = Cat(bus.aw.valid & bus.aw.ready, bus.w.valid & bus.w.ready)
                    m.d.comb += [bus.aw.valid.eq(selected & ~taken[0]), bus.w.valid.eq(selected & ~taken[1])]
                    with m.If(selected):
                        m.d.sync += taken.eq(taken | done)
                with m.If(taken.all()):
                    m.d.sync += taken.eq(0)
                    m.next = "WRITTEN"
            with m.State("WRITTEN"):
                for selected, channel in ((~is_memory, self.registers.b), (is_memory, self.memory.b)):
                    m.d.comb += channel.ready.eq(selected)
                    with m.If(selected & channel.valid):
                        m.d.sync += [status.eq(status | channel.payload.resp), *next_word]
                        m.next = "FILL"
                        with m.If(last):
                            m.next = "ANSWER"
            with m.State("READ"):
                for selected, channel in ((~is_memory, self.registers.ar), (is_memory, self.memory.ar)):
                    m.d.comb += channel.valid.eq(selected)
                    with m.If(selected & channel.ready):
                        m.next = "WAIT"
            with m.State("WAIT"):
                for selected, channel in ((~is_memory, self.registers.r), (is_memory, self.memory.r)):
                    m.d.comb += channel.ready.eq(selected)
                    with m.If(selected & channel.valid):
                        m.d.sync += [word.eq(channel.payload.data), status.eq(status | channel.payload.resp)]
                        m.next = "SEND"
            with m.State("SEND"):
                m.d.comb += [self.sent.valid.eq(1), self.sent.payload.eq(word[:8])]
                with m.If(self.sent.ready):
                    m.d.sync += [word.eq(word >> 8), left.eq(left - 1)]
                    with m.If(left == 1):
                        m.d.sync += next_word
                        m.next = "READ"
                        with m.If(last):
                            m.next = "ANSWER"
            with m.State("ANSWER"):
                m.d.comb += [self.sent.valid.eq(1), self.sent.payload.eq(ANSWER | status)]
                m.d.sync += left.eq(0)
                with m.If(self.sent.ready):
                    m.next = "HEADER"
        self._payloads(m, header.address, word)
        return m

    def _payloads(self, m: Module, address: Value, word: Value) -> None:
        """What the channels carry whenever they are valid: a register's word has come in the upper half."""
        for channel in (self.registers.aw, self.registers.ar, self.memory.aw, self.memory.ar):
            m.d.comb += channel.payload.addr.eq(address)
        for channel in (self.memory.aw, self.memory.ar):
            m.d.comb += [channel.payload.size.eq(_SIZE_8_BYTES), channel.payload.burst.eq(BURST_INCR)]
        m.d.comb += [
            self.registers.w.payload.data.eq(word[32:]),
            self.registers.w.payload.strb.eq(-1),
            self.memory.w.payload.data.eq(word),
            self.memory.w.payload.strb.eq(-1),
            self.memory.w.payload.last.eq(1),
        ]
