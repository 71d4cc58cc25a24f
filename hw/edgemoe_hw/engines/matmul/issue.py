"""Issue side of the MATMUL engine: walks tokens, tiles and steps, and addresses the operand memories."""

from amaranth import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from edgemoe_hw.interfaces import queued_layout
from edgemoe_hw.layouts import MatMul
from edgemoe_hw.spec.config import AcceleratorConfig
from edgemoe_hw.spec.isa import RowFactor

__all__ = ["MatMulIssue", "StepMeta", "TileMeta"]


class TileMeta(data.Struct):
    """What the epilogue must know of a finished tile beside its command."""

    first_tile: 1  # of its token
    last_of_command: 1
    index: 11  # of the token within the command
    dst_offset: 16  # rows from dst_base to the token's row
    score: 16  # gate score of the token, if it came from a queue


class StepMeta(data.Struct):
    """One step of the array."""

    valid: 1
    first: 1
    last: 1
    first_tile: 1
    source: 1
    unsigned: 1
    nibbles: 1
    softmax: 1
    score_shift: 2
    maximum_row: 11
    step: 8
    keys: 11
    source_row: 16
    weight_row: 16
    tile: TileMeta


class MatMulIssue(wiring.Component):
    """Issues one array step a cycle.

    A tile starts only ``min_gap`` cycles after the one before it, so that the epilogue, whose rate is static, never has
    to stall the array. Between commands there is one idle cycle.

    Members:
        command: commands whose dependencies are met
        epilogue_command: the command's copy for the epilogue, sent before the first tile
        step: this cycle's step (``valid`` inside)
        queue_expert, queue_index / queue_token, queue_score: read port of the expert queues, data one cycle later
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
                "queue_expert": Out(5),
                "queue_index": Out(11),
                "queue_token": In(11),
                "queue_score": In(16),
                "drained": In(1),
                "skipped": Out(1),
                "busy": Out(1),
                "stall_gap": Out(1),
                "stall_token": Out(1),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        incoming = self.command.payload
        current = Signal(MatMul)
        running = Signal()
        expert = Signal(5)
        final_token, final_tile, final_step = Signal(11), Signal(10), Signal(8)

        m.d.comb += [
            self.queue_expert.eq(expert),
            self.epilogue_command.payload.eq(incoming.payload),
            self.idle.eq(~running),
        ]

        # Position within the command.
        index = Signal(11)
        tile = Signal(10)
        step = Signal(8)
        src_offset = Signal(16)
        dst_offset = Signal(16)
        score = Signal(16)
        weight_row = Signal(16)
        token_ready = Signal()
        gap = Signal(8)

        count = Mux(incoming.payload.use_queue, incoming.tokens, incoming.payload.tokens)
        empty = incoming.skip | (count == 0) | (incoming.payload.tiles == 0)
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
        with m.If(~running):  # whether there is a command or not: only one bit should depend on that
            m.d.sync += [
                current.eq(incoming.payload),
                expert.eq(incoming.header.expert),
                final_token.eq(count - 1),
                final_tile.eq(incoming.payload.tiles - 1),
                final_step.eq(incoming.payload.k_steps - 1),
                index.eq(0),
                tile.eq(0),
                step.eq(0),
                src_offset.eq(0),
                dst_offset.eq(0),
                score.eq(0),
                weight_row.eq(incoming.payload.weight_base),
                token_ready.eq(~incoming.payload.use_queue),
            ]

        take = Signal()  # the prefetched queue entry becomes the current token
        next_token, next_score, next_ready = self._queue_prefetch(m, running, current, take)

        # One step.
        last_step = step == final_step
        last_tile = tile == final_tile
        last_token = index == final_token
        # min_gap spaces the starts of a command's tiles. Their ends come closer where a command of fewer steps follows
        # another; the epilogue still needs its cycles between them.
        drain = Signal(range(self._config.epilogue_cycles))
        gap_ok = ((step != 0) | (gap == 0)) & (~last_step | (drain == 0))
        go = Signal()
        m.d.comb += [
            go.eq(running & token_ready & gap_ok),
            self.busy.eq(go),
            self.stall_token.eq(running & ~token_ready),
            self.stall_gap.eq(running & token_ready & ~gap_ok),
            self.step.valid.eq(go),
            self.step.first.eq(step == 0),
            self.step.last.eq(last_step),
            self.step.first_tile.eq(tile == 0),
            self.step.source.eq(current.source),
            self.step.unsigned.eq(current.unsigned),
            self.step.nibbles.eq(current.nibbles),
            self.step.softmax.eq(current.row_factor == RowFactor.SOFTMAX),
            self.step.score_shift.eq(current.score_shift),
            self.step.maximum_row.eq(current.max_base + index),
            self.step.step.eq(step),
            self.step.keys.eq(current.keys),
            self.step.source_row.eq(current.src_base + src_offset + step),
            self.step.weight_row.eq(weight_row),
            self.step.tile.first_tile.eq(tile == 0),
            self.step.tile.last_of_command.eq(last_tile & last_token),
            self.step.tile.index.eq(index),
            self.step.tile.dst_offset.eq(dst_offset),
            self.step.tile.score.eq(score),
        ]
        with m.If(gap != 0):
            m.d.sync += gap.eq(gap - 1)
        with m.If(drain != 0):
            m.d.sync += drain.eq(drain - 1)
        with m.If(go & last_step):
            m.d.sync += drain.eq(self._config.epilogue_cycles - 1)
        with m.If(go):
            with m.If(step == 0):
                m.d.sync += gap.eq(current.min_gap - (current.min_gap != 0))
            row_ends = ~current.nibbles | step[0] | last_step
            m.d.sync += [step.eq(step + 1), weight_row.eq(weight_row + row_ends)]
            with m.If(last_step):
                m.d.sync += [step.eq(0), tile.eq(tile + 1)]
                with m.If(last_tile):
                    m.d.sync += [tile.eq(0), index.eq(index + 1), weight_row.eq(current.weight_base)]
                    with m.If(~current.use_queue):
                        m.d.sync += [
                            src_offset.eq(src_offset + current.src_stride),
                            dst_offset.eq(dst_offset + current.dst_stride),
                        ]
                    with m.Else():
                        m.d.sync += token_ready.eq(0)
                    with m.If(last_token):
                        m.d.sync += running.eq(0)

        token_ends = go & last_step & last_tile & ~last_token
        m.d.comb += take.eq(running & current.use_queue & next_ready & (~token_ready | token_ends))
        with m.If(take):
            # A queue's token addresses rows by number where it gathers or scatters, by position elsewhere.
            m.d.sync += [
                token_ready.eq(1),
                score.eq(next_score),
                src_offset.eq(next_token["src"]),
                dst_offset.eq(next_token["dst"]),
            ]
        return m

    def _queue_prefetch(self, m: Module, running, current, take):
        """Read the queue entry of the next token ahead of time; two cycles from index to offsets."""
        fetch_index = Signal(11)
        wanted = Signal()  # entry of fetch_index is being read
        have = Signal()
        ready = Signal()
        score_1 = Signal(16)
        token_1 = Signal(11)
        src = Signal(16)
        dst = Signal(16)
        score_2 = Signal(16)
        m.d.comb += self.queue_index.eq(fetch_index)
        with m.If(~running):
            m.d.sync += [fetch_index.eq(0), wanted.eq(0), have.eq(0), ready.eq(0)]
        with m.Else():
            with m.If(~wanted & ~have & ~ready):
                m.d.sync += wanted.eq(1)
            with m.If(wanted):
                m.d.sync += [wanted.eq(0), have.eq(1), token_1.eq(self.queue_token), score_1.eq(self.queue_score)]
            with m.If(have & ~ready):
                m.d.sync += [
                    have.eq(0),
                    ready.eq(1),
                    score_2.eq(score_1),
                    src.eq(Mux(current.gather, token_1, fetch_index) * current.src_stride),
                    dst.eq(Mux(current.scatter, token_1, fetch_index) * current.dst_stride),
                    fetch_index.eq(fetch_index + 1),
                ]
            with m.If(take):
                m.d.sync += ready.eq(0)
        return {"src": src, "dst": dst}, score_2, ready
