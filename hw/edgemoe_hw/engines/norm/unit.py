"""LayerNorm unit: residual rows to int8 activations (docs/numerics.md, section 5)."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import data, fifo, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from edgemoe_hw.engines.matmul.softmax import tree_sum
from edgemoe_hw.engines.norm.lane import NormLane
from edgemoe_hw.engines.norm.scalar import NormScalar, RowStatistics, RowSums
from edgemoe_hw.layouts import LayerNorm
from edgemoe_hw.primitives.delay import delay
from edgemoe_hw.spec.config import AcceleratorConfig

__all__ = ["LayerNormUnit"]

_SLOTS = 4  # rows between their sums and their normalisation: hides the scalar part's latency


class LayerNormUnit(wiring.Component):
    """Executes LAYERNORM commands, one after the other.

    Each residual row is read once and kept in a small ring of ``_SLOTS`` rows until it is normalised, so that sums,
    scalar part and normalisation of successive tokens overlap: about
    ``max(channels / norm_lanes, NormScalar.INTERVAL)`` cycles a token.

    All ``src_rows * epilogue_lanes`` channels are processed; those beyond ``dim`` must hold 0 in the residual row and
    in both parameters, and are written as 0.

    Members:
        command: In(stream of layouts.LayerNorm); ready while no command is running
        done: Out(1), one cycle after the last write of a command was accepted
        read_valid: Out(1), read_ready: In(1), read_row: Out(16); read_data: In(signed(16)).array(epilogue_lanes) is the
            row's data in the cycle after the transfer
        param_write_valid: In(1), param_write_row: In(16), param_write_beat: In(8), param_write_data: In(8 * axi_bytes);
            a row is norm_lanes x {gamma int16, pad 16, beta int32}, beat b is its bytes from b * axi_bytes
        write_valid: Out(1), write_ready: In(1), write_row: Out(16), write_mask: Out(lanes_k), write_data: Out(8 *
            lanes_k); channel ch goes to row dst_base + token * dst_stride + ch // lanes_k, byte ch % lanes_k
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        self._config = config
        self._ratio = config.epilogue_lanes // config.norm_lanes  # groups a residual row
        self._pack = config.lanes_k // config.norm_lanes  # groups a destination row
        rows = -(-config.max_dim // config.epilogue_lanes)
        self._index_bits = (rows * self._ratio - 1).bit_length()
        self._param_depth = 2 * rows * self._ratio
        super().__init__(
            {
                "command": In(stream.Signature(LayerNorm)),
                "done": Out(1),
                "read_valid": Out(1),
                "read_ready": In(1),
                "read_row": Out(16),
                "read_data": In(signed(16)).array(config.epilogue_lanes),
                "param_write_valid": In(1),
                "param_write_row": In(16),
                "param_write_beat": In(8),
                "param_write_data": In(8 * config.axi_bytes),
                "write_valid": Out(1),
                "write_ready": In(1),
                "write_row": Out(16),
                "write_mask": Out(config.lanes_k),
                "write_data": Out(8 * config.lanes_k),
            }
        )

    @property
    def config(self) -> AcceleratorConfig:
        return self._config

    @property
    def param_depth(self) -> int:
        """Rows of the norm-parameter memory."""
        return self._param_depth

    def elaborate(self, platform: object) -> Module:
        m = Module()
        command = Signal(LayerNorm)
        busy = Signal()
        start = Signal()
        m.d.comb += [self.command.ready.eq(~busy), start.eq(self.command.valid & ~busy)]
        with m.If(start):
            m.d.sync += [command.eq(self.command.payload), busy.eq(self.command.payload.tokens != 0)]

        m.submodules.rows = rows = Memory(shape=16 * self._config.norm_lanes, depth=_SLOTS << self._index_bits, init=[])
        m.submodules.scalar = scalar = NormScalar()
        m.d.comb += [
            scalar.dim.eq(command.dim),
            scalar.log2_dim.eq(command.log2_dim),
            scalar.inv_dim.eq(command.inv_dim),
            scalar.eps.eq(command.eps),
        ]
        row_freed = Signal()
        group, first, last, group_valid = self._fetch(m, start, command, rows.write_port(), row_freed)
        self._sums(m, group, first, last, group_valid, scalar)
        row_complete, token_complete = self._normalise(m, command, start, rows.read_port(), scalar, row_freed)
        finished = self._write(m, command, start, row_complete, token_complete)

        m.d.sync += self.done.eq(finished | (start & (self.command.payload.tokens == 0)))
        with m.If(finished):
            m.d.sync += busy.eq(0)
        return m

    def _fetch(
        self, m: Module, start: Value, command: data.View, write: wiring.PureInterface, row_freed: Signal
    ) -> tuple[Value, Value, Value, Value]:
        """Reads residual rows into the ring, ``norm_lanes`` elements a cycle.

        Returns the elements of this cycle, whether they are a token's first or last, and whether there are any.
        """
        tokens = Signal(11)
        row = Signal(12)
        address = Signal(16)
        next_token = Signal(16)
        used = Signal(range(_SLOTS + 1))
        left = Signal(range(self._ratio + 1))  # groups in the row register
        arriving = Signal()
        arriving_last = Signal()
        last_row = row + 1 == command.src_rows
        # A row that is requested now is in the register in two cycles, when the one before must have left it.
        room = ~arriving & (left <= 2) if self._ratio > 1 else 1
        accepted = self.read_valid & self.read_ready
        m.d.comb += [
            self.read_valid.eq((tokens != 0) & ((row != 0) | (used != _SLOTS)) & room),
            self.read_row.eq(address),
        ]
        m.d.sync += [
            arriving.eq(accepted),
            arriving_last.eq(last_row),
            used.eq(used + (accepted & (row == 0)) - row_freed),
        ]
        with m.If(start):
            payload = self.command.payload
            m.d.sync += [
                tokens.eq(payload.tokens),
                row.eq(0),
                address.eq(payload.src_base),
                next_token.eq(payload.src_base + payload.src_stride),
            ]
        with m.Elif(accepted):
            m.d.sync += [row.eq(row + 1), address.eq(address + 1)]
            with m.If(last_row):
                m.d.sync += [
                    tokens.eq(tokens - 1),
                    row.eq(0),
                    address.eq(next_token),
                    next_token.eq(next_token + command.src_stride),
                ]

        width = 16 * self._config.norm_lanes
        register = Signal(16 * self._config.epilogue_lanes)
        register_last = Signal()
        with m.If(arriving):
            m.d.sync += [
                register.eq(Cat(*[self.read_data[i] for i in range(self._config.epilogue_lanes)])),
                register_last.eq(arriving_last),
                left.eq(self._ratio),
            ]
        with m.Elif(left.any()):
            m.d.sync += [register.eq(register >> width), left.eq(left - 1)]

        slot = Signal(range(_SLOTS))
        index = Signal(self._index_bits)
        group = register[:width]
        last = register_last & (left == 1)
        m.d.comb += [write.en.eq(left.any()), write.addr.eq(Cat(index, slot)), write.data.eq(group)]
        with m.If(start):
            m.d.sync += [slot.eq(0), index.eq(0)]
        with m.Elif(left.any()):
            m.d.sync += index.eq(index + 1)
            with m.If(last):
                m.d.sync += [index.eq(0), slot.eq(slot + 1)]
        return group, index == 0, last, left.any()

    def _sums(self, m: Module, group: Value, first: Value, last: Value, valid: Value, scalar: NormScalar) -> None:
        """Accumulates S and Q and queues them for the scalar part."""
        lanes = self._config.norm_lanes
        values, squares = [], []
        for i in range(lanes):
            value = Signal(signed(16), name=f"element_{i}")
            square = Signal(31, name=f"square_{i}")
            x = group.word_select(i, 16).as_signed()
            m.d.sync += [value.eq(x), square.eq(x * x)]
            values.append(value)
            squares.append(square)
        flags = delay(m, Cat(valid, valid & first, valid & last), 1, "sum_flags")
        while len(values) > 1:  # four terms a pipeline stage
            depth = len(values)
            values = [_registered(m, tree_sum(values[i : i + 4]), f"value_sum_{depth}_{i}") for i in range(0, depth, 4)]
            squares = [
                _registered(m, tree_sum(squares[i : i + 4]), f"square_sum_{depth}_{i}") for i in range(0, depth, 4)
            ]
            flags = delay(m, flags, 1, f"sum_flags_{depth}")

        sums = Signal(RowSums)
        with m.If(flags[0]):
            m.d.sync += [
                sums.total.eq(Mux(flags[1], 0, sums.total) + values[0]),
                sums.squares.eq(Mux(flags[1], 0, sums.squares) + squares[0]),
            ]
        complete = delay(m, flags[2], 1, "sums_complete")
        # At most _SLOTS tokens are inside, so the queue never overflows.
        m.submodules.sums = queue = fifo.SyncFIFO(width=RowSums.as_shape().size, depth=_SLOTS)
        m.d.comb += [
            queue.w_data.eq(sums),
            queue.w_en.eq(complete),
            scalar.sums.payload.eq(RowSums(queue.r_data)),
            scalar.sums.valid.eq(queue.r_rdy),
            queue.r_en.eq(scalar.sums.ready),
        ]

    def _normalise(
        self,
        m: Module,
        command: data.View,
        start: Value,
        read: wiring.PureInterface,
        scalar: NormScalar,
        row_freed: Signal,
    ) -> tuple[Value, Value]:
        """Issues groups of the oldest complete row and packs the lanes' results into destination rows.

        Returns strobes: the packed row (``self._packed``, ``self._mask``) is complete, and it is its token's last.
        """
        config, lanes = self._config, self._config.norm_lanes
        m.submodules.statistics = queue = fifo.SyncFIFO(width=RowStatistics.as_shape().size, depth=_SLOTS)
        statistics = RowStatistics(queue.r_data)
        m.d.comb += [queue.w_data.eq(scalar.statistics), queue.w_en.eq(scalar.statistics_valid)]

        # A destination row needs a place in the output queue before its first group starts.
        self._places = places = Signal(range(self._output_depth + 1), init=self._output_depth)
        self._place_taken = Signal()
        slot = Signal(range(_SLOTS))
        index = Signal(self._index_bits)
        source_row = Signal(12)
        sub = Signal(range(self._ratio))
        position = Signal(range(self._pack))
        last_sub = sub == self._ratio - 1
        last = Signal()
        issue = Signal()
        m.d.comb += [
            issue.eq(queue.r_rdy & ((position != 0) | places.any())),
            last.eq(last_sub & (source_row + 1 == command.src_rows)),
            self._place_taken.eq(issue & (position == 0)),
            row_freed.eq(issue & last),
            queue.r_en.eq(issue & last),
            read.addr.eq(Cat(index, slot)),
        ]
        full = position == self._pack - 1
        with m.If(start):
            m.d.sync += slot.eq(0)
        with m.If(issue):
            m.d.sync += [index.eq(index + 1), sub.eq(sub + 1), position.eq(position + 1)]
            with m.If(last_sub):
                m.d.sync += [sub.eq(0), source_row.eq(source_row + 1)]
            with m.If(full):
                m.d.sync += position.eq(0)
            with m.If(last):
                m.d.sync += [slot.eq(slot + 1), index.eq(0), source_row.eq(0), position.eq(0)]

        params = self._parameters(m, delay(m, command.param_base + index, NormLane.PARAM_DELAY, "param_address"))
        mean = delay(m, statistics.mean, 1, "mean")
        rsqrt = delay(m, statistics.rsqrt, 2, "rsqrt")
        norm_shift = delay(m, statistics.shift, 3, "norm_shift")
        results = []
        for i in range(lanes):
            m.submodules[f"lane_{i}"] = lane = NormLane()
            m.d.comb += [
                lane.x.eq(read.data.word_select(i, 16)),
                lane.mean.eq(mean),
                lane.rsqrt.eq(rsqrt),
                lane.norm_shift.eq(norm_shift),
                lane.gamma.eq(params[64 * i : 64 * i + 16]),
                lane.beta.eq(params[64 * i + 32 : 64 * i + 64]),
                lane.shift.eq(command.shift),
            ]
            results.append(lane.y)

        tags = delay(m, Cat(issue, issue & (last | full), issue & last, position), 1 + NormLane.LATENCY, "norm_tags")
        place = tags[3:]
        self._packed = Signal(8 * config.lanes_k)
        self._mask = Signal(self._pack)
        for p in range(self._pack):
            with m.If(tags[0] & (place == p)):
                m.d.sync += [
                    self._packed[8 * lanes * p : 8 * lanes * (p + 1)].eq(Cat(*results)),
                    self._mask.eq((2 << p) - 1),
                ]
        complete = delay(m, tags[1:3], 1, "row_complete")
        return complete[0], complete[1]

    @property
    def _output_depth(self) -> int:
        return 32 if self._pack == 1 else 16  # covers the lanes' latency

    def _parameters(self, m: Module, address: Value) -> Value:
        """The parameter memory's data, a cycle after ``address``."""
        beat_bits = 8 * self._config.axi_bytes
        width = 64 * self._config.norm_lanes
        m.submodules.params = params = Memory(shape=width, depth=self._param_depth, init=[])
        write = params.write_port(granularity=beat_bits)
        read = params.read_port()
        beats = width // beat_bits
        m.d.comb += [
            write.addr.eq(self.param_write_row),
            write.data.eq(self.param_write_data.replicate(beats)),
            read.addr.eq(address),
        ]
        for beat in range(beats):
            m.d.comb += write.en[beat].eq(self.param_write_valid & (self.param_write_beat == beat))
        return read.data

    def _write(self, m: Module, command: data.View, start: Value, row_complete: Value, token_complete: Value) -> Signal:
        """Queues packed rows and writes them. Returns a strobe with the command's last accepted write."""
        config = self._config
        m.submodules.output = queue = fifo.SyncFIFO(width=1 + self._pack + 8 * config.lanes_k, depth=self._output_depth)
        m.d.comb += [queue.w_data.eq(Cat(token_complete, self._mask, self._packed)), queue.w_en.eq(row_complete)]

        tokens = Signal(11)
        row = Signal(16)
        next_token = Signal(16)
        is_last = queue.r_data[0]
        accepted = queue.r_rdy & self.write_ready
        m.d.comb += [
            self.write_valid.eq(queue.r_rdy),
            queue.r_en.eq(self.write_ready),
            self.write_row.eq(row),
            self.write_mask.eq(Cat(*[bit.replicate(config.norm_lanes) for bit in queue.r_data[1 : 1 + self._pack]])),
            self.write_data.eq(queue.r_data[1 + self._pack :]),
        ]
        m.d.sync += self._places.eq(self._places + accepted - self._place_taken)
        with m.If(start):
            payload = self.command.payload
            m.d.sync += [
                tokens.eq(payload.tokens),
                row.eq(payload.dst_base),
                next_token.eq(payload.dst_base + payload.dst_stride),
            ]
        with m.Elif(accepted):
            m.d.sync += row.eq(row + 1)
            with m.If(is_last):
                m.d.sync += [
                    tokens.eq(tokens - 1),
                    row.eq(next_token),
                    next_token.eq(next_token + command.dst_stride),
                ]
        finished = Signal()
        m.d.comb += finished.eq(accepted & is_last & (tokens == 1))
        return finished


def _registered(m: Module, value: Value, name: str) -> Signal:
    register = Signal(value.shape(), name=name)
    m.d.sync += register.eq(value)
    return register
