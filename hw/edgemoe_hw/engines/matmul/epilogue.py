"""Epilogue of the MATMUL engine: requantizes finished tiles and writes them where they are needed next."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from edgemoe_hw.engines.matmul.activation import Activation
from edgemoe_hw.engines.matmul.drain import Drain
from edgemoe_hw.engines.matmul.records import FinishedTile, Parameter, RowScale
from edgemoe_hw.engines.matmul.requantize import NO_ROW_FACTOR, Requantizer, ValueBits
from edgemoe_hw.engines.matmul.running_maximum import RunningMaximum
from edgemoe_hw.layouts import MatMul
from edgemoe_hw.ports import GateLogits, LoadPort, MemoryRead, MemoryWrite, SharedRead, StationaryWrite
from edgemoe_hw.primitives.arithmetic import truncate
from edgemoe_hw.primitives.delay import delay
from edgemoe_hw.spec.config import AcceleratorConfig
from edgemoe_hw.spec.constants import SCORE_BITS, SHIFT_BITS, TOKEN_BITS, accumulator_bits
from edgemoe_hw.spec.isa import Mode, RowFactor

__all__ = ["Epilogue"]


class Epilogue(wiring.Component):
    """Drains ``epilogue_lanes`` accumulators a cycle; never stalls, so its timing is static.

    ``LATENCY`` cycles from a tile's strobe to the writes of its first group (one later for each further group). The
    residual row that is added to is read two cycles before. ``completion_delay`` more cycles to ``completed``.

    Members:
        command: commands in issue order, each two cycles before its first tile or earlier
        tiles: finished tiles, at least ``epilogue_cycles`` apart
        param: parameter scratchpad
        table: loader's port to the activation's table; always ready
        residual_read: what is added to; its ``ready`` is not looked at, so it must go before all other readers
        act_write, residual_write, score_write, maximum_write, kv_write: scratchpad writes; scores are masked by group
        logits: to the gate unit
        completed: pulse when the last write of a command can be read
    """

    LATENCY = 1 + 1 + Requantizer.LATENCY + Activation.LATENCY + 1

    def __init__(self, config: AcceleratorConfig):
        self._config = config
        self._copies = config.lanes_k // config.epilogue_lanes  # groups of a row of lanes_k elements
        lanes = config.epilogue_lanes
        super().__init__(
            {
                "command": In(stream.Signature(MatMul)),
                "tiles": In(FinishedTile(config)),
                "param": Out(MemoryRead(data.ArrayLayout(Parameter, lanes))),
                "table": In(LoadPort(config.axi_bytes)),
                "residual_read": Out(SharedRead(data.ArrayLayout(signed(16), lanes))),
                "act_write": Out(MemoryWrite(config.lanes_k * 8, config.lanes_k)),
                "residual_write": Out(MemoryWrite(16 * lanes, 2 * lanes)),
                "score_write": Out(MemoryWrite(SCORE_BITS * config.lanes_k, self._copies)),
                "maximum_write": Out(MemoryWrite(signed(SCORE_BITS), row_bits=TOKEN_BITS)),
                "kv_write": Out(StationaryWrite(config)),
                "logits": Out(GateLogits(lanes)),
                "completed": Out(1),
            }
        )

    @staticmethod
    def completion_delay(config: AcceleratorConfig) -> int:
        """Cycles from a command's last values to ``completed``: the row maximum is written last of all."""
        return max(1, RunningMaximum.latency(config.epilogue_lanes)) + 1

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.drain = drain = Drain(self._config)
        connect(m, flipped(self.command), drain.command)
        m.d.comb += [
            drain.tile_valid.eq(self.tiles.valid),
            drain.tile.eq(self.tiles.meta),
            self.param.row.eq(drain.param_row),
        ]
        requantizer = self._requantize(m, drain)
        activation = self._activate(m, requantizer)

        at_requantizer = delay(m, drain.control, 1, "at_requantizer")
        placed = Signal(drain.control.shape())
        m.d.comb += [
            placed.eq(at_requantizer),
            placed.row.eq(at_requantizer.row + at_requantizer.row_offset),
            placed.row_offset.eq(0),
        ]
        at_activation = delay(m, placed, Requantizer.LATENCY, "at_activation")
        m.d.comb += activation.shift.eq(at_activation.gelu_shift)

        # The residual row is read a cycle before all values are final.
        before = delay(m, at_activation, Activation.LATENCY - 1, "before")
        final = delay(m, before, 1, "final")
        m.d.comb += [
            self.residual_read.valid.eq(before.valid & (before.mode == Mode.RESIDUAL)),
            self.residual_read.row.eq(before.row),
        ]
        plain = delay(m, Cat(requantizer.value), Activation.LATENCY, "plain")
        values = Signal(data.ArrayLayout(signed(16), self._config.epilogue_lanes))
        for lane, value in enumerate(values):
            m.d.comb += value.eq(Mux(final.gelu, activation.y[lane], plain.word_select(lane, 16).as_signed()))
        self._write(m, final, values)
        self._write_stationary(m, final, values)
        self._write_residual(m, final, values)
        self._write_maximum(m, final, values)
        self._send_logits(m, final, values)
        done = delay(m, final.valid & final.last_of_command, self.completion_delay(self._config), "done")
        m.d.comb += self.completed.eq(done)
        return m

    def _requantize(self, m: Module, drain: Drain) -> Requantizer:
        """Picks the group; its parameters arrive from the scratchpad in the same cycle as its row factor."""
        lanes, acc_bits = self._config.epilogue_lanes, accumulator_bits(self._config.max_tokens)
        m.submodules.requantizer = requantizer = Requantizer(lanes, acc_bits)
        chosen = Signal(lanes * acc_bits)
        with m.Switch(drain.group):
            for group in range(self._config.epilogue_cycles):
                with m.Case(group):
                    m.d.sync += chosen.eq(self.tiles.result.as_value()[group * len(chosen) : (group + 1) * len(chosen)])
        scale, bits = Signal(RowScale), Signal(ValueBits)
        with m.Switch(drain.row_factor):
            with m.Case(RowFactor.SOFTMAX):
                m.d.sync += scale.eq(self.tiles.softmax)
            with m.Case(RowFactor.GATE):
                m.d.sync += [scale.row.eq(drain.score), scale.shift.eq(0)]
            with m.Default():
                m.d.sync += [scale.row.eq(NO_ROW_FACTOR), scale.shift.eq(0)]
        with m.Switch(drain.control.mode):
            with m.Case(Mode.SCORE):
                m.d.sync += bits.eq(ValueBits.INT12)
            with m.Case(Mode.RESIDUAL, Mode.GATE):
                m.d.sync += bits.eq(ValueBits.INT16)
            with m.Default():
                m.d.sync += bits.eq(Mux(drain.control.gelu, ValueBits.INT11, ValueBits.INT8))
        m.d.comb += [
            requantizer.row.eq(scale.row),
            requantizer.row_shift.eq(scale.shift),
            requantizer.bits.eq(bits),
        ]
        for lane, parameter in enumerate(self.param.data):
            m.d.comb += [
                requantizer.acc[lane].eq(chosen.word_select(lane, acc_bits).as_signed()),
                requantizer.bias[lane].eq(truncate(parameter.bias, acc_bits)),  # below 2^24 in every graph
                requantizer.multiplier[lane].eq(parameter.multiplier),
                requantizer.shift[lane].eq(truncate(parameter.shift, SHIFT_BITS)),  # at most MAX_SHIFT
            ]
        return requantizer

    def _activate(self, m: Module, requantizer: Requantizer) -> Activation:
        """The activation, and the port to its table."""
        m.submodules.activation = activation = Activation(self._config.epilogue_lanes, self._config.axi_bytes)
        m.d.comb += [
            activation.write_valid.eq(self.table.valid),
            activation.write_row.eq(truncate(self.table.row, len(activation.write_row))),  # the LOAD's range is checked
            activation.write_data.eq(self.table.data),
            self.table.ready.eq(1),
        ]
        for lane, value in enumerate(requantizer.value):
            m.d.comb += activation.q[lane].eq(truncate(value, 11))  # other values are not used
        return activation

    def _parts(self, final: data.View) -> list[Value]:
        """Which part of a row of lanes_k elements the group is, one hot."""
        return [final.part == part for part in range(self._copies)]

    def _write(self, m: Module, final: data.View, values: data.View) -> None:
        """Registered writes of activations and scores."""
        int8 = Cat(value[:8] for value in values)
        m.d.sync += [
            self.act_write.valid.eq(final.valid & (final.mode == Mode.ACT)),
            self.act_write.row.eq(final.row),
            self.act_write.mask.eq(
                Cat(final.channels & hit.replicate(len(final.channels)) for hit in self._parts(final))
            ),
            self.act_write.data.eq(int8.replicate(self._copies)),
            self.score_write.valid.eq(final.valid & (final.mode == Mode.SCORE) & final.channels[0]),
            self.score_write.row.eq(final.row),
            self.score_write.data.eq(Cat(value[:SCORE_BITS] for value in values).replicate(self._copies)),
        ]
        if self._copies > 1:
            m.d.sync += self.score_write.mask.eq(Cat(self._parts(final)))

    def _write_stationary(self, m: Module, final: data.View, values: data.View) -> None:
        """Registered writes of keys (a bank, a part of its bytes) and values (a byte, neighbouring banks)."""
        config, write = self._config, self.kv_write
        lanes = config.epilogue_lanes
        is_value = final.mode == Mode.VALUE
        m.d.sync += [
            write.valid.eq(final.valid & ((final.mode == Mode.KEY) | is_value) & final.channels.any()),
            write.row.eq(final.row),
            write.is_value.eq(is_value),
            write.data.eq(Cat(value[:8] for value in values)),
        ]
        with m.If(is_value):
            m.d.sync += [
                write.banks.eq(Cat(final.first_bank == bank // lanes * lanes for bank in range(config.lanes_n))),
                write.bytes.eq(Cat(final.lane == byte for byte in range(config.lanes_k))),
            ]
        with m.Else():
            m.d.sync += [
                write.banks.eq(Cat(final.lane == bank for bank in range(config.lanes_n))),
                write.bytes.eq(Cat(final.channels & hit.replicate(lanes) for hit in self._parts(final))),
            ]

    def _write_residual(self, m: Module, final: data.View, values: data.View) -> None:
        """Registered write of the residual stream's saturating sum."""
        sums = []
        for lane, value in enumerate(values):
            total = Signal(signed(17), name=f"residual_sum_{lane}")
            m.d.comb += total.eq(value + Mux(final.accumulate, self.residual_read.data[lane], 0))
            # Comparisons with +-32767, bit by bit: no carries behind the memory's output and the sum.
            above = ~total[16] & total[15]
            below = total[16] & ~(total[15] & total[:15].any())
            sums.append(Mux(above, 32767, Mux(below, -32767, total))[:16])
        m.d.sync += [
            self.residual_write.valid.eq(final.valid & (final.mode == Mode.RESIDUAL)),
            self.residual_write.row.eq(final.row),
            self.residual_write.mask.eq(Cat(channel.replicate(2) for channel in final.channels)),
            self.residual_write.data.eq(Cat(sums)),
        ]

    def _write_maximum(self, m: Module, final: data.View, values: data.View) -> None:
        """Maximum of a token's scores."""
        m.submodules.maximum = maximum = RunningMaximum(self._config.epilogue_lanes)
        connect(m, maximum.write, flipped(self.maximum_write))
        m.d.comb += [
            maximum.valid.eq(final.valid & (final.mode == Mode.SCORE)),
            maximum.first.eq(final.first_group),
            maximum.last.eq(final.last_group),
            maximum.index.eq(final.index),
            maximum.mask.eq(final.channels),
            *(port.eq(value[:SCORE_BITS].as_signed()) for port, value in zip(maximum.values, values, strict=True)),
        ]

    def _send_logits(self, m: Module, final: data.View, values: data.View) -> None:
        """Registered group of gate logits."""
        logits = self.logits
        is_gate = final.valid & (final.mode == Mode.GATE)
        m.d.sync += [
            logits.valid.eq(is_gate & final.channels.any()),
            logits.values.eq(values),
            logits.first.eq(final.first_group),
            logits.last.eq(final.last_group),
            logits.clear.eq(is_gate & final.clear),
            logits.token.eq(final.index),
        ]
        with m.If(is_gate):
            m.d.sync += [logits.num_experts.eq(final.num_experts), logits.top_k.eq(final.top_k)]
