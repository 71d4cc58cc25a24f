"""Fetches the program, checks it and deals its commands out to the engines' queues."""

from collections.abc import Callable, Sequence

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, fifo, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from edgemoe_hw.interfaces import COMMAND, ERROR_REPORT, READ_REQUEST, read_response
from edgemoe_hw.layouts import Begin, Header
from edgemoe_hw.primitives.arithmetic import minimum
from edgemoe_hw.spec import isa
from edgemoe_hw.spec.config import ISA_VERSION, AcceleratorConfig
from edgemoe_hw.spec.constants import ADDRESS_BITS, COMMAND_BITS, COMMAND_BYTES, COUNT_BITS
from edgemoe_hw.spec.regs import ErrorCode

__all__ = ["Sequencer"]

_FETCH = 8  # commands a burst: 512 bytes, aligned to that, so it never crosses 4 KiB
_AHEAD = 16  # commands fetched and not dispatched


class Sequencer(wiring.Component):
    """Runs one program from ``launch`` to ``finished`` or to an error, after which it must be reset.

    Members:
        launch: one cycle, in the reset state: start at ``address`` with ``length`` commands
        request, response: of the program (``ReadPort``); beats are always accepted
        dispatch: one stream an engine (``isa.Engine`` order)
        done: commands finished by each engine
        ending: END was reached and some engine still works
        finished: all commands are finished
        index: number of the next command to be dispatched
        error: of the program's form, or READ_BUS while it is fetched
    """

    def __init__(self, config: AcceleratorConfig):
        self._config = config
        engines = len(isa.Engine)
        super().__init__(
            {
                "launch": In(1),
                "address": In(ADDRESS_BITS),
                "length": In(COUNT_BITS),
                "request": Out(stream.Signature(READ_REQUEST)),
                "response": In(stream.Signature(read_response(config))),
                "dispatch": Out(stream.Signature(COMMAND)).array(engines),
                "done": In(COUNT_BITS).array(engines),
                "ending": Out(1),
                "finished": Out(1),
                "index": Out(COUNT_BITS),
                "error": Out(ERROR_REPORT),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.queue = queue = fifo.SyncFIFO(width=COMMAND_BITS, depth=_AHEAD)
        self._fetch(m, queue)
        self._decode(m, queue)
        fetch_failed = self.response.valid & self.response.payload.error
        with m.If(fetch_failed):
            m.d.comb += [
                self.error.valid.eq(1),
                self.error.code.eq(ErrorCode.READ_BUS),
                self.error.index.eq(self.index),
            ]
        return m

    def _fetch(self, m: Module, queue: fifo.SyncFIFO) -> None:
        command_beats = COMMAND_BYTES // self._config.axi_bytes
        address = Signal(ADDRESS_BITS - 6)  # in commands
        left = Signal(COUNT_BITS)
        promised = Signal(range(_AHEAD + 1))  # places of the queue that are taken or will be
        count = Signal(range(_FETCH + 1))
        aligned = Signal(range(_FETCH + 1))
        requested = self.request.valid & self.request.ready
        m.d.comb += [
            aligned.eq(_FETCH - address[: exact_log2(_FETCH)]),
            count.eq(minimum(left, aligned)),
            self.request.valid.eq((left != 0) & (promised <= _AHEAD - _FETCH)),  # room for the longest, a short path
            self.request.payload.addr.eq(address << 6),
            self.request.payload.len.eq((count << exact_log2(command_beats)) - 1),
        ]
        with m.If(self.launch):
            m.d.sync += [address.eq(self.address[6:]), left.eq(self.length)]
        with m.If(requested):
            m.d.sync += [address.eq(address + count), left.eq(left - count)]
        taken = Signal()  # a cycle late: what is promised may be too much, never too little
        m.d.sync += [taken.eq(queue.r_rdy & queue.r_en), promised.eq(promised + Mux(requested, count, 0) - taken)]

        beat = Signal(range(command_beats))
        word = Signal(COMMAND_BITS)
        shifted = Cat(word, self.response.payload.data)[-COMMAND_BITS:]
        m.d.comb += [
            self.response.ready.eq(1),
            queue.w_en.eq(self.response.valid & (beat == command_beats - 1)),
            queue.w_data.eq(shifted),
        ]
        with m.If(self.response.valid):
            m.d.sync += [word.eq(shifted), beat.eq(beat + 1)]

    def _decode(self, m: Module, queue: fifo.SyncFIFO) -> None:
        word = queue.r_data
        header = data.View(Header, word[: Header.size])
        begin = data.View(Begin, word[Header.size :][: Begin.size])
        last = self.index == self.length - 1

        def fail(code: ErrorCode) -> None:
            m.d.comb += [self.error.valid.eq(1), self.error.code.eq(code), self.error.index.eq(self.index)]

        def take() -> None:
            m.d.comb += queue.r_en.eq(1)
            m.d.sync += self.index.eq(self.index + 1)

        sent = [Signal(COUNT_BITS, name=f"sent_{engine.name.lower()}") for engine in isa.Engine]
        with m.FSM():
            with m.State("IDLE"):
                with m.If(self.launch):
                    m.next = "BEGIN"
            with m.State("BEGIN"):
                with m.If(self.length < 2):
                    fail(ErrorCode.PROGRAM_LENGTH)
                with m.Elif(queue.r_rdy):
                    with m.If(header.opcode != isa.Opcode.BEGIN):
                        fail(ErrorCode.ILLEGAL_OPCODE)
                    with m.Elif(begin.isa_version != ISA_VERSION):
                        fail(ErrorCode.ISA_VERSION)
                    with m.Elif(begin.config_hash != self._config.hash32):
                        fail(ErrorCode.CONFIG_HASH)
                    with m.Elif(begin.commands != self.length):
                        fail(ErrorCode.PROGRAM_LENGTH)
                    with m.Else():
                        take()
                        m.next = "BODY"
            with m.State("BODY"):
                with m.If(queue.r_rdy):
                    self._body(m, word, header, last, sent, fail, take)
            with m.State("END"):
                m.d.comb += self.ending.eq(1)
                with m.If(Cat(done == count for done, count in zip(self.done, sent, strict=True)).all()):
                    m.d.comb += self.finished.eq(1)
                    m.next = "STOPPED"
            with m.State("STOPPED"):
                pass

    def _body(
        self,
        m: Module,
        word: Value,
        header: data.View,
        last: Value,
        sent: Sequence[Signal],
        fail: Callable[[ErrorCode], None],
        take: Callable[[], None],
    ) -> None:
        with m.Switch(header.opcode):
            with m.Case(isa.Opcode.END):
                with m.If(last):
                    take()
                    m.next = "END"
                with m.Else():
                    fail(ErrorCode.PROGRAM_LENGTH)
            for opcode, engine in isa.ENGINES.items():
                with m.Case(opcode):
                    stream_ = self.dispatch[engine]
                    m.d.comb += [stream_.payload.word.eq(word), stream_.payload.index.eq(self.index)]
                    with m.If(last):
                        fail(ErrorCode.PROGRAM_LENGTH)
                    with m.Else():
                        m.d.comb += stream_.valid.eq(1)
                        with m.If(stream_.ready):
                            take()
                            m.d.sync += sent[engine].eq(sent[engine] + 1)
            with m.Default():
                fail(ErrorCode.ILLEGAL_OPCODE)
