"""The compute side: array, epilogue, vector units and scratchpads, joined."""

from amaranth import Cat, Module, Signal, signed, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out, connect, flipped

from edgemoe_hw.engines.matmul.epilogue import Epilogue
from edgemoe_hw.engines.matmul.gate import GateUnit
from edgemoe_hw.engines.matmul.issue import MatMulIssue
from edgemoe_hw.engines.matmul.operands import OperandPath
from edgemoe_hw.engines.norm.unit import LayerNormUnit
from edgemoe_hw.interfaces import beat_layout, queued_layout
from edgemoe_hw.layouts import LayerNorm, MatMul
from edgemoe_hw.scratchpad import SlicedMemory, WeightScratchpad
from edgemoe_hw.spec.config import AcceleratorConfig
from edgemoe_hw.spec.isa import Memory as MemoryId

__all__ = ["ComputeSide"]


class ComputeSide(wiring.Component):
    """Everything between the command queues and the scratchpads.

    Members:
        matmul, norm: commands whose dependencies are met
        beats: loaded data, one stream a master
        store_valid, store_row, store_ready / store_data: residual rows for the STORE engine, data one cycle after both
        matmul_done, norm_done: completed commands, modulo 2**16
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
                "store_valid": In(1),
                "store_row": In(16),
                "store_ready": Out(1),
                "store_data": Out(16 * config.epilogue_lanes),
                "matmul_done": Out(16),
                "norm_done": Out(16),
                "expert_counts": Out(11).array(config.max_experts),
                "gate_clear": Out(1),
                "queue_overflow": Out(1),
                "array_busy": Out(1),
                "stall_epilogue": Out(1),
                "stall_token": Out(1),
                "idle": Out(1),
                "command_index": Out(16),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self._config
        masters, axi_bytes = config.axi_masters, config.axi_bytes
        rows = config.row_bytes

        m.submodules.issue = issue = MatMulIssue(config)
        m.submodules.operands = operands = OperandPath(config)
        m.submodules.epilogue = epilogue = Epilogue(config)
        m.submodules.gate = gate = GateUnit(config)
        m.submodules.norm = norm = LayerNormUnit(config)
        m.submodules.weight = weight = WeightScratchpad(config)
        m.submodules.act = act = SlicedMemory(config.act_depth, rows["ACT"], masters, axi_bytes)
        m.submodules.residual = residual = SlicedMemory(config.residual_depth, rows["RESIDUAL"], masters, axi_bytes)
        m.submodules.param = param = SlicedMemory(config.param_depth, rows["PARAM"], masters, axi_bytes)
        m.submodules.score = score = Memory(shape=unsigned(12 * config.lanes_k), depth=config.score_depth, init=[])
        m.submodules.maximum = maximum = Memory(shape=signed(12), depth=config.max_tokens, init=[])
        # Written by whole groups of the epilogue, whose lanes past the last key are masked where scores are read:
        # 12-bit lanes of their own would leave a third of each block RAM unused.
        score_read, score_write = score.read_port(), score.write_port(granularity=12 * config.epilogue_lanes)
        maximum_read, maximum_write = maximum.read_port(), maximum.write_port()

        # Issue, operands, array, epilogue.
        connect(m, issue.epilogue_command, epilogue.command)
        connect(m, flipped(self.matmul), issue.command)
        m.d.comb += [
            operands.step.eq(issue.step),
            act.read_row.eq(operands.act_row),
            operands.act_data.eq(act.read_data),
            weight.read_row.eq(operands.weight_row),
            operands.weight_data.eq(weight.read_data),
            score_read.addr.eq(operands.score_row),
            operands.score_data.eq(score_read.data),
            maximum_read.addr.eq(operands.maximum_row),
            operands.maximum_data.eq(maximum_read.data),
            epilogue.tile_valid.eq(operands.tile_valid),
            epilogue.tile.eq(operands.tile),
            epilogue.result.eq(operands.result),
            epilogue.softmax_row.eq(operands.softmax_row),
            epilogue.softmax_shift.eq(operands.softmax_shift),
            param.read_row.eq(epilogue.param_row),
            epilogue.param_data.eq(param.read_data),
            score_write.en.eq(
                Cat(
                    epilogue.score_write_mask[lane] & epilogue.score_write_valid
                    for lane in range(0, config.lanes_k, config.epilogue_lanes)
                )
            ),
            score_write.addr.eq(epilogue.score_write_row),
            score_write.data.eq(epilogue.score_write_data),
            maximum_write.en.eq(epilogue.maximum_write_valid),
            maximum_write.addr.eq(epilogue.maximum_write_row),
            maximum_write.data.eq(epilogue.maximum_write_data),
            weight.kv_valid.eq(epilogue.kv_valid),
            weight.kv_row.eq(epilogue.kv_row),
            weight.kv_banks.eq(epilogue.kv_banks),
            weight.kv_bytes.eq(epilogue.kv_bytes),
            weight.kv_is_value.eq(epilogue.kv_is_value),
            weight.kv_data.eq(epilogue.kv_data),
            self.array_busy.eq(issue.busy),
            self.stall_epilogue.eq(issue.stall_gap),
            self.stall_token.eq(issue.stall_token),
            self.idle.eq(issue.idle),
        ]
        self._gate(m, issue, epilogue, gate)
        self._activation_writes(m, act, epilogue, norm)
        self._residual(m, residual, epilogue, norm)
        self._norm(m, norm)
        self._loads(m, weight, act, residual, param, norm, epilogue)
        self._completion(m, issue, epilogue, gate)
        return m

    def _gate(self, m, issue, epilogue, gate) -> None:
        m.d.comb += [
            gate.logits_valid.eq(epilogue.logits_valid),
            gate.first.eq(epilogue.logits_first),
            gate.last.eq(epilogue.logits_last),
            gate.clear.eq(epilogue.logits_clear),
            gate.token.eq(epilogue.logits_token),
            self.gate_clear.eq(epilogue.logits_clear),
            gate.num_experts.eq(epilogue.gate_num_experts),
            gate.top_k.eq(epilogue.gate_top_k),
            gate.read_expert.eq(issue.queue_expert),
            gate.read_index.eq(issue.queue_index),
            issue.queue_token.eq(gate.read_token),
            issue.queue_score.eq(gate.read_score),
            self.queue_overflow.eq(gate.overflow | gate.overrun),
        ]
        for lane in range(self._config.epilogue_lanes):
            m.d.comb += gate.logits[lane].eq(epilogue.logits[lane])
        for expert in range(self._config.max_experts):
            m.d.comb += self.expert_counts[expert].eq(gate.counts[expert])

    def _activation_writes(self, m, act, epilogue, norm) -> None:
        """The epilogue writes first; the LayerNorm unit waits."""
        m.d.comb += [
            norm.write_ready.eq(~epilogue.act_write_valid),
            act.write_valid.eq(epilogue.act_write_valid | norm.write_valid),
            act.write_row.eq(norm.write_row),
            act.write_mask.eq(norm.write_mask),
            act.write_data.eq(norm.write_data),
        ]
        with m.If(epilogue.act_write_valid):
            m.d.comb += [
                act.write_row.eq(epilogue.act_write_row),
                act.write_mask.eq(epilogue.act_write_mask),
                act.write_data.eq(epilogue.act_write_data),
            ]

    def _residual(self, m, residual, epilogue, norm) -> None:
        """Read priority: epilogue, LayerNorm, store."""
        m.d.comb += [
            epilogue.residual_read_data.eq(residual.read_data),
            Cat(norm.read_data).eq(residual.read_data),
            self.store_data.eq(residual.read_data),
            norm.read_ready.eq(~epilogue.residual_read_valid),
            self.store_ready.eq(~epilogue.residual_read_valid & ~norm.read_valid),
            residual.write_valid.eq(epilogue.residual_write_valid),
            residual.write_row.eq(epilogue.residual_write_row),
            residual.write_mask.eq(epilogue.residual_write_mask),
            residual.write_data.eq(epilogue.residual_write_data),
        ]
        with m.If(epilogue.residual_read_valid):
            m.d.comb += residual.read_row.eq(epilogue.residual_read_row)
        with m.Elif(norm.read_valid):
            m.d.comb += residual.read_row.eq(norm.read_row)
        with m.Else():
            m.d.comb += residual.read_row.eq(self.store_row)

    def _norm(self, m, norm) -> None:
        m.d.comb += [
            norm.command.payload.eq(self.norm.payload.payload),
            norm.command.valid.eq(self.norm.valid),
            self.norm.ready.eq(norm.command.ready),
        ]
        with m.If(norm.done):
            m.d.sync += self.norm_done.eq(self.norm_done + 1)

    def _loads(self, m, weight, act, residual, param, norm, epilogue) -> None:
        """Route each master's beats to the memory that they name."""
        targets = {MemoryId.WEIGHT: weight, MemoryId.ACT: act, MemoryId.RESIDUAL: residual, MemoryId.PARAM: param}
        for index in range(self._config.axi_masters):
            beat = self.beats[index]
            ready = []
            for memory, target in targets.items():
                port = target.load[index]
                hit = beat.payload.memory == memory
                m.d.comb += [
                    port.valid.eq(beat.valid & hit),
                    port.row.eq(beat.payload.row),
                    port.beat.eq(beat.payload.beat),
                    port.data.eq(beat.payload.data),
                ]
                ready.append(hit & port.ready)
            small = Cat(beat.payload.memory == MemoryId.NORM, beat.payload.memory == MemoryId.GELU)
            m.d.comb += beat.ready.eq(Cat(ready).any() | small.any())
        beat = self.beats[0]
        m.d.comb += [
            norm.param_write_valid.eq(beat.valid & (beat.payload.memory == MemoryId.NORM)),
            norm.param_write_row.eq(beat.payload.row),
            norm.param_write_beat.eq(beat.payload.beat),
            norm.param_write_data.eq(beat.payload.data),
            epilogue.gelu_write_valid.eq(beat.valid & (beat.payload.memory == MemoryId.GELU)),
            epilogue.gelu_write_row.eq(beat.payload.row),
            epilogue.gelu_write_data.eq(beat.payload.data),
        ]

    def _completion(self, m, issue, epilogue, gate) -> None:
        """Count completed commands in order; a gate's counts only when its queues are written."""
        started, completed = Signal(16), Signal(16)
        m.d.comb += issue.drained.eq((started == self.matmul_done) & ~gate.busy)
        with m.If(self.matmul.valid & self.matmul.ready):
            m.d.sync += [started.eq(started + 1), self.command_index.eq(self.matmul.payload.index)]
        with m.If(epilogue.completed | issue.skipped):
            m.d.sync += completed.eq(completed + 1)
        with m.If(~gate.busy):
            m.d.sync += self.matmul_done.eq(completed)
