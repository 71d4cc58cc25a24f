"""The compute side: array, epilogue, vector units and scratchpads, joined."""

from amaranth import Module, Signal, signed, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out, connect, flipped

from edgemoe_hw.arbiters import ReadArbiter, WriteArbiter
from edgemoe_hw.engines.matmul.epilogue import Epilogue
from edgemoe_hw.engines.matmul.gate import GateUnit
from edgemoe_hw.engines.matmul.issue import MatMulIssue
from edgemoe_hw.engines.matmul.operands import OperandPath
from edgemoe_hw.engines.norm.unit import LayerNormUnit
from edgemoe_hw.interfaces import beat_layout, queued_layout
from edgemoe_hw.layouts import LayerNorm, MatMul
from edgemoe_hw.ports import SharedRead
from edgemoe_hw.primitives.arithmetic import truncate
from edgemoe_hw.primitives.memory import read_memory
from edgemoe_hw.scratchpad import SlicedMemory, WeightScratchpad
from edgemoe_hw.spec.config import AcceleratorConfig
from edgemoe_hw.spec.constants import COUNT_BITS, SCORE_BITS, TOKEN_BITS
from edgemoe_hw.spec.isa import Memory as MemoryId
from edgemoe_hw.spec.memories import memory_depths
from edgemoe_hw.spec.timing import ACT_READ, EPILOGUE, PARAM_READ, RESIDUAL_READ, SCORE_READ

__all__ = ["ComputeSide"]

assert Epilogue.LATENCY == EPILOGUE  # what the compiler plans with


