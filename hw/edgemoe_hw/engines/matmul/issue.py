"""Issue side of the MATMUL engine: walks tokens, tiles and steps, and addresses the operand memories."""

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from edgemoe_hw.engines.matmul.records import StepMeta
from edgemoe_hw.interfaces import queued_layout
from edgemoe_hw.layouts import MatMul
from edgemoe_hw.ports import QueueRead
from edgemoe_hw.primitives.arithmetic import truncate
from edgemoe_hw.spec.config import AcceleratorConfig
from edgemoe_hw.spec.constants import ROW_BITS, ROW_FACTOR_BITS, TOKEN_BITS
from edgemoe_hw.spec.isa import RowFactor

__all__ = ["MatMulIssue"]


class _Token(data.Struct):
    """What a token brings to its steps."""

    src_offset: ROW_BITS
    dst_offset: ROW_BITS
    score: ROW_FACTOR_BITS


class _Position(data.Struct):
    """A step's place within its command, or the last step's."""

    index: TOKEN_BITS  # of the token
    tile: 10
    step: 8


class MatMulIssue(wiring.Component):
    """Issues one array step a cycle.

    A tile starts only ``min_gap`` cycles after the one before it, so that the epilogue, whose rate is static, never has
    to stall the array. Between commands there is one idle cycle. A queue's first token comes four cycles later; the
    others are read ahead, which costs nothing where a token has at least four steps.

    Members:
        command: commands whose dependencies are met
        epilogue_command: the command's copy for the epilogue, sent before the first tile
        step: this cycle's step (``valid`` inside)
        queue: read port of the expert queues
        drained: all earlier commands are complete; a command without any tile waits for it, so that completions stay in
            program order
        skipped: pulse, a command ended without any tile
        busy: a step is issued; stall_gap, stall_token: why none is although a command runs; idle: no command runs
    """

    def __init__(self, config: AcceleratorConfig):
        self._config = config
        super().__init__(
            {
                "command": In(stream.Signature(queued_layout(MatMul))),
                "epilogue_command": Out(stream.Signature(MatMul)),
                "step": Out(StepMeta),
                "queue": Out(QueueRead()),
                "drained": In(1),
                "skipped": Out(1),
                "busy": Out(1),
                "stall_gap": Out(1),
                "stall_token": Out(1),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        current, running = Signal(MatMul), Signal()
        now, last = Signal(_Position), Signal(_Position)
        token, token_ready = Signal(_Token), Signal()
        weight_row = Signal(ROW_BITS)
        self._accept(m, current, running, last)
        with m.If(~running):  # whether there is a command or not: only one bit should depend on that
            m.d.sync += [
                now.eq(0),
                token.eq(0),
                weight_row.eq(self.command.payload.payload.weight_base),
                token_ready.eq(~self.command.payload.payload.use_queue),
            ]
        take = Signal()  # the prefetched queue entry becomes the current token
        following, following_ready = self._prefetch(m, running, current, take)

        last_step, last_tile = now.step == last.step, now.tile == last.tile
        last_token = now.index == last.index
        go = self._pace(m, running, token_ready, current, now, last_step)
        self._step(m, current, now, token, weight_row, go, last_step, last_tile & last_token)
        with m.If(go):
            row_ends = ~current.nibbles | now.step[0] | last_step
            m.d.sync += [now.step.eq(now.step + 1), weight_row.eq(weight_row + row_ends)]
            with m.If(last_step):
                m.d.sync += [now.step.eq(0), now.tile.eq(now.tile + 1)]
                with m.If(last_tile):
                    m.d.sync += [now.tile.eq(0), now.index.eq(now.index + 1), weight_row.eq(current.weight_base)]
                    with m.If(~current.use_queue):
                        m.d.sync += [
                            token.src_offset.eq(token.src_offset + current.src_stride),
                            token.dst_offset.eq(token.dst_offset + current.dst_stride),
                        ]
                    with m.Else():
                        m.d.sync += token_ready.eq(0)
                    with m.If(last_token):
                        m.d.sync += running.eq(0)

        token_ends = go & last_step & last_tile & ~last_token
        m.d.comb += take.eq(running & current.use_queue & following_ready & (~token_ready | token_ends))
        with m.If(take):
            m.d.sync += [token_ready.eq(1), token.eq(following)]
        return m

    def _accept(self, m: Module, current: data.View, running: Signal, last: data.View) -> None:
        """Take the next command, or end it at once if it has nothing to do."""
        incoming = self.command.payload
        count = Mux(incoming.payload.use_queue, incoming.tokens, incoming.payload.tokens)
        empty = (count == 0) | (incoming.payload.tiles == 0)
        m.d.comb += [self.epilogue_command.payload.eq(incoming.payload), self.idle.eq(~running)]
        with m.If(~running & self.command.valid):
            with m.If(empty):
                m.d.comb += [self.command.ready.eq(self.drained), self.skipped.eq(self.drained)]
            with m.Else():
                m.d.comb += [
                    self.epilogue_command.valid.eq(1),
                    self.command.ready.eq(self.epilogue_command.ready),
                ]
                with m.If(self.epilogue_command.ready):
                    m.d.sync += running.eq(1)
        with m.If(~running):
            m.d.sync += [
                current.eq(incoming.payload),
                self.queue.expert.eq(incoming.header.expert),
                last.index.eq(count - 1),
                last.tile.eq(incoming.payload.tiles - 1),
                last.step.eq(incoming.payload.k_steps - 1),
            ]

    def _pace(
        self, m: Module, running: Signal, token_ready: Signal, current: data.View, now: data.View, last_step: Value
    ) -> Signal:
        """Whether a step goes now.

        ``min_gap`` spaces the starts of a command's tiles. Their ends come closer where a command of fewer steps
        follows another; the epilogue still needs its cycles between them.
        """
        gap = Signal(8)
        drain = Signal(range(self._config.epilogue_cycles))
        go, paced = Signal(), Signal()
        m.d.comb += [
            paced.eq(((now.step != 0) | (gap == 0)) & (~last_step | (drain == 0))),
            go.eq(running & token_ready & paced),
            self.busy.eq(go),
            self.stall_token.eq(running & ~token_ready),
            self.stall_gap.eq(running & token_ready & ~paced),
        ]
        with m.If(gap != 0):
            m.d.sync += gap.eq(gap - 1)
        with m.If(drain != 0):
            m.d.sync += drain.eq(drain - 1)
        with m.If(go & last_step):
            m.d.sync += drain.eq(self._config.epilogue_cycles - 1)
        with m.If(go & (now.step == 0)):
            m.d.sync += gap.eq(current.min_gap - (current.min_gap != 0))
        return go

    def _step(
        self,
        m: Module,
        current: data.View,
        now: data.View,
        token: data.View,
        weight_row: Signal,
        go: Signal,
        last_step: Value,
        last_tile_of_command: Value,
    ) -> None:
        """What goes to the operand path."""
        step = self.step
        m.d.comb += [
            step.valid.eq(go),
            step.first.eq(now.step == 0),
            step.last.eq(last_step),
            step.first_tile.eq(now.tile == 0),
            step.source.eq(current.source),
            step.unsigned.eq(current.unsigned),
            step.nibbles.eq(current.nibbles),
            step.softmax.eq(current.row_factor == RowFactor.SOFTMAX),
            step.score_shift.eq(current.score_shift),
            step.maximum_row.eq(current.max_base + now.index),
            step.step.eq(now.step),
            step.keys.eq(current.keys),
            step.source_row.eq(current.src_base + token.src_offset + now.step),
            step.weight_row.eq(weight_row),
            step.tile.first_tile.eq(now.tile == 0),
            step.tile.last_of_command.eq(last_tile_of_command),
            step.tile.index.eq(now.index),
            step.tile.dst_offset.eq(token.dst_offset),
            step.tile.score.eq(token.score),
        ]

    def _prefetch(self, m: Module, running: Signal, current: data.View, take: Signal) -> tuple[data.View, Signal]:
        """Read the next token's queue entry ahead of time: two cycles from index to offsets.

        A queue's token addresses rows by number where it gathers or scatters, by position elsewhere.
        """
        index = Signal(TOKEN_BITS)
        wanted = Signal()  # the entry of `index` is being read
        have = Signal()
        ready = Signal()
        number, score = Signal(TOKEN_BITS), Signal(ROW_FACTOR_BITS)
        token = Signal(_Token)
        m.d.comb += self.queue.index.eq(index)

        def rows(by_number: Value, stride: Value) -> Value:
            return truncate(Mux(by_number, number, index) * stride, ROW_BITS)

        with m.If(~running):
            m.d.sync += [index.eq(0), wanted.eq(0), have.eq(0), ready.eq(0)]
        with m.Else():
            with m.If(~wanted & ~have & ~ready):
                m.d.sync += wanted.eq(1)
            with m.If(wanted):
                m.d.sync += [wanted.eq(0), have.eq(1), number.eq(self.queue.token), score.eq(self.queue.score)]
            with m.If(have & ~ready):
                m.d.sync += [
                    have.eq(0),
                    ready.eq(1),
                    token.src_offset.eq(rows(current.gather, current.src_stride)),
                    token.dst_offset.eq(rows(current.scatter, current.dst_stride)),
                    token.score.eq(score),
                    index.eq(index + 1),
                ]
            with m.If(take):
                m.d.sync += ready.eq(0)
        return token, ready
