"""Epilogue of the MATMUL engine: drains finished tiles, requantizes, and writes them where they are needed next."""

from amaranth import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from edgemoe_hw.engines.matmul.activation import Gelu
from edgemoe_hw.engines.matmul.issue import TileMeta
from edgemoe_hw.engines.matmul.requantize import NO_ROW_FACTOR, Requantizer, ValueBits
from edgemoe_hw.layouts import MatMul
from edgemoe_hw.primitives.arithmetic import truncate
from edgemoe_hw.primitives.delay import delay
from edgemoe_hw.primitives.running_maximum import RunningMaximum
from edgemoe_hw.spec.config import AcceleratorConfig
from edgemoe_hw.spec.constants import ROW_FACTOR_BITS, ROW_SHIFT_BITS, SHIFT_BITS, accumulator_bits
from edgemoe_hw.spec.isa import Mode, RowFactor

__all__ = ["Epilogue", "Parameter"]

COMMAND_FIFO_DEPTH = 4


class Parameter(data.Struct):
    """One output channel's requantization, as it lies in the parameter scratchpad."""

    bias: signed(32)
    multiplier: 16
    shift: 8
    reserved: 8


class _Control(data.Struct):
    """What travels with a group of values down the pipeline."""

    valid: 1
    mode: Mode
    gelu: 1
    gelu_shift: 2
    accumulate: 1
    row: 16
    row_offset: 16  # added to ``row`` a stage later
    part: 3  # group's position within a row of lanes_k elements
    bank: 8  # KEY: bank of the token; VALUE: first bank of the group
    byte: 8  # VALUE: byte of the token
    first_group: 1  # of the token
    last_group: 1  # of the token
    clear: 1  # GATE: first group of a command that empties the queues
    index: 11
    num_experts: 6
    top_k: 3
    last_of_command: 1