class ComputeSide(wiring.Component):
    """Everything between the command queues and the scratchpads.

    Members:
        matmul, norm: commands whose dependencies are met
        beats: loaded data, one stream a master
        store: residual rows for the STORE engine
        matmul_done, norm_done: a command has finished
        expert_counts: length of each expert queue
        gate_clear: all are 0 from the next cycle on
        queue_overflow: an expert queue received more than max_tokens entries, or tokens came too fast for the gate
        array_busy, stall_*, idle: what happened to the array in this cycle (exactly one is set)
        command_index: number in the program of the last MATMUL that started
    """

    def __init__(self, config: AcceleratorConfig):
        self._config = config
        super().__init__(
            {
                "matmul": In(stream.Signature(queued_layout(MatMul))),
                "norm": In(stream.Signature(queued_layout(LayerNorm))),
                "beats": In(stream.Signature(beat_layout(config))).array(config.axi_masters),
                "store": In(SharedRead(16 * config.epilogue_lanes)),
                "matmul_done": Out(1),
                "norm_done": Out(1),
                "expert_counts": Out(TOKEN_BITS).array(config.max_experts),
                "gate_clear": Out(1),
                "queue_overflow": Out(1),
                "array_busy": Out(1),
                "stall_epilogue": Out(1),
                "stall_token": Out(1),
                "idle": Out(1),
                "command_index": Out(COUNT_BITS),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self._config
        m.submodules.issue = issue = MatMulIssue(config)
        m.submodules.operands = operands = OperandPath(config)
        m.submodules.epilogue = epilogue = Epilogue(config)
        m.submodules.gate = gate = GateUnit(config)
        m.submodules.norm = norm = LayerNormUnit(config)
        m.submodules.weight = weight = WeightScratchpad(config)
        sliced = {}
        read_cycles = {MemoryId.ACT: ACT_READ, MemoryId.RESIDUAL: RESIDUAL_READ, MemoryId.PARAM: PARAM_READ}
        for memory, cycles in read_cycles.items():
            depth, row_bytes = memory_depths(config)[memory], config.row_bytes[memory.name]
            sliced[memory] = SlicedMemory(depth, row_bytes, config.axi_masters, config.axi_bytes, read_cycles=cycles)
            m.submodules[memory.name.lower()] = sliced[memory]

        connect(m, flipped(self.matmul), issue.command)
        connect(m, issue.epilogue_command, epilogue.command)
        connect(m, issue.queue, gate.queue)
        connect(m, operands.tiles, epilogue.tiles)
        connect(m, operands.act, sliced[MemoryId.ACT].read)
        connect(m, operands.weight, weight.read)
        connect(m, epilogue.param, sliced[MemoryId.PARAM].read)
        connect(m, epilogue.kv_write, weight.kv)
        connect(m, epilogue.residual_write, sliced[MemoryId.RESIDUAL].write)
        connect(m, epilogue.logits, gate.logits)
        m.d.comb += [
            operands.step.eq(issue.step),
            self.array_busy.eq(issue.busy),
            self.stall_epilogue.eq(issue.stall_gap),
            self.stall_token.eq(issue.stall_token),
            self.idle.eq(issue.idle),
            self.gate_clear.eq(epilogue.logits.clear),
            self.queue_overflow.eq(gate.overflow | gate.overrun),
            *(port.eq(count) for port, count in zip(self.expert_counts, gate.counts, strict=True)),
        ]
        self._scores(m, operands, epilogue)
        self._share(m, sliced, epilogue, norm)
        loads = {memory: list(pad.load) for memory, pad in sliced.items()}
        loads |= {MemoryId.WEIGHT: list(weight.load), MemoryId.NORM: [norm.load], MemoryId.GELU: [epilogue.table]}
        self._loads(m, loads)
        self._norm(m, norm)
        self._completion(m, issue, epilogue, gate)
        return m

    def _scores(self, m: Module, operands: OperandPath, epilogue: Epilogue) -> None:
        """The memories of scores and of row maxima.

        Scores are written by whole groups of the epilogue, whose lanes past the last key are masked where they are
        read: 12-bit lanes of their own would leave a third of each block RAM unused.
        """
        config = self._config
        bits = SCORE_BITS * config.lanes_k
        m.submodules.score = score = Memory(shape=unsigned(bits), depth=config.score_depth, init=[])
        m.submodules.maximum = maximum = Memory(shape=signed(SCORE_BITS), depth=config.max_tokens, init=[])
        group = SCORE_BITS * config.epilogue_lanes
        score_write, maximum_write = score.write_port(granularity=group), maximum.write_port()
        for memory, write, port in (
            (score, score_write, operands.score),
            (maximum, maximum_write, operands.maximum),
        ):
            row = truncate(port.row, len(write.addr))
            m.d.comb += port.data.eq(read_memory(m, memory, row, SCORE_READ, "score"))
        for write, port in ((score_write, epilogue.score_write), (maximum_write, epilogue.maximum_write)):
            m.d.comb += [write.addr.eq(truncate(port.row, len(write.addr))), write.data.eq(port.data)]
        written = epilogue.score_write
        masked = written.valid if bits == group else written.mask & written.valid.replicate(bits // group)
        m.d.comb += [score_write.en.eq(masked), maximum_write.en.eq(epilogue.maximum_write.valid)]

    def _share(self, m: Module, sliced: dict[MemoryId, SlicedMemory], epilogue: Epilogue, norm: LayerNormUnit) -> None:
        """Ports with several users; the epilogue, which cannot wait, goes first."""
        act, residual = sliced[MemoryId.ACT], sliced[MemoryId.RESIDUAL]
        m.submodules.act_writes = writes = WriteArbiter(8 * self._config.lanes_k, self._config.lanes_k)
        connect(m, epilogue.act_write, writes.urgent)
        connect(m, norm.write, writes.patient)
        connect(m, writes.memory, act.write)
        m.submodules.residual_reads = reads = ReadArbiter(16 * self._config.epilogue_lanes, readers=3)
        connect(m, epilogue.residual_read, reads.readers[0])
        connect(m, norm.read, reads.readers[1])
        connect(m, flipped(self.store), reads.readers[2])
        connect(m, reads.memory, residual.read)

    def _norm(self, m: Module, norm: LayerNormUnit) -> None:
        m.d.comb += [
            norm.command.payload.eq(self.norm.payload.payload),
            norm.command.valid.eq(self.norm.valid),
            self.norm.ready.eq(norm.command.ready),
            self.norm_done.eq(norm.done),
        ]

    def _loads(self, m: Module, targets: dict[MemoryId, list[wiring.PureInterface]]) -> None:
        """Route each master's beats to the memory that they name; those of NORM and GELU come from master 0."""
        for index, beat in enumerate(self.beats):
            ready = Signal(name=f"ready_{index}")
            m.d.comb += beat.ready.eq(ready)
            for memory, ports in targets.items():
                if index >= len(ports):
                    continue
                port, hit = ports[index], beat.payload.memory == memory
                m.d.comb += [
                    port.valid.eq(beat.valid & hit),
                    port.row.eq(beat.payload.row),
                    port.beat.eq(beat.payload.beat),
                    port.data.eq(beat.payload.data),
                ]
                with m.If(hit):
                    m.d.comb += ready.eq(port.ready)

    def _completion(self, m: Module, issue: MatMulIssue, epilogue: Epilogue, gate: GateUnit) -> None:
        """Count completed commands in order; a gate's counts only when its queues are written."""
        started, completed, finished = Signal(COUNT_BITS), Signal(COUNT_BITS), Signal(COUNT_BITS)
        m.d.comb += [
            issue.drained.eq((started == finished) & ~gate.busy),
            self.matmul_done.eq((finished != completed) & ~gate.busy),
        ]
        with m.If(self.matmul.valid & self.matmul.ready):
            m.d.sync += [started.eq(started + 1), self.command_index.eq(self.matmul.payload.index)]
        with m.If(epilogue.completed | issue.skipped):
            m.d.sync += completed.eq(completed + 1)
        m.d.sync += finished.eq(finished + self.matmul_done)
