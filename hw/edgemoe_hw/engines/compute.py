"""The compute side: array, epilogue, vector units and scratchpads, joined."""

from amaranth import Module, ResetInserter, Signal, signed, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out, connect, flipped

from edgemoe_hw.arbiters import ReadArbiter, WriteArbiter
from edgemoe_hw.engines.matmul.completion import Completion
from edgemoe_hw.engines.matmul.epilogue import Epilogue
from edgemoe_hw.engines.matmul.gate import GateUnit
from edgemoe_hw.engines.matmul.issue import MatMulIssue
from edgemoe_hw.engines.matmul.operands import OperandPath
from edgemoe_hw.engines.norm.unit import LayerNormUnit
from edgemoe_hw.interfaces import EngineStatus, beat_layout, queued_layout
from edgemoe_hw.layouts import LayerNorm, MatMul
from edgemoe_hw.ports import SharedRead
from edgemoe_hw.primitives.arithmetic import truncate
from edgemoe_hw.primitives.delay import copies
from edgemoe_hw.primitives.memory import read_memory, styled_memory
from edgemoe_hw.scratchpad import SlicedMemory, WeightScratchpad
from edgemoe_hw.spec.config import AcceleratorConfig
from edgemoe_hw.spec.constants import SCORE_BITS
from edgemoe_hw.spec.isa import Engine
from edgemoe_hw.spec.isa import Memory as MemoryId
from edgemoe_hw.spec.memories import memory_depths
from edgemoe_hw.spec.regs import ErrorCode
from edgemoe_hw.spec.timing import ACT_READ, EPILOGUE, PARAM_READ, RESIDUAL_READ, SCORE_READ

__all__ = ["ComputeSide"]

assert Epilogue.LATENCY == EPILOGUE  # what the compiler plans with


class ComputeSide(wiring.Component):
    """Everything between the command queues and the scratchpads.

    Members:
        matmul, norm: commands whose dependencies are met
        beats: loaded data, one stream a master
        store: residual rows for the STORE engine
        status: of the engines; an error is an expert queue with more than max_tokens entries, or tokens that came too
            fast for the gate, and names the last MATMUL that started
        reset: all units reset themselves in the next cycle
    """

    def __init__(self, config: AcceleratorConfig):
        self._config = config
        self._style = "ultra" if config.ultra_ram else "auto"
        super().__init__(
            {
                "matmul": In(stream.Signature(queued_layout(MatMul))),
                "norm": In(stream.Signature(queued_layout(LayerNorm))),
                "beats": In(stream.Signature(beat_layout(config))).array(config.axi_masters),
                "store": In(SharedRead(16 * config.epilogue_lanes)),
                "status": Out(EngineStatus(config)),
                "reset": In(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self._config
        issue, operands, epilogue = MatMulIssue(config), OperandPath(config), Epilogue(config)
        gate, norm, completion = GateUnit(config), LayerNormUnit(config), Completion()
        weight = WeightScratchpad(config)
        sliced = {}
        read_cycles = {MemoryId.ACT: ACT_READ, MemoryId.RESIDUAL: RESIDUAL_READ, MemoryId.PARAM: PARAM_READ}
        for memory, cycles in read_cycles.items():
            depth, row_bytes = memory_depths(config)[memory], config.row_bytes[memory.name]
            masters = config.load_masters(memory.name)
            sliced[memory] = SlicedMemory(
                depth, row_bytes, masters, config.axi_bytes, read_cycles=cycles, style=self._style
            )
        units = {"issue": issue, "operands": operands, "epilogue": epilogue, "gate": gate, "norm": norm}
        units |= {"completion": completion, "weight": weight}
        units |= {memory.name.lower(): pad for memory, pad in sliced.items()}
        resets = copies(m, self.reset, len(units), "reset")
        for (name, unit), reset in zip(units.items(), resets, strict=True):
            m.submodules[name] = ResetInserter(reset)(unit)

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
        m.d.comb += operands.step.eq(issue.step)
        self._scores(m, operands, epilogue)
        self._share(m, sliced, epilogue, norm)
        loads = {memory: list(pad.load) for memory, pad in sliced.items()}
        loads |= {MemoryId.WEIGHT: list(weight.load), MemoryId.NORM: [norm.load], MemoryId.ACTIVATION: [epilogue.table]}
        self._loads(m, loads)
        self._norm(m, norm)
        self._status(m, issue, epilogue, gate, norm, completion)
        return m

    def _scores(self, m: Module, operands: OperandPath, epilogue: Epilogue) -> None:
        """The memories of scores and of row maxima.

        Scores are written by whole groups of the epilogue, whose lanes past the last key are masked where they are
        read: 12-bit lanes of their own would leave a third of each block RAM unused.
        """
        config = self._config
        bits = SCORE_BITS * config.lanes_k
        m.submodules.score = score = styled_memory(unsigned(bits), config.score_depth, self._style)
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
        ]

    def _loads(self, m: Module, targets: dict[MemoryId, list[wiring.PureInterface]]) -> None:
        """Route each master's beats to the memory that they name; not all masters load every memory."""
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

    def _status(
        self,
        m: Module,
        issue: MatMulIssue,
        epilogue: Epilogue,
        gate: GateUnit,
        norm: LayerNormUnit,
        completion: Completion,
    ) -> None:
        """A gate's MATMUL has finished only when its queues are written."""
        status = self.status
        m.d.comb += [
            completion.started.eq(self.matmul.valid & self.matmul.ready),
            completion.index.eq(self.matmul.payload.index),
            completion.ended.eq(epilogue.completed | issue.skipped),
            completion.gate_busy.eq(gate.busy),
            issue.drained.eq(completion.drained),
            status.done[Engine.MATMUL].eq(completion.done),
            status.done[Engine.NORM].eq(norm.done),
            status.array.busy.eq(issue.busy),
            status.array.stall_epilogue.eq(issue.stall_gap),
            status.array.stall_token.eq(issue.stall_token),
            status.array.idle.eq(issue.idle),
            status.gate_clear.eq(epilogue.logits.clear),
            status.error.valid.eq(gate.overflow | gate.overrun),
            status.error.code.eq(ErrorCode.QUEUE_OVERFLOW),
            status.error.index.eq(completion.command),
            *(port.eq(count) for port, count in zip(status.expert_counts, gate.counts, strict=True)),
        ]