class Epilogue(wiring.Component):
    """Drains ``epilogue_lanes`` accumulators a cycle; never stalls, so its timing is static.

    Members:
        command: commands in issue order, each before its first tile
        tile_valid, tile: pulse one cycle before ``result`` holds a finished tile
        result: the array's accumulators
        softmax_row, softmax_shift: row factor of the current token, valid with ``result`` of the token's first tile
        param_row / param_data: parameter scratchpad, data one cycle later
        gelu_write_valid, gelu_write_row, gelu_write_data: loader's port to the GELU table
        residual_read_valid, residual_read_row / residual_read_data: data one cycle later
        act_write_*, residual_write_*, score_write_*, kv_*, maximum_write_*: scratchpad writes
        logits_*: to the gate unit
        completed: pulse after the last write of a command
    """

    def __init__(self, config: AcceleratorConfig):
        self._config = config
        lanes = config.epilogue_lanes
        super().__init__(
            {
                "command": In(stream.Signature(MatMul)),
                "tile_valid": In(1),
                "tile": In(TileMeta),
                "result": In(data.ArrayLayout(signed(accumulator_bits(config.max_tokens)), config.lanes_n)),
                "softmax_row": In(ROW_FACTOR_BITS),
                "softmax_shift": In(ROW_SHIFT_BITS),
                "param_row": Out(16),
                "param_data": In(data.ArrayLayout(Parameter, lanes)),
                "gelu_write_valid": In(1),
                "gelu_write_row": In(16),
                "gelu_write_data": In(config.axi_bytes * 8),
                "residual_read_valid": Out(1),
                "residual_read_row": Out(16),
                "residual_read_data": In(data.ArrayLayout(signed(16), lanes)),
                "act_write_valid": Out(1),
                "act_write_row": Out(16),
                "act_write_mask": Out(config.lanes_k),
                "act_write_data": Out(config.lanes_k * 8),
                "residual_write_valid": Out(1),
                "residual_write_row": Out(16),
                "residual_write_mask": Out(2 * lanes),
                "residual_write_data": Out(16 * lanes),
                "score_write_valid": Out(1),
                "score_write_row": Out(16),
                "score_write_mask": Out(config.lanes_k),
                "score_write_data": Out(12 * config.lanes_k),
                "maximum_write_valid": Out(1),
                "maximum_write_row": Out(11),
                "maximum_write_data": Out(signed(12)),
                "kv_valid": Out(1),
                "kv_row": Out(16),
                "kv_banks": Out(config.lanes_n),
                "kv_bytes": Out(config.lanes_k),
                "kv_is_value": Out(1),
                "kv_data": Out(data.ArrayLayout(signed(8), lanes)),
                "logits_valid": Out(1),
                "logits": Out(data.ArrayLayout(signed(16), lanes)),
                "logits_first": Out(1),
                "logits_last": Out(1),
                "logits_clear": Out(1),
                "logits_token": Out(11),
                "gate_num_experts": Out(6),
                "gate_top_k": Out(3),
                "completed": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self._config
        lanes = config.epilogue_lanes

        command, token_start, tile, draining, group = self._drain_control(m)
        control, lane_valid, channel = self._addresses(m, command, token_start, tile, draining, group)

        # E0 -> E1: pick the group; its parameters arrive from the scratchpad at the same time.
        groups = config.lanes_n // lanes
        flat = self.result.as_value()
        acc_bits = accumulator_bits(config.max_tokens)
        chosen = Signal(data.ArrayLayout(signed(acc_bits), lanes))
        row, row_shift, bits = Signal(ROW_FACTOR_BITS), Signal(ROW_SHIFT_BITS), Signal(ValueBits)
        with m.Switch(group):
            for index in range(groups):
                with m.Case(index):
                    part = flat[index * lanes * acc_bits : (index + 1) * lanes * acc_bits]
                    m.d.sync += chosen.as_value().eq(part)
        m.d.comb += self.param_row.eq(command.param_base + Mux(command.param_uniform, 0, channel >> exact_log2(lanes)))
        with m.Switch(command.row_factor):
            with m.Case(RowFactor.SOFTMAX):
                m.d.sync += [row.eq(self.softmax_row), row_shift.eq(self.softmax_shift)]
            with m.Case(RowFactor.GATE):
                m.d.sync += [row.eq(tile.score), row_shift.eq(0)]
            with m.Default():
                m.d.sync += [row.eq(NO_ROW_FACTOR), row_shift.eq(0)]
        with m.Switch(command.mode):
            with m.Case(Mode.SCORE):
                m.d.sync += bits.eq(ValueBits.INT12)
            with m.Case(Mode.RESIDUAL, Mode.GATE):
                m.d.sync += bits.eq(ValueBits.INT16)
            with m.Default():
                m.d.sync += bits.eq(Mux(command.gelu, ValueBits.INT11, ValueBits.INT8))

        m.submodules.requantizer = requantizer = Requantizer(lanes, acc_bits)
        m.d.comb += [requantizer.row.eq(row), requantizer.row_shift.eq(row_shift), requantizer.bits.eq(bits)]
        for lane in range(lanes):
            parameter = self.param_data[lane]
            m.d.comb += [
                requantizer.acc[lane].eq(chosen[lane]),
                requantizer.bias[lane].eq(truncate(parameter.bias, acc_bits)),  # below 2^24 in every graph
                requantizer.multiplier[lane].eq(parameter.multiplier),
                requantizer.shift[lane].eq(truncate(parameter.shift, SHIFT_BITS)),  # at most MAX_SHIFT
            ]

        m.submodules.gelu = gelu = Gelu(lanes, config.axi_bytes)
        at_requantizer = delay(m, control, 1, "at_requantizer")
        summed = Signal(_Control)
        m.d.comb += [
            summed.eq(at_requantizer),
            summed.row.eq(at_requantizer.row + at_requantizer.row_offset),
            summed.row_offset.eq(0),
        ]
        at_gelu = delay(m, summed, Requantizer.LATENCY, "at_gelu")
        m.d.comb += [
            gelu.shift.eq(at_gelu.gelu_shift),
            gelu.write_valid.eq(self.gelu_write_valid),
            gelu.write_row.eq(self.gelu_write_row),
            gelu.write_data.eq(self.gelu_write_data),
        ]
        for lane in range(lanes):
            m.d.comb += gelu.q[lane].eq(requantizer.value[lane])
        plain = Signal(data.ArrayLayout(signed(16), lanes))
        m.d.comb += plain.eq(delay(m, Cat(requantizer.value), Gelu.LATENCY, "plain"))

        # F - 1: the residual row is read; F: all values are final.
        before = delay(m, at_gelu, Gelu.LATENCY - 1, "before")
        final = delay(m, before, 1, "final")
        valid_lanes = delay(m, lane_valid, 1 + Requantizer.LATENCY + Gelu.LATENCY, "lane_valid")
        m.d.comb += [
            self.residual_read_valid.eq(before.valid & (before.mode == Mode.RESIDUAL)),
            self.residual_read_row.eq(before.row),
        ]
        values = Signal(data.ArrayLayout(signed(16), lanes))
        for lane in range(lanes):
            m.d.comb += values[lane].eq(Mux(final.gelu, gelu.y[lane], plain[lane]))
        self._write(m, final, valid_lanes, values)
        m.submodules.maximum = maximum = RunningMaximum(lanes)
        m.d.comb += [
            maximum.valid.eq(final.valid & (final.mode == Mode.SCORE)),
            maximum.first.eq(final.first_group),
            maximum.last.eq(final.last_group),
            maximum.index.eq(final.index),
            maximum.mask.eq(valid_lanes),
            *(port.eq(plain[lane][:12]) for lane, port in enumerate(maximum.values)),
            self.maximum_write_valid.eq(maximum.write_valid),
            self.maximum_write_row.eq(maximum.write_row),
            self.maximum_write_data.eq(maximum.write_data),
        ]

        done = delay(m, Cat(final.valid & final.last_of_command), 3, "done")
        m.d.comb += self.completed.eq(done)
        return m

    def _drain_control(self, m: Module):
        """Hold the tile being drained and its command; one group a cycle."""
        groups = self._config.epilogue_cycles
        m.submodules.commands = fifo = SyncFIFOBuffered(width=MatMul.size, depth=COMMAND_FIFO_DEPTH)
        m.d.comb += [
            fifo.w_data.eq(self.command.payload),
            fifo.w_en.eq(self.command.valid),
            self.command.ready.eq(fifo.w_rdy),
        ]
        command, tile = Signal(MatMul), Signal(TileMeta)
        following = data.View(MatMul, fifo.r_data)
        token_start = Signal(16)  # rows from the first key or value to the command's first token
        fresh = Signal(init=1)  # the next tile opens a new command
        draining, group = Signal(), Signal(range(groups + 1))
        with m.If(draining):
            m.d.sync += group.eq(group + 1)
            with m.If(group == groups - 1):
                m.d.sync += [draining.eq(0), group.eq(0)]
        with m.If(self.tile_valid):
            m.d.sync += [tile.eq(self.tile), draining.eq(1), group.eq(0), fresh.eq(self.tile.last_of_command)]
            with m.If(fresh):
                m.d.comb += fifo.r_en.eq(1)
                m.d.sync += [
                    command.eq(following),
                    token_start.eq(
                        _small_product(
                            following.token_quot, Mux(following.mode == Mode.KEY, following.tile_stride[:8], 1)
                        )
                    ),
                ]
        return command, token_start, tile, draining, group

    def _addresses(self, m: Module, command, token_start, tile, draining, group):
        """Destination of the current group, by mode; counters instead of divisions."""
        config = self._config
        lanes = config.epilogue_lanes
        lane_bits, row_bits = exact_log2(lanes), exact_log2(config.lanes_k)
        opening = Signal()  # first group of a token
        m.d.comb += opening.eq(draining & (group == 0) & tile.first_tile)

        def counter(name, width):
            """A per-token counter: (value now, register for the next group)."""
            register = Signal(width, name=f"{name}_next")
            now = Signal(width, name=name)
            m.d.comb += now.eq(Mux(opening, 0, register))
            return now, register

        channel, channel_next = counter("channel", 13)
        in_head, in_head_next = counter("in_head", 10)
        head_base, head_base_next = counter("head_base", 16)
        in_tile, in_tile_next = counter("in_tile", 8)
        tile_base, tile_base_next = counter("tile_base", 16)
        with m.If(draining):
            m.d.sync += [
                channel_next.eq(channel + lanes),
                in_head_next.eq(in_head + lanes),
                head_base_next.eq(head_base),
                in_tile_next.eq(in_tile + lanes),
                tile_base_next.eq(tile_base),
            ]
            with m.If(in_tile == config.lanes_n - lanes):
                m.d.sync += [in_tile_next.eq(0), tile_base_next.eq(tile_base + command.tile_stride)]
            with m.If(in_head + lanes == command.head_dim):
                m.d.sync += [
                    in_head_next.eq(0),
                    head_base_next.eq(head_base + command.head_stride),
                    in_tile_next.eq(0),
                    tile_base_next.eq(0),
                ]

        # Position of the token among keys (bank, tile) or values (byte, row).
        is_key = command.mode == Mode.KEY
        limit = Mux(is_key, config.lanes_n - 1, config.lanes_k - 1)
        step = Mux(is_key, command.tile_stride, 1)
        remainder, remainder_last = Signal(8), Signal(8)
        token_base, token_base_last = Signal(16), Signal(16)
        with m.If(opening & (tile.index == 0)):
            m.d.comb += [
                remainder.eq(command.token_rem),
                token_base.eq(token_start),
            ]
        with m.Elif(opening & (remainder_last == limit)):
            m.d.comb += [remainder.eq(0), token_base.eq(token_base_last + step)]
        with m.Elif(opening):
            m.d.comb += [remainder.eq(remainder_last + 1), token_base.eq(token_base_last)]
        with m.Else():
            m.d.comb += [remainder.eq(remainder_last), token_base.eq(token_base_last)]
        m.d.sync += [remainder_last.eq(remainder), token_base_last.eq(token_base)]

        control = Signal(_Control)
        lane_valid = Signal(lanes)
        position = Signal(14)
        m.d.comb += [
            position.eq(command.dst_channel + channel),
            lane_valid.eq(Cat(channel + lane < command.channels for lane in range(lanes))),
            control.valid.eq(draining),
            control.mode.eq(command.mode),
            control.gelu.eq(command.gelu),
            control.gelu_shift.eq(command.gelu_shift),
            control.accumulate.eq(command.accumulate),
            control.part.eq((position & (config.lanes_k - 1)) >> lane_bits),
            control.row.eq(command.dst_base + tile.dst_offset),
            control.row_offset.eq(position >> row_bits),
            control.bank.eq(remainder),
            control.byte.eq(remainder),
            control.first_group.eq(opening),
            control.last_group.eq((channel + lanes >= command.channels) & (channel < command.channels)),
            control.clear.eq(opening & (tile.index == 0) & command.gate_first),
            control.index.eq(command.max_base + tile.index),
            control.last_of_command.eq(tile.last_of_command & (group == config.epilogue_cycles - 1)),
            control.num_experts.eq(command.num_experts),
            control.top_k.eq(command.top_k),
        ]
        with m.Switch(command.mode):
            with m.Case(Mode.RESIDUAL):
                m.d.comb += control.row_offset.eq(position >> lane_bits)
            with m.Case(Mode.KEY):
                m.d.comb += [
                    control.row.eq(command.dst_base + token_base),
                    control.row_offset.eq(head_base + (in_head >> row_bits)),
                    control.part.eq((in_head & (config.lanes_k - 1)) >> lane_bits),
                ]
            with m.Case(Mode.VALUE):
                m.d.comb += [
                    control.row.eq(command.dst_base + token_base),
                    control.row_offset.eq(head_base + tile_base),
                    control.bank.eq(in_tile),
                ]
        return control, lane_valid, channel

    def _write(self, m: Module, final, valid_lanes, values) -> None:
        """Stage F to F + 1: registered writes to the scratchpads and the gate."""
        config = self._config
        lanes = config.epilogue_lanes
        copies = config.lanes_k // lanes
        int8 = Cat(values[lane][:8] for lane in range(lanes))
        in_part = [final.part == part for part in range(copies)]
        row_mask = Cat((valid_lanes & hit.replicate(lanes)) for hit in in_part)

        def when(*modes):
            return final.valid & Cat(final.mode == mode for mode in modes).any()

        sums = []
        for lane in range(lanes):
            total = Signal(signed(17), name=f"residual_sum_{lane}")
            m.d.comb += total.eq(values[lane] + Mux(final.accumulate, self.residual_read_data[lane], 0))
            # Comparisons with +-32767, bit by bit: no carries behind the memory's output and the sum.
            above = ~total[16] & total[15]
            below = total[16] & ~(total[15] & total[:15].any())
            sums.append(Mux(above, 32767, Mux(below, -32767, total))[:16])
        m.d.sync += [
            self.act_write_valid.eq(when(Mode.ACT)),
            self.act_write_row.eq(final.row),
            self.act_write_mask.eq(row_mask),
            self.act_write_data.eq(int8.replicate(copies)),
            self.residual_write_valid.eq(when(Mode.RESIDUAL)),
            self.residual_write_row.eq(final.row),
            self.residual_write_mask.eq(Cat(bit.replicate(2) for bit in valid_lanes)),
            self.residual_write_data.eq(Cat(sums)),
            self.score_write_valid.eq(when(Mode.SCORE)),
            self.score_write_row.eq(final.row),
            self.score_write_mask.eq(row_mask),
            self.score_write_data.eq(Cat(values[lane][:12] for lane in range(lanes)).replicate(copies)),
            self.kv_valid.eq(when(Mode.KEY, Mode.VALUE) & valid_lanes.any()),
            self.kv_row.eq(final.row),
            self.kv_is_value.eq(final.mode == Mode.VALUE),
            self.kv_data.eq(int8),
            self.logits_valid.eq(when(Mode.GATE) & valid_lanes.any()),
            self.logits.eq(values),
            self.logits_first.eq(final.first_group),
            self.logits_last.eq(final.last_group),
            self.logits_clear.eq(final.valid & final.clear & (final.mode == Mode.GATE)),
            self.logits_token.eq(final.index),
        ]
        with m.If(when(Mode.GATE)):
            m.d.sync += [self.gate_num_experts.eq(final.num_experts), self.gate_top_k.eq(final.top_k)]
        with m.If(final.mode == Mode.VALUE):
            m.d.sync += [
                self.kv_banks.eq(Cat(final.bank == bank // lanes * lanes for bank in range(config.lanes_n))),
                self.kv_bytes.eq(1 << final.byte),
            ]
        with m.Else():
            m.d.sync += [
                self.kv_banks.eq(Cat(final.bank == bank for bank in range(config.lanes_n))),
                self.kv_bytes.eq(row_mask),
            ]


def _small_product(a, b):
    """Product of two 8-bit values by shift and add, so that no DSP is spent on an address."""
    return sum(Mux(a[bit], b << bit, 0) for bit in range(8))
