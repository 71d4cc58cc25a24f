"""LayerNorm unit: residual rows to int8 activations (docs/numerics.md, section 5)."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import data, fifo, stream, wiring
from amaranth.lib.memory import Memory, ReadPort, WritePort
from amaranth.lib.wiring import In, Out, connect, flipped
from amaranth.utils import ceil_log2, exact_log2

from edgemoe_hw.engines.norm.lane import NormLane
from edgemoe_hw.engines.norm.reader import RowReader
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

__all__ = ["LayerNormUnit"]

_TERMS = 2  # added in one pipeline stage of the sums
_SQUARE = 2  # cycles of a square, whose registers are the DSP's
_RING_READ = 2  # cycles from an address of the ring to its elements in the lanes, with the block RAM's output register
_RING_DEPTH = 512  # what a block RAM holds
_SLOTS = range(4, 17)  # tokens in the ring, at least and at most


class _Parameters(data.Struct):
    """One channel's, as they lie in their memory."""

    gamma: signed(16)
    reserved: 16
    beta: signed(32)


class LayerNormUnit(wiring.Component):
    """Executes LAYERNORM commands, one after the other.

    Each residual row is read once and kept in a small ring of tokens until it is normalised, so that sums, scalar part
    and normalisation of successive tokens overlap: about ``max(channels / norm_lanes, NormScalar.INTERVAL)`` cycles a
    token. The more lanes, the more tokens has the ring, to hide the same latency.

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
        self._slots = min(max(_RING_DEPTH >> self._index_bits, _SLOTS[0]), _SLOTS[-1])
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

        ring_depth = self._slots << self._index_bits
        m.submodules.rows = rows = Memory(shape=16 * self._config.norm_lanes, depth=ring_depth, init=[])
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
        places, has_place = Signal(range(depth + 1), init=depth), Signal(init=1)
        accepted, returned, place_taken, taken, row_freed = Signal(), Signal(), Signal(), Signal(), Signal()
        places_next = places + returned - taken
        m.d.sync += [
            returned.eq(accepted),
            taken.eq(place_taken),
            places.eq(places_next),
            has_place.eq(places_next > 1),  # this cycle may take one that is not counted yet
        ]

        m.submodules.reader = reader = RowReader(self._config, self._slots)
        connect(m, reader.read, flipped(self.read))
        m.d.comb += [reader.begin.eq(begin), reader.command.eq(command), reader.freed.eq(row_freed)]
        group, ends = reader.group, reader.ends
        self._keep(m, begin, group, ends, rows.write_port())
        self._sums(m, group, ends, scalar)
        self._normalise(m, begin, command, rows.read_port(), scalar, output, has_place, place_taken, row_freed)
        finished = self._write(m, begin, command, output, accepted)

        m.d.sync += self.done.eq(finished | (start & (self.command.payload.tokens == 0)))
        with m.If(finished):
            m.d.sync += busy.eq(0)
        return m

    def _keep(self, m: Module, begin: Signal, group: Value, ends: data.View, write: WritePort) -> None:
        """Writes the groups into the ring."""
        slot, index = Signal(range(self._slots)), Signal(self._index_bits)
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
            x = group.word_select(i, 16).as_signed()
            multiplied = Signal(31, name=f"multiplied_{i}", reset_less=True)
            m.d.sync += multiplied.eq(truncate(x * x, 31))  # at most 2^30
            values.append(delay(m, x, _SQUARE, f"element_{i}", reset_less=True))
            squares.append(delay(m, multiplied, _SQUARE - 1, f"square_{i}", reset_less=True))
        total = pipelined_tree(m, values, tree_sum, _TERMS, "value_sum", reset_less=True)
        total_squares = pipelined_tree(m, squares, tree_sum, _TERMS, "square_sum", reset_less=True)
        summed = delay(m, ends, _SQUARE + tree_cycles(lanes, _TERMS), "summed")

        sums = Signal(RowSums)
        with m.If(summed.valid):
            m.d.sync += [
                sums.total.eq(Mux(summed.first, 0, sums.total) + total),
                sums.squares.eq(Mux(summed.first, 0, sums.squares) + total_squares),
            ]
        # At most as many tokens as the ring has are inside, so the queue never overflows.
        m.submodules.sums = queue = fifo.SyncFIFO(width=RowSums.as_shape().size, depth=self._slots)
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
        has_place: Signal,
        place_taken: Signal,
        row_freed: Signal,
    ) -> None:
        """Issues groups of the oldest complete row and packs the lanes' results into destination rows."""
        m.submodules.statistics = queue = fifo.SyncFIFO(width=RowStatistics.as_shape().size, depth=self._slots)
        m.d.comb += [queue.w_data.eq(scalar.statistics), queue.w_en.eq(scalar.statistics_valid)]

        slot, index = Signal(range(self._slots)), Signal(self._index_bits)
        groups, left = Signal(self._index_bits + 1), Signal(self._index_bits + 1)  # of a token; still to be issued
        position = Signal(range(self._pack))
        # What an issue depends on, decided a cycle ahead: `last` of the token's groups, `full` when the destination row
        # ends with it, `continues` when it does not begin one.
        last, full, continues = Signal(), Signal(init=self._pack == 1), Signal()
        # The statistics of the token and, from the queue, of the next.
        active, statistics = Signal(), Signal(RowStatistics, reset_less=True)
        ready, following = Signal(), Signal(RowStatistics, reset_less=True)
        issue = Signal()
        m.d.comb += [
            groups.eq(truncate(command.src_rows << exact_log2(self._ratio), len(groups))),  # of at most max_dim
            issue.eq(active & (continues | has_place)),
            place_taken.eq(issue & ~continues),
            queue.r_en.eq(~ready),
            read.addr.eq(Cat(index, slot)),
        ]
        m.d.sync += row_freed.eq(issue & last)
        with m.If(~active | (issue & last)):
            m.d.sync += [statistics.eq(following), active.eq(ready), ready.eq(0)]
        with m.If(~ready):
            m.d.sync += [following.eq(queue.r_data), ready.eq(queue.r_rdy)]
        with m.If(begin):
            m.d.sync += [slot.eq(0), left.eq(groups), last.eq(groups == 1)]
        with m.Elif(issue):
            m.d.sync += [
                index.eq(index + 1),
                left.eq(left - 1),
                last.eq(left == 2),
                position.eq(position + 1),
                continues.eq(1),
                full.eq(position + 2 == self._pack),
            ]
            with m.If(last | full):
                m.d.sync += [position.eq(0), continues.eq(0), full.eq(self._pack == 1)]
            with m.If(last):
                m.d.sync += [slot.eq(slot + 1), index.eq(0), left.eq(groups), last.eq(groups == 1)]

        # The parameters are there when the lanes need them: they take as long as the elements.
        address = truncate(command.param_base + index, ceil_log2(self._param_depth))  # the compiler checks the range
        parameters = self._parameters(m, delay(m, address, NormLane.PARAM_DELAY, "param_address", reset_less=True))
        elements = delay(m, read.data, _RING_READ - 1, "elements", reset_less=True)
        results = self._lanes(m, command, elements, statistics, parameters)
        issued = Signal(data.StructLayout({"valid": 1, "row_ends": 1, "last": 1, "position": position.shape()}))
        m.d.comb += [
            issued.valid.eq(issue),
            issued.row_ends.eq(issue & (last | full)),
            issued.last.eq(issue & last),
            issued.position.eq(position),
        ]
        self._pack_row(m, delay(m, issued, _RING_READ + NormLane.LATENCY, "normalised"), results, output)

    def _lanes(
        self, m: Module, command: data.View, elements: Value, statistics: data.View, parameters: data.View
    ) -> Value:
        """Results of the group whose elements are there; each lane samples its inputs when it needs them."""
        mean = delay(
            m, statistics.mean, _RING_READ, "mean", reset_less=True
        )  # elements come so long after their address
        rsqrt = delay(m, statistics.rsqrt, _RING_READ + NormLane.RSQRT_DELAY, "rsqrt", reset_less=True)
        norm_shift = delay(m, statistics.shift, _RING_READ + NormLane.SHIFT_DELAY, "norm_shift", reset_less=True)
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
        row = Signal(self._output, reset_less=True)
        for place in range(self._pack):
            with m.If(group.valid & (group.position == place)):
                m.d.sync += [
                    row.data.word_select(place, len(results)).eq(results),
                    row.mask.eq((2 << place) - 1),
                ]
        m.d.sync += row.last.eq(group.last)
        m.d.comb += [output.w_data.eq(row), output.w_en.eq(delay(m, group.row_ends, 1, "row_complete"))]

    def _parameters(self, m: Module, address: Value) -> data.View:
        """The parameter memory's data, ``_RING_READ`` cycles after ``address``."""
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
        return data.View(row, delay(m, read.data, _RING_READ - 1, "parameters", reset_less=True))

    def _write(self, m: Module, begin: Signal, command: data.View, output: fifo.SyncFIFO, accepted: Signal) -> Signal:
        """Writes packed rows. Returns a strobe with the command's last accepted write."""
        tokens, last_token = Signal(TOKEN_BITS), Signal()
        row, next_token = Signal(ROW_BITS), Signal(ROW_BITS)
        valid, packed = Signal(), Signal(self._output, reset_less=True)  # the oldest row, out of the queue's memory
        m.d.comb += [
            accepted.eq(valid & self.write.ready),
            self.write.valid.eq(valid),
            # With several groups a row, rows come so seldom that each may wait until the one before has left.
            output.r_en.eq(~valid | (self.write.ready & (self._pack == 1))),
            self.write.row.eq(row),
            self.write.mask.eq(Cat(bit.replicate(self._config.norm_lanes) for bit in packed.mask)),
            self.write.data.eq(packed.data),
        ]
        with m.If(accepted):
            m.d.sync += valid.eq(0)
        with m.If(output.r_en):
            m.d.sync += [valid.eq(output.r_rdy), packed.eq(output.r_data)]
        with m.If(begin):
            m.d.sync += [
                tokens.eq(command.tokens),
                last_token.eq(command.tokens == 1),
                row.eq(command.dst_base),
                next_token.eq(command.dst_base + command.dst_stride),
            ]
        with m.Elif(accepted):
            m.d.sync += row.eq(row + 1)
            with m.If(packed.last):
                m.d.sync += [
                    tokens.eq(tokens - 1),
                    last_token.eq(tokens == 2),
                    row.eq(next_token),
                    next_token.eq(next_token + command.dst_stride),
                ]
        finished = Signal()
        m.d.comb += finished.eq(accepted & packed.last & last_token)
        return finished
