"""LayerNorm unit: residual rows to int8 activations (docs/numerics.md, section 5)."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import data, fifo, stream, wiring
from amaranth.lib.memory import Memory, ReadPort, WritePort
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from edgemoe_hw.engines.norm.lane import NormLane
from edgemoe_hw.engines.norm.scalar import NormScalar, RowStatistics, RowSums
from edgemoe_hw.layouts import LayerNorm
from edgemoe_hw.ports import LoadPort, SharedRead, SharedWrite
from edgemoe_hw.primitives.arithmetic import truncate
from edgemoe_hw.primitives.delay import delay
from edgemoe_hw.primitives.trees import pipelined_tree, tree_cycles, tree_sum
from edgemoe_hw.spec.config import AcceleratorConfig
from edgemoe_hw.spec.constants import ROW_BITS, TOKEN_BITS
from edgemoe_hw.spec.isa import Memory as MemoryId
from edgemoe_hw.spec.memories import memory_depths
from edgemoe_hw.spec.timing import RESIDUAL_READ

__all__ = ["LayerNormUnit"]

_SLOTS = 4  # rows between their sums and their normalisation: hides the scalar part's latency
_TERMS = 4  # added in one pipeline stage of the sums
_ROW_COUNT_BITS = 12  # of LayerNorm.src_rows


class _Ends(data.Struct):
    """A group of elements, or of destination channels, within its token."""

    valid: 1
    first: 1
    last: 1


class _Parameters(data.Struct):
    """One channel's, as they lie in their memory."""

    gamma: signed(16)
    reserved: 16
    beta: signed(32)


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
        read: residual rows
        load: loader's port to the parameters, always ready; a row is norm_lanes x {gamma int16, pad 16, beta int32}
        write: activations; channel ch goes to row dst_base + token * dst_stride + ch // lanes_k, byte ch % lanes_k
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        self._config = config
        self._ratio = config.epilogue_lanes // config.norm_lanes  # groups a residual row
        self._pack = config.lanes_k // config.norm_lanes  # groups a destination row
        rows = -(-config.max_dim // config.epilogue_lanes)
        self._index_bits = ceil_log2(rows * self._ratio)
        self._param_depth = memory_depths(config)[MemoryId.NORM]
        self._output = data.StructLayout({"last": 1, "mask": self._pack, "data": 8 * config.lanes_k})
        super().__init__(
            {
                "command": In(stream.Signature(LayerNorm)),
                "done": Out(1),
                "read": Out(SharedRead(data.ArrayLayout(signed(16), config.epilogue_lanes))),
                "load": In(LoadPort(config.axi_bytes)),
                "write": Out(SharedWrite(8 * config.lanes_k, config.lanes_k)),
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
        begin = Signal()  # a command with tokens is in its register
        m.d.sync += begin.eq(start & (self.command.payload.tokens != 0))

        m.submodules.rows = rows = Memory(shape=16 * self._config.norm_lanes, depth=_SLOTS << self._index_bits, init=[])
        m.submodules.scalar = scalar = NormScalar()
        m.d.comb += [
            scalar.dim.eq(command.dim),
            scalar.log2_dim.eq(command.log2_dim),
            scalar.inv_dim.eq(command.inv_dim),
            scalar.eps.eq(command.eps),
        ]
        # A destination row needs a place in the output queue before its first group starts.
        depth = 32 if self._pack == 1 else 16  # covers the lanes' latency
        m.submodules.output = output = fifo.SyncFIFO(width=self._output.size, depth=depth)
        places = Signal(range(depth + 1), init=depth)
        place_taken, accepted, row_freed = Signal(), Signal(), Signal()
        m.d.sync += places.eq(places + accepted - place_taken)

        group, ends = self._fetch(m, begin, command, row_freed)
        self._keep(m, begin, group, ends, rows.write_port())
        self._sums(m, group, ends, scalar)
        self._normalise(m, begin, command, rows.read_port(), scalar, output, places.any(), place_taken, row_freed)
        finished = self._write(m, begin, command, output, accepted)

        m.d.sync += self.done.eq(finished | (start & (self.command.payload.tokens == 0)))
        with m.If(finished):
            m.d.sync += busy.eq(0)
        return m

    def _fetch(self, m: Module, begin: Signal, command: data.View, row_freed: Signal) -> tuple[Value, data.View]:
        """Reads residual rows, and hands on ``norm_lanes`` elements a cycle. Returns them and their place in the token.

        A row is requested when the groups of the one before will have left the row register as it arrives: both take
        ``RESIDUAL_READ`` cycles, so it is enough that requests keep the distance of a row's groups.
        """
        tokens, rows_left = Signal(TOKEN_BITS), Signal(_ROW_COUNT_BITS)
        address, next_token = Signal(ROW_BITS), Signal(ROW_BITS)
        used = Signal(range(_SLOTS + 1))
        # What the request depends on, decided a cycle ahead.
        wanted, first_row, last_row, has_slot = Signal(), Signal(), Signal(), Signal()
        spacing, spaced = Signal(range(self._ratio)), Signal()
        accepted = Signal()
        taken = accepted & first_row
        used_next = used + taken - row_freed
        m.d.comb += [
            self.read.valid.eq(wanted & (~first_row | has_slot) & spaced),
            self.read.row.eq(address),
            accepted.eq(self.read.valid & self.read.ready),
        ]
        m.d.sync += [used.eq(used_next), has_slot.eq(used_next != _SLOTS)]
        with m.If(accepted & (self._ratio > 1)):
            m.d.sync += [spacing.eq(self._ratio - 1), spaced.eq(0)]
        with m.Else():
            m.d.sync += [spacing.eq(Mux(spacing.any(), spacing - 1, 0)), spaced.eq(spacing <= 1)]
        with m.If(begin):
            m.d.sync += [
                tokens.eq(command.tokens),
                wanted.eq(1),
                rows_left.eq(command.src_rows),
                first_row.eq(1),
                last_row.eq(command.src_rows == 1),
                address.eq(command.src_base),
                next_token.eq(command.src_base + command.src_stride),
            ]
        with m.Elif(accepted):
            m.d.sync += [
                rows_left.eq(rows_left - 1),
                first_row.eq(0),
                last_row.eq(rows_left == 2),
                address.eq(address + 1),
            ]
            with m.If(last_row):
                m.d.sync += [
                    tokens.eq(tokens - 1),
                    wanted.eq(tokens != 1),
                    rows_left.eq(command.src_rows),
                    first_row.eq(1),
                    last_row.eq(command.src_rows == 1),
                    address.eq(next_token),
                    next_token.eq(next_token + command.src_stride),
                ]

        width = 16 * self._config.norm_lanes
        request = Signal(data.StructLayout({"valid": 1, "last": 1}))
        m.d.comb += [request.valid.eq(accepted), request.last.eq(last_row)]
        arriving = delay(m, request, RESIDUAL_READ, "arriving")
        register = Signal(16 * self._config.epilogue_lanes, reset_less=True)
        register_last, left = Signal(), Signal(range(self._ratio + 1))  # of its groups
        ends = Signal(_Ends)
        with m.If(arriving.valid):
            m.d.sync += [
                register.eq(self.read.data),
                register_last.eq(arriving.last),
                left.eq(self._ratio),
                ends.valid.eq(1),
                ends.last.eq(arriving.last & (self._ratio == 1)),
            ]
        with m.Else():
            m.d.sync += [
                register.eq(register >> width),
                left.eq(Mux(ends.valid, left - 1, 0)),
                ends.valid.eq(left > 1),
                ends.last.eq(register_last & (left == 2)),
            ]
        with m.If(begin):
            m.d.sync += ends.first.eq(1)
        with m.Elif(ends.valid):
            m.d.sync += ends.first.eq(ends.last)
        return register[:width], ends

    def _keep(self, m: Module, begin: Signal, group: Value, ends: data.View, write: WritePort) -> None:
        """Writes the groups into the ring."""
        slot, index = Signal(range(_SLOTS)), Signal(self._index_bits)
        m.d.comb += [
            write.en.eq(ends.valid),
            write.addr.eq(Cat(index, slot)),
            write.data.eq(group),
        ]
        with m.If(begin):
            m.d.sync += [slot.eq(0), index.eq(0)]
        with m.Elif(ends.valid):
            m.d.sync += index.eq(index + 1)
            with m.If(ends.last):
                m.d.sync += [index.eq(0), slot.eq(slot + 1)]

    def _sums(self, m: Module, group: Value, ends: data.View, scalar: NormScalar) -> None:
        """Accumulates S and Q and queues them for the scalar part."""
        lanes = self._config.norm_lanes
        values, squares = [], []
        for i in range(lanes):
            value = Signal(signed(16), name=f"element_{i}")
            square = Signal(31, name=f"square_{i}")
            x = group.word_select(i, 16).as_signed()
            m.d.sync += [value.eq(x), square.eq(truncate(x * x, 31))]  # at most 2^30
            values.append(value)
            squares.append(square)
        total = pipelined_tree(m, values, tree_sum, _TERMS, "value_sum")
        total_squares = pipelined_tree(m, squares, tree_sum, _TERMS, "square_sum")
        summed = delay(m, ends, 1 + tree_cycles(lanes, _TERMS), "summed")

        sums = Signal(RowSums)
        with m.If(summed.valid):
            m.d.sync += [
                sums.total.eq(Mux(summed.first, 0, sums.total) + total),
                sums.squares.eq(Mux(summed.first, 0, sums.squares) + total_squares),
            ]
        # At most _SLOTS tokens are inside, so the queue never overflows.
        m.submodules.sums = queue = fifo.SyncFIFO(width=RowSums.as_shape().size, depth=_SLOTS)
        m.d.comb += [
            queue.w_data.eq(sums),
            queue.w_en.eq(delay(m, summed.valid & summed.last, 1, "sums_complete")),
            scalar.sums.payload.eq(RowSums(queue.r_data)),
            scalar.sums.valid.eq(queue.r_rdy),
            queue.r_en.eq(scalar.sums.ready),
        ]

    def _normalise(
        self,
        m: Module,
        begin: Signal,
        command: data.View,
        read: ReadPort,
        scalar: NormScalar,
        output: fifo.SyncFIFO,
        has_place: Value,
        place_taken: Signal,
        row_freed: Signal,
    ) -> None:
        """Issues groups of the oldest complete row and packs the lanes' results into destination rows."""
        m.submodules.statistics = queue = fifo.SyncFIFO(width=RowStatistics.as_shape().size, depth=_SLOTS)
        m.d.comb += [queue.w_data.eq(scalar.statistics), queue.w_en.eq(scalar.statistics_valid)]

        slot, index = Signal(range(_SLOTS)), Signal(self._index_bits)
        source_row, sub = Signal(_ROW_COUNT_BITS), Signal(range(self._ratio))
        position = Signal(range(self._pack))
        last_sub, full = sub == self._ratio - 1, position == self._pack - 1
        issue, last = Signal(), Signal()
        m.d.comb += [
            issue.eq(queue.r_rdy & ((position != 0) | has_place)),
            last.eq(last_sub & (source_row + 1 == command.src_rows)),
            place_taken.eq(issue & (position == 0)),
            row_freed.eq(issue & last),
            queue.r_en.eq(issue & last),
            read.addr.eq(Cat(index, slot)),
        ]
        with m.If(begin):
            m.d.sync += slot.eq(0)
        with m.If(issue):
            m.d.sync += [index.eq(index + 1), sub.eq(sub + 1), position.eq(position + 1)]
            with m.If(last_sub):
                m.d.sync += [sub.eq(0), source_row.eq(source_row + 1)]
            with m.If(full):
                m.d.sync += position.eq(0)
            with m.If(last):
                m.d.sync += [slot.eq(slot + 1), index.eq(0), source_row.eq(0), position.eq(0)]

        address = truncate(command.param_base + index, ceil_log2(self._param_depth))  # the compiler checks the range
        parameters = self._parameters(m, delay(m, address, NormLane.PARAM_DELAY, "param_address"))
        results = self._lanes(m, command, read.data, RowStatistics(queue.r_data), parameters)
        issued = Signal(data.StructLayout({"valid": 1, "row_ends": 1, "last": 1, "position": position.shape()}))
        m.d.comb += [
            issued.valid.eq(issue),
            issued.row_ends.eq(issue & (last | full)),
            issued.last.eq(issue & last),
            issued.position.eq(position),
        ]
        self._pack_row(m, delay(m, issued, 1 + NormLane.LATENCY, "normalised"), results, output)

    def _lanes(
        self, m: Module, command: data.View, elements: Value, statistics: data.View, parameters: data.View
    ) -> Value:
        """Results of the group whose elements are there; each lane samples its inputs when it needs them."""
        mean = delay(m, statistics.mean, 1, "mean")  # elements come one cycle after their address
        rsqrt = delay(m, statistics.rsqrt, 1 + NormLane.RSQRT_DELAY, "rsqrt")
        norm_shift = delay(m, statistics.shift, 1 + NormLane.SHIFT_DELAY, "norm_shift")
        results = []
        for i in range(self._config.norm_lanes):
            m.submodules[f"lane_{i}"] = lane = NormLane()
            m.d.comb += [
                lane.x.eq(elements.word_select(i, 16)),
                lane.mean.eq(mean),
                lane.rsqrt.eq(rsqrt),
                lane.norm_shift.eq(norm_shift),
                lane.gamma.eq(parameters[i].gamma),
                lane.beta.eq(parameters[i].beta),
                lane.shift.eq(command.shift),
            ]
            results.append(lane.y)
        return Cat(results)

    def _pack_row(self, m: Module, group: data.View, results: Value, output: fifo.SyncFIFO) -> None:
        """Gathers groups to a destination row and queues it."""
        row = Signal(self._output)
        for place in range(self._pack):
            with m.If(group.valid & (group.position == place)):
                m.d.sync += [
                    row.data.word_select(place, len(results)).eq(results),
                    row.mask.eq((2 << place) - 1),
                ]
        m.d.sync += row.last.eq(group.last)
        m.d.comb += [output.w_data.eq(row), output.w_en.eq(delay(m, group.row_ends, 1, "row_complete"))]

    def _parameters(self, m: Module, address: Value) -> data.View:
        """The parameter memory's data, a cycle after ``address``."""
        beat_bits = 8 * self._config.axi_bytes
        row = data.ArrayLayout(_Parameters, self._config.norm_lanes)
        m.submodules.params = params = Memory(shape=row.size, depth=self._param_depth, init=[])
        write = params.write_port(granularity=beat_bits)
        read = params.read_port()
        m.d.comb += [
            self.load.ready.eq(1),
            write.addr.eq(truncate(self.load.row, len(write.addr))),  # the LOAD's range is checked
            write.data.eq(self.load.data.replicate(row.size // beat_bits)),
            write.en.eq(Cat(self.load.valid & (self.load.beat == beat) for beat in range(row.size // beat_bits))),
            read.addr.eq(address),
        ]
        return data.View(row, read.data)

    def _write(self, m: Module, begin: Signal, command: data.View, output: fifo.SyncFIFO, accepted: Signal) -> Signal:
        """Writes packed rows. Returns a strobe with the command's last accepted write."""
        tokens = Signal(TOKEN_BITS)
        row, next_token = Signal(ROW_BITS), Signal(ROW_BITS)
        packed = data.View(self._output, output.r_data)
        m.d.comb += [
            accepted.eq(output.r_rdy & self.write.ready),
            self.write.valid.eq(output.r_rdy),
            output.r_en.eq(self.write.ready),
            self.write.row.eq(row),
            self.write.mask.eq(Cat(bit.replicate(self._config.norm_lanes) for bit in packed.mask)),
            self.write.data.eq(packed.data),
        ]
        with m.If(begin):
            m.d.sync += [
                tokens.eq(command.tokens),
                row.eq(command.dst_base),
                next_token.eq(command.dst_base + command.dst_stride),
            ]
        with m.Elif(accepted):
            m.d.sync += row.eq(row + 1)
            with m.If(packed.last):
                m.d.sync += [
                    tokens.eq(tokens - 1),
                    row.eq(next_token),
                    next_token.eq(next_token + command.dst_stride),
                ]
        finished = Signal()
        m.d.comb += finished.eq(accepted & packed.last & (tokens == 1))
        return finished
