"""Control of the MATMUL engine's epilogue: which group of channels is drained, and where it goes."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from edgemoe_hw.engines.matmul.records import TileMeta, group_control
from edgemoe_hw.layouts import MatMul
from edgemoe_hw.primitives.delay import delay
from edgemoe_hw.spec.config import AcceleratorConfig
from edgemoe_hw.spec.constants import LANE_BITS, ROW_BITS, ROW_FACTOR_BITS
from edgemoe_hw.spec.isa import Mode, RowFactor

__all__ = ["COMMAND_FIFO_DEPTH", "Drain"]

COMMAND_FIFO_DEPTH = 4


class _Channels(data.Struct):
    """Where a group's first channel lies."""

    left: 13  # channels of the token from this one on; 0 behind the last
    whole: 1  # at least a group of them
    position: 14  # in a destination row
    in_head: 10  # within its head
    ends_head: 1  # the group is the last of its head
    head_base: ROW_BITS  # rows to that head
    in_tile: LANE_BITS  # within a tile of the head's channels
    tile_base: ROW_BITS  # rows to that tile


class _Token(data.Struct):
    """A token's place among keys or values."""

    lane: LANE_BITS  # bank of a key, byte of a value
    row: ROW_BITS  # of its tile of keys, of the values


class Drain(wiring.Component):
    """Holds the tile that is being drained and its command; a group of ``epilogue_lanes`` channels a cycle.

    Addresses are counted, neither divided nor multiplied: registers hold the current group's, a tile's strobe sets them
    for a token's first group. ``group`` to ``score`` belong to the group of this cycle; a tile's first group comes one
    cycle after ``tile_valid``. ``valid`` and ``control`` come ``LATENCY`` cycles after that.

    Members:
        command: commands in issue order, each two cycles before its first tile or earlier
        tile_valid, tile: of a tile whose results are there in the next cycle; at least ``epilogue_cycles`` apart
        group: number of the group within the tile
        param_row: parameters of the group's channels
        mode, activate, row_factor, score: the command's, and the token's gate score
        valid, control: a group, and what travels with it
    """

    LATENCY = 3

    def __init__(self, config: AcceleratorConfig):
        self._config = config
        super().__init__(
            {
                "command": In(stream.Signature(MatMul)),
                "tile_valid": In(1),
                "tile": In(TileMeta),
                "group": Out(range(config.epilogue_cycles)),
                "param_row": Out(ROW_BITS),
                "mode": Out(Mode),
                "activate": Out(1),
                "row_factor": Out(RowFactor),
                "score": Out(ROW_FACTOR_BITS),
                "valid": Out(1),
                "control": Out(group_control(config)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        command, tile = Signal(MatMul, reset_less=True), Signal(TileMeta, reset_less=True)
        draining = Signal()
        first_group = Signal()  # of a token
        following, fresh = self._hold(m, command, tile, draining)
        opening = data.View(MatMul, Mux(fresh, following.as_value(), command.as_value()))  # the strobed tile's
        token_starts = self.tile_valid & self.tile.first_tile
        m.d.sync += first_group.eq(token_starts)
        channels = self._channels(m, command, opening, draining, token_starts)
        token = self._token(m, following, fresh, token_starts)
        with m.If(draining):
            m.d.sync += self.param_row.eq(self.param_row + ~command.param_uniform)
        with m.If(token_starts):
            m.d.sync += self.param_row.eq(opening.param_base)
        m.d.comb += [
            self.mode.eq(command.mode),
            self.activate.eq(command.activate),
            self.row_factor.eq(command.row_factor),
            self.score.eq(tile.score),
            self.valid.eq(delay(m, draining, self.LATENCY, "valid")),
        ]
        second = self._control(m, command, tile, channels, token, first_group)
        self._destination(m, command, tile, channels, token, second)
        return m

    def _hold(self, m: Module, command: data.View, tile: data.View, draining: Signal) -> tuple[data.View, Signal]:
        """Registers of the tile and its command; returns the next command, and whether the next tile opens it."""
        last_group = self._config.epilogue_cycles - 1
        m.submodules.commands = fifo = SyncFIFOBuffered(width=len(Value.cast(command)), depth=COMMAND_FIFO_DEPTH)
        fresh = Signal(init=1)
        m.d.comb += [
            fifo.w_data.eq(self.command.payload),
            fifo.w_en.eq(self.command.valid),
            self.command.ready.eq(fifo.w_rdy),
            fifo.r_en.eq(self.tile_valid & fresh),
        ]
        with m.If(draining):
            m.d.sync += self.group.eq(self.group + 1)
            with m.If(self.group == last_group):
                m.d.sync += [draining.eq(0), self.group.eq(0)]
        with m.If(self.tile_valid):
            m.d.sync += [tile.eq(self.tile), draining.eq(1), self.group.eq(0), fresh.eq(self.tile.last_of_command)]
            with m.If(fresh):
                m.d.sync += command.eq(fifo.r_data)
        return data.View(MatMul, fifo.r_data), fresh

    def _channels(
        self, m: Module, command: data.View, opening: data.View, draining: Signal, token_starts: Value
    ) -> data.View:
        """Counters over a token's groups."""
        config, lanes = self._config, self._config.epilogue_lanes
        now = Signal(_Channels, reset_less=True)
        before_last = Signal(10, reset_less=True)  # first channel of a head's last group but one
        lone = Signal(reset_less=True)  # a head has one group only
        lane_bits = exact_log2(lanes)
        rest, groups = now.left[:lane_bits], now.left[lane_bits:]
        with m.If(draining):
            m.d.sync += [
                now.left.eq(Cat(Mux(now.whole, rest, 0), (groups - now.whole)[: len(groups)])),
                now.whole.eq(groups[1:].any()),
                now.position.eq(now.position + lanes),
                now.in_head.eq(now.in_head + lanes),
                now.ends_head.eq(now.in_head == before_last),
                now.in_tile.eq(now.in_tile + lanes),
            ]
            with m.If(now.in_tile == config.lanes_n - lanes):
                m.d.sync += [now.in_tile.eq(0), now.tile_base.eq(now.tile_base + command.tile_stride)]
            with m.If(now.ends_head):
                m.d.sync += [
                    now.in_head.eq(0),
                    now.ends_head.eq(lone),
                    now.head_base.eq(now.head_base + command.head_stride),
                    now.in_tile.eq(0),
                    now.tile_base.eq(0),
                ]
        with m.If(token_starts):
            m.d.sync += [
                now.eq(0),
                now.left.eq(opening.channels),
                now.whole.eq(opening.channels[lane_bits:].any()),
                now.position.eq(opening.dst_channel),
                now.ends_head.eq(opening.head_dim == lanes),
                lone.eq(opening.head_dim == lanes),
                before_last.eq(opening.head_dim - 2 * lanes),
            ]
        return now

    def _token(self, m: Module, following: data.View, fresh: Signal, token_starts: Value) -> data.View:
        """Counters over a command's tokens; ``following`` is the command that a ``fresh`` tile opens."""
        now = Signal(_Token, reset_less=True)
        last_lane, step = Signal(LANE_BITS, reset_less=True), Signal(ROW_BITS, reset_less=True)  # the command's
        is_key = following.mode == Mode.KEY
        with m.If(token_starts):
            m.d.sync += now.lane.eq(now.lane + 1)
            with m.If(now.lane == last_lane):
                m.d.sync += [now.lane.eq(0), now.row.eq(now.row + step)]
            with m.If(fresh):
                m.d.sync += [
                    now.lane.eq(following.token_rem),
                    now.row.eq(following.dst_base),
                    last_lane.eq(Mux(is_key, self._config.lanes_n - 1, self._config.lanes_k - 1)),
                    step.eq(Mux(is_key, following.tile_stride, 1)),
                ]
        return now

    def _control(
        self,
        m: Module,
        command: data.View,
        tile: data.View,
        channels: data.View,
        token: data.View,
        first_group: Signal,
    ) -> data.View:
        """What does not depend on the destination, to ``control``; returns it two cycles before."""
        lanes = self._config.epilogue_lanes
        lane_bits = exact_log2(lanes)
        groups, rest = channels.left[lane_bits:], channels.left[:lane_bits]
        control = Signal(group_control(self._config), reset_less=True)
        m.d.sync += [
            control.mode.eq(command.mode),
            control.activate.eq(command.activate),
            control.accumulate.eq(command.accumulate),
            control.channels.eq(Cat(channels.whole | (lane < rest) for lane in range(lanes))),
            control.any_channel.eq(channels.whole | rest.any()),
            control.first_group.eq(first_group),
            control.last_group.eq(Mux(rest.any(), groups == 0, groups == 1)),
            control.clear.eq(first_group & (tile.index == 0) & command.gate_first),
            control.index.eq(command.max_base + tile.index),
            control.num_experts.eq(command.num_experts),
            control.top_k.eq(command.top_k),
            control.lane.eq(token.lane),
            control.first_bank.eq(channels.in_tile),
            control.last_of_command.eq(tile.last_of_command & (self.group == self._config.epilogue_cycles - 1)),
        ]
        m.d.comb += self.control.eq(delay(m, control, self.LATENCY - 1, "control", reset_less=True))
        return control

    def _destination(
        self,
        m: Module,
        command: data.View,
        tile: data.View,
        channels: data.View,
        token: data.View,
        control: data.View,
    ) -> None:
        """The group's row and its part of it, by mode; ``control`` is the one of the second of three stages.

        First the rows of token, head and tile, then those from the token's to the group's, then their sum.
        """
        lane_bits, row_bits = exact_log2(self._config.epilogue_lanes), exact_log2(self._config.lanes_k)
        token_row, row, row_offset, sum_row = (
            Signal(ROW_BITS, reset_less=True, name=name) for name in ("token_row", "row", "row_offset", "sum_row")
        )
        part, sum_part = (Signal.like(self.control.part, reset_less=True, name=name) for name in ("part", "sum_part"))
        at = Signal(_Channels, reset_less=True)
        stationary = (command.mode == Mode.KEY) | (command.mode == Mode.VALUE)
        m.d.sync += [
            at.eq(channels),
            token_row.eq(Mux(stationary, token.row, command.dst_base + tile.dst_offset)[:ROW_BITS]),
            row.eq(token_row),
            row_offset.eq(at.position >> row_bits),
            part.eq(at.position[lane_bits:row_bits]),
            sum_row.eq(row + row_offset),
            sum_part.eq(part),
        ]
        with m.Switch(control.mode):
            with m.Case(Mode.RESIDUAL):
                m.d.sync += row_offset.eq(at.position >> lane_bits)
            with m.Case(Mode.KEY):
                m.d.sync += [
                    row_offset.eq(at.head_base + (at.in_head >> row_bits)),
                    part.eq(at.in_head[lane_bits:row_bits]),
                ]
            with m.Case(Mode.VALUE):
                m.d.sync += row_offset.eq(at.head_base + at.tile_base)
        m.d.comb += [self.control.row.eq(sum_row), self.control.part.eq(sum_part)]
