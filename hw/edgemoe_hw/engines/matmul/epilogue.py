"""Epilogue of the MATMUL engine: requantizes finished tiles and writes them where they are needed next."""

from dataclasses import dataclass

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
from edgemoe_hw.spec.constants import ACTIVATION_BITS, SCORE_BITS, SHIFT_BITS, TOKEN_BITS, accumulator_bits
from edgemoe_hw.spec.isa import Mode, RowFactor
from edgemoe_hw.spec.timing import ACTIVATION, EPILOGUE, PARAM_READ, REQUANTIZE, RESIDUAL_READ

__all__ = ["Epilogue"]


@dataclass(frozen=True)
class _Groups:
    """The groups that pass a stage: whether there is one in this cycle, and its control."""

    valid: Value
    control: data.View

    def later(self, m: Module, cycles: int, name: str) -> "_Groups":
        """The same ``cycles`` cycles later. What belongs to no group is not reset."""
        valid = delay(m, self.valid, cycles, f"{name}_valid")
        return _Groups(valid, delay(m, self.control, cycles, name, reset_less=True))

    def of(self, *modes: Mode) -> Value:
        """Whether there is one of these modes."""
        return self.valid & Cat(self.control.mode == mode for mode in modes).any()


class Epilogue(wiring.Component):
    """Drains ``epilogue_lanes`` accumulators a cycle; never stalls, so its timing is static.

    ``LATENCY`` cycles from a tile's strobe to the writes of its first group's activations (one later for each further
    group). Everything else is written from the values that have not passed the activation function, some cycles
    before; only a row maximum may come later. ``completion_delay`` more cycles from a command's last values to
    ``completed``. Groups that add to the same residual row are ``RESIDUAL_SPACING`` cycles apart.

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

    LATENCY = 1 + PARAM_READ + Requantizer.LATENCY + Activation.LATENCY + 1

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
        """Cycles from a command's last values, behind the activation, to ``completed``."""
        return max(1, RunningMaximum.latency(config.epilogue_lanes) - Activation.LATENCY) + 1

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

        # The residual row arrives with the requantized values; from its address's register on, RESIDUAL_READ cycles.
        drained = _Groups(drain.valid, drain.control)
        ahead = drained.later(m, PARAM_READ + Requantizer.LATENCY - Drain.LATENCY - RESIDUAL_READ - 1, "ahead")
        m.d.sync += [self.residual_read.valid.eq(ahead.of(Mode.RESIDUAL)), self.residual_read.row.eq(ahead.control.row)]
        plain = ahead.later(m, RESIDUAL_READ + 1, "plain")
        final = plain.later(m, Activation.LATENCY, "final")
        values = requantizer.value
        self._write_act(m, final, activation.y, delay(m, Cat(values), Activation.LATENCY, "value", reset_less=True))
        self._write_scores(m, plain, values)
        self._write_stationary(m, plain, values)
        self._write_residual(m, plain, values)
        self._write_maximum(m, plain, values)
        self._send_logits(m, plain, values)
        last = final.valid & final.control.last_of_command
        m.d.comb += self.completed.eq(delay(m, last, self.completion_delay(self._config), "done"))
        return m

    def _requantize(self, m: Module, drain: Drain) -> Requantizer:
        """Picks the group, whose accumulators, row factor and width wait for its parameters from the scratchpad."""
        lanes, acc_bits = self._config.epilogue_lanes, accumulator_bits(self._config.max_tokens)
        m.submodules.requantizer = requantizer = Requantizer(lanes, acc_bits)
        chosen = Signal(lanes * acc_bits, reset_less=True)
        with m.Switch(drain.group):
            for group in range(self._config.epilogue_cycles):
                with m.Case(group):
                    m.d.sync += chosen.eq(self.tiles.result.as_value()[group * len(chosen) : (group + 1) * len(chosen)])
        scale, bits = Signal(RowScale, reset_less=True), Signal(ValueBits, reset_less=True)
        with m.Switch(drain.row_factor):
            with m.Case(RowFactor.SOFTMAX):
                m.d.sync += scale.eq(self.tiles.softmax)
            with m.Case(RowFactor.GATE):
                m.d.sync += [scale.row.eq(drain.score), scale.shift.eq(0)]
            with m.Default():
                m.d.sync += [scale.row.eq(NO_ROW_FACTOR), scale.shift.eq(0)]
        with m.Switch(drain.mode):
            with m.Case(Mode.SCORE):
                m.d.sync += bits.eq(ValueBits.INT12)
            with m.Case(Mode.RESIDUAL, Mode.GATE):
                m.d.sync += bits.eq(ValueBits.INT16)
            with m.Default():
                m.d.sync += bits.eq(Mux(drain.activate, ValueBits.INT12, ValueBits.INT8))
        waiting = PARAM_READ - 1
        chosen = delay(m, chosen, waiting, "chosen", reset_less=True)
        scale, bits = (delay(m, value, waiting, "scale", reset_less=True) for value in (scale, bits))
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
        shifts = Cat(parameter.activation_shift for parameter in self.param.data)
        shifts = delay(m, shifts, Requantizer.LATENCY + Activation.SHIFT_DELAY, "activation_shift", reset_less=True)
        for lane, value in enumerate(requantizer.value):
            m.d.comb += activation.shift[lane].eq(shifts.word_select(lane, 2))
            m.d.comb += activation.q[lane].eq(truncate(value, ACTIVATION_BITS))  # other values are not used
        return activation

    def _parts(self, control: data.View) -> list[Value]:
        """Which part of a row of lanes_k elements the group is, one hot."""
        return [control.part == part for part in range(self._copies)]

    def _masks(self, control: data.View) -> Value:
        """The group's channels within a row of lanes_k elements."""
        return Cat(control.channels & hit.replicate(len(control.channels)) for hit in self._parts(control))

    def _write_act(self, m: Module, groups: _Groups, activated: list[Signal], plain: Value) -> None:
        """Registered write of activations."""
        control, write = groups.control, self.act_write
        int8 = [Mux(control.activate, y, plain.word_select(lane, 16)[:8]) for lane, y in enumerate(activated)]
        m.d.sync += [
            write.valid.eq(groups.of(Mode.ACT)),
            write.row.eq(control.row),
            write.mask.eq(self._masks(control)),
            write.data.eq(Cat(value[:8] for value in int8).replicate(self._copies)),
        ]

    def _write_scores(self, m: Module, groups: _Groups, values: list[Signal]) -> None:
        """Registered write of scores."""
        control, write = groups.control, self.score_write
        m.d.sync += [
            write.valid.eq(groups.of(Mode.SCORE) & control.any_channel),
            write.row.eq(control.row),
            write.data.eq(Cat(value[:SCORE_BITS] for value in values).replicate(self._copies)),
        ]
        if self._copies > 1:
            m.d.sync += write.mask.eq(Cat(self._parts(control)))

    def _write_stationary(self, m: Module, groups: _Groups, values: list[Signal]) -> None:
        """Registered writes of keys (a bank, a part of its bytes) and values (a byte, neighbouring banks)."""
        config, control, write = self._config, groups.control, self.kv_write
        lanes = config.epilogue_lanes
        is_value = control.mode == Mode.VALUE
        m.d.sync += [
            write.valid.eq(groups.of(Mode.KEY, Mode.VALUE) & control.any_channel),
            write.row.eq(control.row),
            write.is_value.eq(is_value),
            write.data.eq(Cat(value[:8] for value in values)),
        ]
        with m.If(is_value):
            m.d.sync += [
                write.banks.eq(Cat(control.first_bank == bank // lanes * lanes for bank in range(config.lanes_n))),
                write.bytes.eq(Cat(control.lane == byte for byte in range(config.lanes_k))),
            ]
        with m.Else():
            m.d.sync += [
                write.banks.eq(Cat(control.lane == bank for bank in range(config.lanes_n))),
                write.bytes.eq(self._masks(control)),
            ]

    def _write_residual(self, m: Module, groups: _Groups, values: list[Signal]) -> None:
        """Registered write of the residual stream's saturating sum; addition and clamp have a cycle each."""
        sums = []
        for lane, value in enumerate(values):
            total = Signal(signed(17), name=f"residual_sum_{lane}", reset_less=True)
            m.d.sync += total.eq(value + Mux(groups.control.accumulate, self.residual_read.data[lane], 0))
            # Comparisons with +-32767, bit by bit: no carries behind the sum.
            above = ~total[16] & total[15]
            below = total[16] & ~(total[15] & total[:15].any())
            sums.append(Mux(above, 32767, Mux(below, -32767, total))[:16])
        added = groups.later(m, 1, "added")
        m.d.sync += [
            self.residual_write.valid.eq(added.of(Mode.RESIDUAL)),
            self.residual_write.row.eq(added.control.row),
            self.residual_write.mask.eq(Cat(channel.replicate(2) for channel in added.control.channels)),
            self.residual_write.data.eq(Cat(sums)),
        ]

    def _write_maximum(self, m: Module, groups: _Groups, values: list[Signal]) -> None:
        """Maximum of a token's scores."""
        m.submodules.maximum = maximum = RunningMaximum(self._config.epilogue_lanes)
        connect(m, maximum.write, flipped(self.maximum_write))
        control = groups.control
        m.d.comb += [
            maximum.valid.eq(groups.of(Mode.SCORE) & control.any_channel),
            maximum.first.eq(control.first_group),
            maximum.last.eq(control.last_group),
            maximum.index.eq(control.index),
            maximum.mask.eq(control.channels),
            *(port.eq(value[:SCORE_BITS].as_signed()) for port, value in zip(maximum.values, values, strict=True)),
        ]

    def _send_logits(self, m: Module, groups: _Groups, values: list[Signal]) -> None:
        """Registered group of gate logits."""
        logits, control = self.logits, groups.control
        is_gate = groups.of(Mode.GATE)
        m.d.sync += [
            logits.valid.eq(is_gate & control.any_channel),
            *(port.eq(value) for port, value in zip(logits.values, values, strict=True)),
            logits.first.eq(control.first_group),
            logits.last.eq(control.last_group),
            logits.clear.eq(is_gate & control.clear),
            logits.token.eq(control.index),
        ]
        with m.If(is_gate):
            m.d.sync += [logits.num_experts.eq(control.num_experts), logits.top_k.eq(control.top_k)]


assert (Requantizer.LATENCY, Activation.LATENCY, Epilogue.LATENCY) == (REQUANTIZE, ACTIVATION, EPILOGUE)
