"""Issue side of the MATMUL engine: walks tokens, tiles and steps, and addresses the operand memories."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
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

    src_row: ROW_BITS
    dst_offset: ROW_BITS
    score: ROW_FACTOR_BITS


class _Walk(data.Struct):
    """A walk over ``last + 1`` steps, tiles or tokens: where it is, and what that place is, known a cycle ahead."""

    place: TOKEN_BITS
    is_first: 1
    is_last: 1


class _Extent(data.Struct):
    """How far a walk goes."""

    single: 1  # its first place is its last
    before_last: TOKEN_BITS  # the last place but one, if there is one


class _Extents(data.Struct):
    """A command's walks, and what else its first cycle needs of it."""

    tokens: _Extent
    tiles: _Extent
    steps: _Extent
    empty: 1  # there is not one step
    gap: 8  # cycles after a tile's first step in which no other tile may start
    no_gap: 1


class MatMulIssue(wiring.Component):
    """Issues one array step a cycle.

    A tile starts only ``min_gap`` cycles after the one before it, so that the epilogue, whose rate is static, never has
    to stall the array. A command is looked at for a cycle before it can start; if it is offered while the one before
    runs, there is one idle cycle between them. A queue's first token comes four cycles later; the others are read
    ahead, which costs nothing where a token has at least two steps.

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
        # Only what says whether there is anything needs a reset.
        current, extents = Signal(MatMul, reset_less=True), Signal(_Extents, reset_less=True)
        running = Signal()
        resting = Signal(init=1, attrs={"keep": "true"})  # ~running once more, for wide loads
        index, tile, step = (Signal(_Walk, name=name, reset_less=True) for name in ("index", "tile", "at"))
        token, token_ready = Signal(_Token, reset_less=True), Signal()
        weight_row, maximum_row = Signal(ROW_BITS, reset_less=True), Signal(TOKEN_BITS, reset_less=True)
        incoming = self.command.payload.payload
        looked_at = self._accept(m, current, extents, running, resting)
        take = Signal()  # the prefetched queue entry becomes the current token
        following, following_ready = self._prefetch(m, resting, current, take)

        go = self._pace(m, running, token_ready, extents, step)
        self._step(m, current, (index, tile, step), token, (weight_row, maximum_row), go)
        tile_ends, token_ends, command_ends = Signal(), Signal(), Signal()
        last_step = Signal()  # of the token
        m.d.comb += [
            last_step.eq(step.is_last & tile.is_last),
            tile_ends.eq(go & step.is_last),
            token_ends.eq(go & last_step),
            command_ends.eq(go & last_step & index.is_last),
            take.eq(running & current.use_queue & following_ready & (~token_ready | (token_ends & ~index.is_last))),
        ]
        # Whether there is a step decides only whether a register changes. What it becomes is chosen by registers: the
        # first place of the command that is offered (resting), or the next one of the command that runs.
        for walk, first, extent, ends in (
            (step, looked_at.steps, extents.steps, go),
            (tile, looked_at.tiles, extents.tiles, tile_ends),
            (index, looked_at.tokens, extents.tokens, token_ends),
        ):
            with m.If(resting | ends):
                m.d.sync += walk.eq(Mux(resting, self._first(first), self._next(walk, extent)))
        with m.If(resting | go):
            row = truncate(weight_row + (~current.nibbles | step.place[0] | step.is_last), ROW_BITS)
            m.d.sync += weight_row.eq(
                Mux(resting, incoming.weight_base, Mux(last_step, current.weight_base, row)),
            )
        with m.If(resting | token_ends):
            m.d.sync += maximum_row.eq(Mux(resting, incoming.max_base, truncate(maximum_row + 1, TOKEN_BITS)))
        with m.If(resting | take | (token_ends & ~current.use_queue)):
            m.d.sync += token.eq(
                Mux(resting, self._token(incoming.src_base), self._next_token(token, current, following))
            )
        with m.If(resting | take | token_ends):
            m.d.sync += token_ready.eq(Mux(resting, ~incoming.use_queue, take | ~current.use_queue))
        with m.If(command_ends):
            m.d.sync += [running.eq(0), resting.eq(1)]
        return m

    @staticmethod
    def _first(extent: data.View) -> Value:
        """The first place of a walk."""
        return Cat(Const(0, TOKEN_BITS), Const(1), extent.single)

    @staticmethod
    def _next(walk: data.View, extent: data.View) -> Value:
        """The place after this one; after the last one, the first."""
        return Cat(
            truncate(Mux(walk.is_last, 0, walk.place + 1), TOKEN_BITS),
            walk.is_last,
            Mux(walk.is_last, extent.single, walk.place == extent.before_last),
        )

    @staticmethod
    def _token(src_row: Value) -> Value:
        """A token that begins at row ``src_row``, with no queue."""
        return Cat(src_row, Const(0, ROW_BITS), Const(0, ROW_FACTOR_BITS))

    @staticmethod
    def _next_token(token: data.View, current: data.View, following: data.View) -> Value:
        """What the queue has next, or the rows behind this token's."""
        behind = Cat(
            truncate(token.src_row + current.src_stride, ROW_BITS),
            truncate(token.dst_offset + current.dst_stride, ROW_BITS),
            Const(0, ROW_FACTOR_BITS),
        )
        return Mux(current.use_queue, following.as_value(), behind)

    def _accept(self, m: Module, current: data.View, extents: data.View, running: Signal, resting: Signal) -> data.View:
        """Take the next command, or end it at once if it has nothing to do; returns what was seen of it a cycle ago."""
        incoming, payload = self.command.payload, self.command.payload.payload
        count = Signal(TOKEN_BITS)
        looked_at, known = Signal(_Extents, reset_less=True), Signal()  # of the command that is offered, if it is known
        m.d.comb += count.eq(Mux(payload.use_queue, incoming.tokens, payload.tokens))
        for extent, places in (
            (looked_at.tokens, count),
            (looked_at.tiles, payload.tiles),
            (looked_at.steps, payload.k_steps),
        ):
            m.d.sync += [extent.single.eq(places == 1), extent.before_last.eq(truncate(places - 2, TOKEN_BITS))]
        m.d.sync += [
            looked_at.empty.eq((count == 0) | (payload.tiles == 0)),
            looked_at.gap.eq(payload.min_gap - payload.min_gap.any()),
            looked_at.no_gap.eq(payload.min_gap <= 1),
            known.eq(self.command.valid & ~self.command.ready),
        ]
        m.d.comb += [self.epilogue_command.payload.eq(payload), self.idle.eq(~running)]
        expert = Signal.like(self.queue.expert)
        m.d.comb += self.queue.expert.eq(Mux(resting, incoming.header.expert, expert))
        with m.If(~running & known & looked_at.empty):
            m.d.comb += [self.command.ready.eq(self.drained), self.skipped.eq(self.drained)]
        with m.If(~running & known & ~looked_at.empty):
            m.d.comb += [self.epilogue_command.valid.eq(1), self.command.ready.eq(self.epilogue_command.ready)]
            with m.If(self.epilogue_command.ready):
                m.d.sync += [running.eq(1), resting.eq(0)]
        with m.If(resting):
            m.d.sync += [current.eq(payload), extents.eq(looked_at), expert.eq(incoming.header.expert)]
        return looked_at

    def _pace(self, m: Module, running: Signal, token_ready: Signal, extents: data.View, step: data.View) -> Signal:
        """Whether a step goes now.

        ``min_gap`` spaces the starts of a command's tiles. Their ends come closer where a command of fewer steps
        follows another; the epilogue still needs its cycles between them.
        """
        drain_cycles = self._config.epilogue_cycles - 1
        gap, may_start = Signal(8), Signal(init=1)  # cycles left, and whether there is none
        drain, may_end = Signal(range(drain_cycles + 1)), Signal(init=1)
        go, paced = Signal(), Signal()
        m.d.comb += [
            paced.eq((~step.is_first | may_start) & (~step.is_last | may_end)),
            go.eq(running & token_ready & paced),
            self.busy.eq(go),
            self.stall_token.eq(running & ~token_ready),
            self.stall_gap.eq(running & token_ready & ~paced),
        ]
        with m.If(~may_start):
            m.d.sync += [gap.eq(gap - 1), may_start.eq(gap == 1)]
        with m.If(~may_end):
            m.d.sync += [drain.eq(drain - 1), may_end.eq(drain == 1)]
        with m.If(go & step.is_last):
            m.d.sync += [drain.eq(drain_cycles), may_end.eq(drain_cycles == 0)]
        with m.If(go & step.is_first):
            m.d.sync += [gap.eq(extents.gap), may_start.eq(extents.no_gap)]
        return go

    def _step(
        self,
        m: Module,
        current: data.View,
        walks: tuple[data.View, data.View, data.View],
        token: data.View,
        rows: tuple[Signal, Signal],
        go: Signal,
    ) -> None:
        """What goes to the operand path: registers, but for the sum of two of them."""
        (index, tile, at), (weight_row, maximum_row) = walks, rows
        step = self.step
        m.d.comb += [
            step.valid.eq(go),
            step.first.eq(at.is_first),
            step.last.eq(at.is_last),
            step.first_tile.eq(tile.is_first),
            step.source.eq(current.source),
            step.unsigned.eq(current.unsigned),
            step.nibbles.eq(current.nibbles),
            step.softmax.eq(current.row_factor == RowFactor.SOFTMAX),
            step.score_shift.eq(current.score_shift),
            step.maximum_row.eq(maximum_row),
            step.step.eq(truncate(at.place, 8)),  # k_steps has 8 bits
            step.keys.eq(current.keys),
            step.source_row.eq(token.src_row + at.place),
            step.weight_row.eq(weight_row),
            step.tile.first_tile.eq(tile.is_first),
            step.tile.last_of_command.eq(tile.is_last & index.is_last),
            step.tile.index.eq(index.place),
            step.tile.dst_offset.eq(token.dst_offset),
            step.tile.score.eq(token.score),
        ]

    def _prefetch(self, m: Module, resting: Signal, current: data.View, take: Signal) -> tuple[data.View, Signal]:
        """Read queue entries ahead of time: an entry, its rows' products, and their sums are a stage each.

        A stage takes over what the one before has as soon as it is empty, so a token follows another after two cycles.
        A queue's token addresses rows by number where it gathers or scatters, by position elsewhere.
        """
        index, settled = Signal(TOKEN_BITS), Signal()  # the entry that is being read; it is there
        read, multiplied, ready = Signal(), Signal(), Signal()
        source, target = Signal(TOKEN_BITS, reset_less=True), Signal(TOKEN_BITS, reset_less=True)
        source_rows, target_rows = Signal(ROW_BITS, reset_less=True), Signal(ROW_BITS, reset_less=True)
        scores = [Signal(ROW_FACTOR_BITS, name=f"score_{stage}", reset_less=True) for stage in range(2)]
        token = Signal(_Token, name="following", reset_less=True)
        m.d.comb += self.queue.index.eq(Mux(resting, 0, index))
        m.d.sync += settled.eq(1)
        with m.If(settled & ~read):
            m.d.sync += [
                read.eq(1),
                source.eq(Mux(current.gather, self.queue.token, index)),
                target.eq(Mux(current.scatter, self.queue.token, index)),
                scores[0].eq(self.queue.score),
                index.eq(index + 1),
                settled.eq(0),
            ]
        with m.If(read & ~multiplied):
            m.d.sync += [
                read.eq(0),
                multiplied.eq(1),
                source_rows.eq(truncate(source * current.src_stride, ROW_BITS)),
                target_rows.eq(truncate(target * current.dst_stride, ROW_BITS)),
                scores[1].eq(scores[0]),
            ]
        with m.If(multiplied & ~ready):
            m.d.sync += [
                multiplied.eq(0),
                ready.eq(1),
                token.src_row.eq(current.src_base + source_rows),
                token.dst_offset.eq(target_rows),
                token.score.eq(scores[1]),
            ]
        with m.If(take):
            m.d.sync += ready.eq(0)
        with m.If(resting):
            m.d.sync += [index.eq(0), settled.eq(1), read.eq(0), multiplied.eq(0), ready.eq(0)]
        return token, ready
