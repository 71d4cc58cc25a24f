"""Operand path of the MATMUL engine: scratchpads to array. int4 weights and P.V's exponentials are made on the way."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from edgemoe_hw.engines.matmul.array import MacArray
from edgemoe_hw.engines.matmul.records import FinishedTile, RowScale, StepMeta
from edgemoe_hw.engines.matmul.softmax import Exp2Lanes, Reciprocal
from edgemoe_hw.engines.matmul.unpack import WeightUnpack
from edgemoe_hw.ports import MemoryRead
from edgemoe_hw.primitives.arithmetic import minimum
from edgemoe_hw.primitives.delay import copies, delay
from edgemoe_hw.spec.config import AcceleratorConfig
from edgemoe_hw.spec.constants import EXP_SUM_BITS, SCORE_BITS, TOKEN_BITS, accumulator_bits
from edgemoe_hw.spec.timing import (
    ACT_READ,
    EXPONENTIAL,
    EXPONENTIAL_SUM,
    SCORE_READ,
    WEIGHT_READ,
    mac_array,
    operand_path,
)

__all__ = ["OperandPath"]

_COPY_BYTES = 32
"""Bytes of operands whose multiplexers share a copy of their control lines."""


class OperandPath(wiring.Component):
    """Reads a step's operands, turns scores into probabilities, multiplies, and delivers finished tiles.

    The addresses of activations and weights are delayed, not the data, until the exponentials of the same step are
    ready. The sum of a token's exponentials is taken during its first tile; its reciprocal reaches the epilogue
    together with that tile's result. A tile's strobe comes ``spec.timing.operand_path`` cycles after its last step.

    Members:
        step: from the issue unit
        act, weight, score, maximum: read ports of the memories
        tiles: finished tiles and their tokens' row factors
    """

    def __init__(self, config: AcceleratorConfig):
        self._config = config
        lanes_k = config.lanes_k
        self._array = mac_array(lanes_k, config.dsp_chain)
        # Cycles from score data to a tile's strobe, which comes a cycle before its result: along the sum of the
        # exponentials (which is accumulated in one more cycle), and along the products.
        sum_path = EXPONENTIAL_SUM + 1 + Reciprocal.LATENCY
        product_path = EXPONENTIAL + self._array - 1
        self._slack = max(0, product_path - sum_path)  # by which the sum waits for the products,
        self._extra = max(0, sum_path - product_path)  # or the products for the sum
        # Cycles from a step to its scores, and to its operands at the array.
        self._scores = 1 + SCORE_READ
        self._operands = self._scores + EXPONENTIAL + self._extra
        assert (Exp2Lanes.LATENCY, Exp2Lanes.TOTAL_LATENCY) == (EXPONENTIAL, EXPONENTIAL_SUM)
        assert self._operands + self._array - 1 == operand_path(config)  # what the compiler plans with
        super().__init__(
            {
                "step": In(StepMeta),
                "act": Out(MemoryRead(lanes_k * 8)),
                "weight": Out(MemoryRead(config.lanes_n * lanes_k * 8)),
                "score": Out(MemoryRead(lanes_k * SCORE_BITS)),
                "maximum": Out(MemoryRead(signed(SCORE_BITS), TOKEN_BITS)),
                "tiles": Out(FinishedTile(config)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        steps = self._delayed_steps(m)
        act, weight = steps[self._operands - ACT_READ - 1], steps[self._operands - WEIGHT_READ - 1]
        m.d.comb += [
            self.score.row.eq(steps[1].source_row),
            self.maximum.row.eq(steps[1].maximum_row),
            self.act.row.eq(copies(m, act.source_row, 1, "act_row")[0]),
            self.weight.row.eq(copies(m, weight.weight_row, 1, "weight_row")[0]),
        ]
        exp2 = self._exponentials(m, steps)
        self._multiply(m, steps, delay(m, Cat(exp2.p), self._extra, "probability", reset_less=True))

        before, finished = steps[-2:]
        ends = Signal()
        m.d.sync += ends.eq(before.valid & before.last)
        # Not the output of a shift register, which comes late: it decides much in its first cycle.
        m.d.comb += [self.tiles.valid.eq(ends), self.tiles.meta.eq(copies(m, before.tile, 1, "finished")[0])]
        scale = self._row_scale(m, exp2, steps)
        with m.If(ends & finished.softmax & finished.first_tile):
            m.d.sync += self.tiles.softmax.eq(scale)
        return m

    def _delayed_steps(self, m: Module) -> list[data.View]:
        """The step 0, 1, 2, ... cycles later, until its tile's strobe. Only ``valid`` has a reset."""
        steps = [self.step]
        for index in range(1, self._operands + self._array):
            step = Signal(StepMeta, name=f"step_{index}")
            rest = delay(m, steps[-1], 1, f"step_{index}", reset_less=True)
            m.d.comb += [step.eq(rest), step.valid.eq(delay(m, steps[-1].valid, 1, f"step_{index}_valid"))]
            steps.append(step)
        return steps

    def _exponentials(self, m: Module, steps: list[data.View]) -> Exp2Lanes:
        """Exponentials of the step whose scores are there."""
        lanes_k = self._config.lanes_k
        m.submodules.exp2 = exp2 = Exp2Lanes(lanes_k)
        scored, early = steps[self._scores], steps[self._scores - 2]
        rest = Signal(signed(len(early.step) + exact_log2(lanes_k) + 1), reset_less=True)  # keys from this step on
        keys = Signal(range(lanes_k + 1), reset_less=True)  # of this step
        m.d.sync += [
            rest.eq(early.keys - (early.step << exact_log2(lanes_k))),
            keys.eq(Mux(rest < 0, 0, minimum(rest[:-1], lanes_k))),
        ]
        for lane in range(lanes_k):
            m.d.comb += [
                exp2.score[lane].eq(self.score.data.word_select(lane, SCORE_BITS).as_signed()),
                exp2.mask[lane].eq(lane < keys),
            ]
        m.d.comb += [exp2.maximum.eq(self.maximum.data), exp2.score_shift.eq(scored.score_shift)]
        return exp2

    def _multiply(self, m: Module, steps: list[data.View], probabilities: Value) -> None:
        """The array and what goes into it."""
        lanes_k, lanes_n = self._config.lanes_k, self._config.lanes_n
        m.submodules.array = array = MacArray(
            lanes_k, lanes_n, chain=self._config.dsp_chain, acc_bits=accumulator_bits(self._config.max_tokens)
        )
        operand, before = steps[self._operands], steps[self._operands - 1]
        parts = -(-lanes_k // _COPY_BYTES)
        controls = Cat(before.source, ~before.source & ~before.unsigned)
        for part, (source, is_signed) in enumerate(copies(m, controls, parts, "activation_control")):
            for lane in range(part * _COPY_BYTES, min((part + 1) * _COPY_BYTES, lanes_k)):
                byte = Mux(source, probabilities.word_select(lane, 8), self.act.data.word_select(lane, 8))
                sign = is_signed & self.act.data[8 * lane + 7]
                m.d.comb += array.activations[lane].eq(Cat(byte, sign).as_signed())
        controls = Cat(before.nibbles, before.nibbles & before.step[0])
        width = min(lanes_k, _COPY_BYTES)
        for part, (nibbles, high) in enumerate(copies(m, controls, lanes_n * parts, "weight_control")):
            m.submodules[f"unpack_{part}"] = unpack = WeightUnpack(width)
            row = slice(8 * width * part, 8 * width * (part + 1))  # one for all would be too much for Verilator
            m.d.comb += [
                unpack.data.eq(self.weight.data[row]),
                unpack.nibbles.eq(nibbles),
                unpack.high.eq(high),
                array.weights[row].eq(unpack.weights),
            ]
        m.d.comb += [
            array.valid.eq(operand.valid),
            array.first.eq(operand.first),
            array.last.eq(operand.last),
            self.tiles.result.eq(array.result),
        ]

    def _row_scale(self, m: Module, exp2: Exp2Lanes, steps: list[data.View]) -> data.View:
        """Reciprocal of the sum of the exponentials, in time for the strobe of the first tile."""
        summed = steps[self._scores + EXPONENTIAL_SUM]
        total = Signal(EXP_SUM_BITS, reset_less=True)
        with m.If(summed.valid & summed.softmax & summed.first_tile):
            m.d.sync += total.eq(exp2.total + Mux(summed.first, 0, total))
        m.submodules.reciprocal = reciprocal = Reciprocal(EXP_SUM_BITS)
        scale = Signal(RowScale)
        m.d.comb += [reciprocal.n.eq(total), scale.row.eq(reciprocal.row), scale.shift.eq(reciprocal.shift)]
        return delay(m, scale, self._slack, "scale", reset_less=True)
