"""Fetches the program, checks it and deals its commands out to the engines' queues."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from edgemoe_hw.bus.bursts import AXI4_BEATS
from edgemoe_hw.interfaces import COMMAND, ERROR_REPORT, READ_REQUEST, read_response
from edgemoe_hw.layouts import Begin, Header
from edgemoe_hw.primitives.arithmetic import minimum, truncate
from edgemoe_hw.primitives.fifo import Fifo
from edgemoe_hw.spec import isa
from edgemoe_hw.spec.config import ISA_VERSION, AcceleratorConfig
from edgemoe_hw.spec.constants import ADDRESS_BITS, COMMAND_BITS, COMMAND_BYTES, COUNT_BITS
from edgemoe_hw.spec.regs import ErrorCode

__all__ = ["Sequencer"]

_FETCH = 8  # commands a burst at most: 512 bytes, aligned to that, so it never crosses 4 KiB
_AHEAD = 16  # commands fetched and not dispatched

# What may be wrong with a command's form; of several, the first counts.
_FORM = (ErrorCode.ILLEGAL_OPCODE, ErrorCode.ISA_VERSION, ErrorCode.CONFIG_HASH, ErrorCode.PROGRAM_LENGTH)


class Sequencer(wiring.Component):
    """Runs one program from ``launch`` to ``finished`` or to an error, after which it must be reset.

    Deals out one command in four cycles at most; the fetch brings no more over a bus of 16 bytes.

    Args:
        burst_beats: of the longest burst; at least a command's

    Members:
        launch: one cycle, in the reset state: start at ``address`` with ``length`` commands
        request, response: of the program (``ReadPort``); beats are always accepted
        dispatch: one stream an engine (``isa.Engine`` order)
        done: commands finished by each engine
        ending: END was reached and some engine still works
        finished: one cycle: all commands are finished
        index: number of the next command to be dispatched, or of END
        error: of the program's form, or READ_BUS while it is fetched; from a register, until the reset
    """

    def __init__(self, config: AcceleratorConfig, burst_beats: int = AXI4_BEATS):
        self._config, self._burst_beats = config, burst_beats
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
        m.submodules.queue = queue = Fifo(COMMAND_BITS, _AHEAD)
        self._fetch(m, queue)
        fetch_failed = self._receive(m, queue)
        self._decode(m, queue)
        with m.If(fetch_failed & ~self.error.valid):
            m.d.sync += [
                self.error.valid.eq(1),
                self.error.code.eq(ErrorCode.READ_BUS),
                self.error.index.eq(self.index),
            ]
        return m

    def _fetch(self, m: Module, queue: Fifo) -> None:
        """Requests bursts: one in five cycles at most, so that each of them has one short step."""
        command_beats = COMMAND_BYTES // self._config.axi_bytes
        fetch = min(_FETCH, self._burst_beats // command_beats)
        burst_bits = exact_log2(fetch)
        address = Signal(ADDRESS_BITS - 6)  # in commands
        left = Signal(COUNT_BITS)
        count, aligned = Signal(range(fetch + 1)), Signal(range(fetch + 1))
        # Commands requested, and taken out of the queue, modulo twice its places; the difference is what is taken of
        # these or will be. It comes late, and so may be too much, but behind a request's own step never too little.
        requested, taken, promised = (Signal(range(2 * _AHEAD)) for _ in range(3))
        m.d.sync += [promised.eq(requested - taken), aligned.eq(fetch - address[:burst_bits])]
        with m.If(queue.r_rdy & queue.r_en):
            m.d.sync += taken.eq(taken + 1)
        m.d.comb += [
            self.request.payload.addr.eq(address << 6),
            self.request.payload.len.eq((count << exact_log2(command_beats)) - 1),
        ]
        with m.FSM():
            with m.State("IDLE"):
                with m.If(self.launch):
                    m.d.sync += [address.eq(self.address[6:]), left.eq(self.length)]
                    m.next = "ALIGN"
            with m.State("ALIGN"):
                m.next = "WAIT"
            with m.State("WAIT"):
                m.d.sync += count.eq(minimum(left, aligned))
                with m.If((left != 0) & (promised <= _AHEAD - fetch)):  # room for the longest, a short path
                    m.next = "REQUEST"
            with m.State("REQUEST"):
                m.d.comb += self.request.valid.eq(1)
                with m.If(self.request.ready):
                    m.next = "UPDATE"
            with m.State("UPDATE"):
                following = truncate(address[burst_bits:] + 1, len(address) - burst_bits)  # or this was the last one
                m.d.sync += [
                    address.eq(following << burst_bits),
                    left.eq(left - count),
                    requested.eq(requested + count),
                ]
                m.next = "ALIGN"

    def _receive(self, m: Module, queue: Fifo) -> Signal:
        """Joins beats to commands; returns whether one came with an error."""
        command_beats = COMMAND_BYTES // self._config.axi_bytes
        arrived, failed = Signal(), Signal()
        part = Signal(8 * self._config.axi_bytes, reset_less=True)
        beat = Signal(range(command_beats))
        word = Signal(COMMAND_BITS - len(part), reset_less=True)
        command = Cat(word, part)
        m.d.comb += [
            self.response.ready.eq(1),
            queue.w_en.eq(arrived & (beat == command_beats - 1)),
            queue.w_data.eq(command),
        ]
        m.d.sync += [
            arrived.eq(self.response.valid),
            failed.eq(self.response.valid & self.response.payload.error),
            part.eq(self.response.payload.data),
        ]
        with m.If(arrived):
            m.d.sync += [word.eq(command[len(part) :]), beat.eq(beat + 1)]
        return failed

    def _decode(self, m: Module, queue: Fifo) -> None:
        """A command in four cycles: out of the queue; what it is and whether it is right; to its engine; gone."""
        word = Signal(COMMAND_BITS, reset_less=True)
        header = data.View(Header, word[: Header.size])
        full, checked, begun = Signal(), Signal(), Signal()
        incoming = data.View(Begin, queue.r_data[Header.size :][: Begin.size])
        version, config, length = Signal(), Signal(), Signal()  # are right, should this be BEGIN
        left = Signal(COUNT_BITS)  # commands not yet dispatched
        last, short = Signal(), Signal()
        right = Signal()  # BEGIN or END, and where it must be
        wrong = {code: Signal(name=f"is_{code.name.lower()}") for code in _FORM}
        sent = [Signal(COUNT_BITS, name=f"sent_{engine.name.lower()}") for engine in isa.Engine]
        dealt, gone = Signal(len(isa.Engine)), Signal()
        take = checked & (right | gone)

        m.d.comb += queue.r_en.eq(~full)
        m.d.sync += [last.eq(left == 1), gone.eq(dealt.any())]
        with m.If(~full):
            m.d.sync += [
                full.eq(queue.r_rdy),
                word.eq(queue.r_data),
                version.eq(incoming.isa_version == ISA_VERSION),
                config.eq(incoming.config_hash == self._config.hash32),
                length.eq(incoming.commands == left),
            ]
        with m.Elif(~checked):
            m.d.sync += checked.eq(1)
            is_begin, is_end = header.opcode == isa.Opcode.BEGIN, header.opcode == isa.Opcode.END
            known = Cat(header.opcode == opcode for opcode in isa.ENGINES).any()
            m.d.sync += [
                right.eq(Mux(begun, is_end & last, is_begin & version & config & length)),
                wrong[ErrorCode.ILLEGAL_OPCODE].eq(Mux(begun, ~known & ~is_end, ~is_begin)),
                wrong[ErrorCode.ISA_VERSION].eq(~begun & ~version),
                wrong[ErrorCode.CONFIG_HASH].eq(~begun & ~config),
                wrong[ErrorCode.PROGRAM_LENGTH].eq(Mux(begun, is_end ^ last, ~length)),
            ]
        for opcode, engine in isa.ENGINES.items():
            stream_ = self.dispatch[engine]
            m.d.comb += [
                stream_.payload.word.eq(word),
                stream_.payload.index.eq(self.index),
                dealt[engine].eq(stream_.valid & stream_.ready),
            ]
            with m.If(full & ~checked):
                m.d.sync += stream_.valid.eq(begun & ~last & (header.opcode == opcode))
            with m.Elif(stream_.ready):
                m.d.sync += stream_.valid.eq(0)
            with m.If(dealt[engine]):
                m.d.sync += sent[engine].eq(sent[engine] + 1)
        with m.If(take):
            m.d.sync += [full.eq(0), checked.eq(0), right.eq(0), begun.eq(1), left.eq(left - 1)]
            with m.If(~(right & begun)):  # not at END
                m.d.sync += self.index.eq(self.index + 1)

        with m.If(~self.error.valid):  # the first stays until the reset
            with m.If(short | (checked & Cat(wrong.values()).any())):
                m.d.sync += [self.error.valid.eq(1), self.error.index.eq(self.index)]
            m.d.sync += self.error.code.eq(ErrorCode.PROGRAM_LENGTH)
            for code in reversed(_FORM):
                with m.If(wrong[code] & ~short):
                    m.d.sync += self.error.code.eq(code)

        # Whether engines have finished: a cycle late; commands end several cycles after they have been sent.
        ended = Signal(len(isa.Engine))
        m.d.sync += [
            ended.eq(Cat(done == count for done, count in zip(self.done, sent, strict=True))),
            self.finished.eq(self.ending & ended.all()),
        ]
        with m.If(right & begun):
            m.d.sync += self.ending.eq(1)
        with m.Elif(ended.all()):
            m.d.sync += self.ending.eq(0)
        with m.If(self.launch):
            m.d.sync += [left.eq(self.length), short.eq(self.length < 2)]
