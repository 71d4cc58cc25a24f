"""Control of the MATMUL engine's epilogue: which group of channels is drained, and where it goes."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from edgemoe_hw.engines.matmul.records import TileMeta, group_control
from edgemoe_hw.layouts import MatMul
from edgemoe_hw.primitives.arithmetic import product, truncate
from edgemoe_hw.spec.config import AcceleratorConfig
from edgemoe_hw.spec.constants import LANE_BITS, ROW_BITS, ROW_FACTOR_BITS
from edgemoe_hw.spec.isa import Mode, RowFactor

__all__ = ["COMMAND_FIFO_DEPTH", "Drain"]

COMMAND_FIFO_DEPTH = 4


class _Channels(data.Struct):
    """Where a group's first channel lies; all 0 at a token's first group."""

    number: 13  # over all tiles
    in_head: 10  # within its head
    head_base: ROW_BITS  # rows to that head
    in_tile: LANE_BITS  # within a tile of the head's channels
    tile_base: ROW_BITS  # rows to that tile


class _Token(data.Struct):
    """A token's place among keys or values."""

    lane: LANE_BITS  # bank of a key, byte of a value
    base: ROW_BITS  # rows to the tile of keys, to the row of values


class Drain(wiring.Component):
    """Holds the tile that is being drained and its command; a group of ``epilogue_lanes`` channels a cycle.

    Addresses are counted, not divided. What goes out belongs to the group of this cycle; a tile's first group comes one
    cycle after ``tile_valid``.

    Members:
        command: commands in issue order, each two cycles before its first tile or earlier
        tile_valid, tile: of a tile whose results are there in the next cycle; at least ``epilogue_cycles`` apart
        group: number of the group within the tile
        control: of the group (``records.group_control``); its ``row_offset`` is still to be added to ``row``
        param_row: parameters of the group's channels
        row_factor, score: the command's row factor, and the token's gate score
    """

    def __init__(self, config: AcceleratorConfig):
        self._config = config
        super().__init__(
            {
                "command": In(stream.Signature(MatMul)),
                "tile_valid": In(1),
                "tile": In(TileMeta),
                "group": Out(range(config.epilogue_cycles)),
                "control": Out(group_control(config)),
                "param_row": Out(ROW_BITS),
                "row_factor": Out(RowFactor),
                "score": Out(ROW_FACTOR_BITS),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        command, tile = Signal(MatMul), Signal(TileMeta)
        draining = Signal()
        token_start = self._hold(m, command, tile, draining)
        opening = Signal()  # first group of a token
        m.d.comb += opening.eq(draining & (self.group == 0) & tile.first_tile)
        channels = self._channels(m, command, draining, opening)
        token = self._token(m, command, tile, opening, token_start)
        self._control(m, command, tile, channels, draining, opening)
        self._destination(m, command, tile, channels, token)
        parameters = channels.number >> exact_log2(self._config.epilogue_lanes)
        m.d.comb += [
            self.param_row.eq(command.param_base + Mux(command.param_uniform, 0, parameters)),
            self.row_factor.eq(command.row_factor),
            self.score.eq(tile.score),
        ]
        return m

    def _hold(self, m: Module, command: data.View, tile: data.View, draining: Signal) -> Signal:
        """Registers of the tile and its command; returns the rows to the command's first key or value."""
        last_group = self._config.epilogue_cycles - 1
        m.submodules.commands = fifo = SyncFIFOBuffered(width=len(Value.cast(command)), depth=COMMAND_FIFO_DEPTH)
        following = data.View(MatMul, fifo.r_data)
        token_start = Signal(ROW_BITS)
        fresh = Signal(init=1)  # the next tile opens a new command
        m.d.comb += [
            fifo.w_data.eq(self.command.payload),
            fifo.w_en.eq(self.command.valid),
            self.command.ready.eq(fifo.w_rdy),
        ]
        with m.If(draining):
            m.d.sync += self.group.eq(self.group + 1)
            with m.If(self.group == last_group):
                m.d.sync += [draining.eq(0), self.group.eq(0)]
        with m.If(self.tile_valid):
            m.d.sync += [tile.eq(self.tile), draining.eq(1), self.group.eq(0), fresh.eq(self.tile.last_of_command)]
            with m.If(fresh):
                # Between tiles of keys there are a head's steps, at most 1023 / lanes_k.
                step = Mux(following.mode == Mode.KEY, truncate(following.tile_stride, 8), 1)
                m.d.comb += fifo.r_en.eq(1)
                m.d.sync += [command.eq(following), token_start.eq(product(following.token_quot, step))]
        return token_start

    def _channels(self, m: Module, command: data.View, draining: Signal, opening: Signal) -> data.View:
        """Counters over a token's groups."""
        lanes = self._config.epilogue_lanes
        now, following = Signal(_Channels), Signal(_Channels)
        m.d.comb += now.eq(Mux(opening, 0, following))
        with m.If(draining):
            m.d.sync += [
                following.number.eq(now.number + lanes),
                following.in_head.eq(now.in_head + lanes),
                following.head_base.eq(now.head_base),
                following.in_tile.eq(now.in_tile + lanes),
                following.tile_base.eq(now.tile_base),
            ]
            with m.If(now.in_tile == self._config.lanes_n - lanes):
                m.d.sync += [following.in_tile.eq(0), following.tile_base.eq(now.tile_base + command.tile_stride)]
            with m.If(now.in_head + lanes == command.head_dim):
                m.d.sync += [
                    following.in_head.eq(0),
                    following.head_base.eq(now.head_base + command.head_stride),
                    following.in_tile.eq(0),
                    following.tile_base.eq(0),
                ]
        return now

    def _token(self, m: Module, command: data.View, tile: data.View, opening: Signal, token_start: Signal) -> data.View:
        """Counters over a command's tokens."""
        is_key = command.mode == Mode.KEY
        last_lane = Mux(is_key, self._config.lanes_n - 1, self._config.lanes_k - 1)
        now, before = Signal(_Token), Signal(_Token)
        m.d.comb += now.eq(before)
        with m.If(opening & (tile.index == 0)):
            m.d.comb += [now.lane.eq(command.token_rem), now.base.eq(token_start)]
        with m.Elif(opening & (before.lane == last_lane)):
            m.d.comb += [now.lane.eq(0), now.base.eq(before.base + Mux(is_key, command.tile_stride, 1))]
        with m.Elif(opening):
            m.d.comb += now.lane.eq(before.lane + 1)
        m.d.sync += before.eq(now)
        return now

    def _control(
        self, m: Module, command: data.View, tile: data.View, channels: data.View, draining: Signal, opening: Signal
    ) -> None:
        """What does not depend on the destination."""
        lanes, control, first = self._config.epilogue_lanes, self.control, channels.number
        m.d.comb += [
            control.valid.eq(draining),
            control.mode.eq(command.mode),
            control.gelu.eq(command.gelu),
            control.gelu_shift.eq(command.gelu_shift),
            control.accumulate.eq(command.accumulate),
            control.channels.eq(Cat(first + lane < command.channels for lane in range(lanes))),
            control.first_group.eq(opening),
            control.last_group.eq((first + lanes >= command.channels) & (first < command.channels)),
            control.clear.eq(opening & (tile.index == 0) & command.gate_first),
            control.index.eq(command.max_base + tile.index),
            control.num_experts.eq(command.num_experts),
            control.top_k.eq(command.top_k),
            control.last_of_command.eq(tile.last_of_command & (self.group == self._config.epilogue_cycles - 1)),
        ]

    def _destination(
        self, m: Module, command: data.View, tile: data.View, channels: data.View, token: data.View
    ) -> None:
        """The group's row and its part of it, by mode."""
        config, control = self._config, self.control
        lane_bits, row_bits = exact_log2(config.epilogue_lanes), exact_log2(config.lanes_k)
        position = Signal(14)  # of the group's first channel in a destination row
        m.d.comb += [
            position.eq(command.dst_channel + channels.number),
            control.row.eq(command.dst_base + tile.dst_offset),
            control.row_offset.eq(position >> row_bits),
            control.part.eq(position[lane_bits:row_bits]),
            control.lane.eq(token.lane),
            control.first_bank.eq(channels.in_tile),
        ]
        with m.Switch(command.mode):
            with m.Case(Mode.RESIDUAL):
                m.d.comb += control.row_offset.eq(position >> lane_bits)
            with m.Case(Mode.KEY):
                m.d.comb += [
                    control.row.eq(command.dst_base + token.base),
                    control.row_offset.eq(channels.head_base + (channels.in_head >> row_bits)),
                    control.part.eq(channels.in_head[lane_bits:row_bits]),
                ]
            with m.Case(Mode.VALUE):
                m.d.comb += [
                    control.row.eq(command.dst_base + token.base),
                    control.row_offset.eq(channels.head_base + channels.tile_base),
                ]
