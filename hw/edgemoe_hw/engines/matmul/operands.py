"""Operand path of the MATMUL engine: scratchpads to array. int4 weights and P.V's exponentials are made on the way."""

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from edgemoe_hw.engines.matmul.array import MacArray
from edgemoe_hw.engines.matmul.records import FinishedTile, RowScale, StepMeta
from edgemoe_hw.engines.matmul.softmax import Exp2Lanes, Reciprocal
from edgemoe_hw.engines.matmul.unpack import WeightUnpack
from edgemoe_hw.ports import MemoryRead
from edgemoe_hw.primitives.delay import delay
from edgemoe_hw.spec.config import AcceleratorConfig
from edgemoe_hw.spec.constants import EXP_SUM_BITS, SCORE_BITS, TOKEN_BITS, accumulator_bits

__all__ = ["OperandPath"]

# Cycles from score data to a tile's strobe, which comes a cycle before its result: along the sum of the exponentials
# (which is accumulated in one more cycle), and along the products.
_SUM_PATH = Exp2Lanes.TOTAL_LATENCY + 1 + Reciprocal.LATENCY
_PRODUCT_PATH = Exp2Lanes.LATENCY + MacArray.LATENCY - 1
_EXTRA = max(0, _SUM_PATH - _PRODUCT_PATH)  # cycles by which the products wait for the sum
_SLACK = max(0, _PRODUCT_PATH - _SUM_PATH)  # or the sum for the products


class OperandPath(wiring.Component):
    """Reads a step's operands, turns scores into probabilities, multiplies, and delivers finished tiles.

    The addresses of activations and weights are delayed, not the data, until the exponentials of the same step are
    ready. The sum of a token's exponentials is taken during its first tile; its reciprocal reaches the epilogue
    together with that tile's result. A tile's strobe comes ``LATENCY`` cycles after its last step.

    Members:
        step: from the issue unit
        act, weight, score, maximum: read ports of the memories
        tiles: finished tiles and their tokens' row factors
    """

    LATENCY = 1 + 1 + Exp2Lanes.LATENCY + _EXTRA + MacArray.LATENCY - 1

    def __init__(self, config: AcceleratorConfig):
        self._config = config
        lanes_k = config.lanes_k
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
        step = delay(m, self.step, 1, "issued")
        m.d.comb += [self.score.row.eq(step.source_row), self.maximum.row.eq(step.maximum_row)]
        scored = delay(m, step, 1, "scored")
        exp2 = self._exponentials(m, scored)

        addressed = delay(m, step, Exp2Lanes.LATENCY + _EXTRA, "addressed")
        m.d.comb += [self.act.row.eq(addressed.source_row), self.weight.row.eq(addressed.weight_row)]
        operand = delay(m, addressed, 1, "operand")
        self._multiply(m, operand, delay(m, Cat(exp2.p), _EXTRA, "probability"))

        finished = delay(m, operand, MacArray.LATENCY - 1, "finished")
        ends = finished.valid & finished.last
        m.d.comb += [self.tiles.valid.eq(ends), self.tiles.meta.eq(finished.tile)]
        scale = self._row_scale(m, exp2, scored)
        with m.If(ends & finished.softmax & finished.first_tile):
            m.d.sync += self.tiles.softmax.eq(scale)
        return m

    def _exponentials(self, m: Module, scored: data.View) -> Exp2Lanes:
        """Exponentials of the step whose scores are there."""
        lanes_k = self._config.lanes_k
        m.submodules.exp2 = exp2 = Exp2Lanes(lanes_k)
        base = scored.step << exact_log2(lanes_k)
        for lane in range(lanes_k):
            m.d.comb += [
                exp2.score[lane].eq(self.score.data.word_select(lane, SCORE_BITS).as_signed()),
                exp2.mask[lane].eq(base + lane < scored.keys),
            ]
        m.d.comb += [exp2.maximum.eq(self.maximum.data), exp2.score_shift.eq(scored.score_shift)]
        return exp2

    def _multiply(self, m: Module, operand: data.View, probabilities: Signal) -> None:
        """The array and what goes into it."""
        lanes_k, lanes_n = self._config.lanes_k, self._config.lanes_n
        m.submodules.array = array = MacArray(lanes_k, lanes_n, acc_bits=accumulator_bits(self._config.max_tokens))
        for lane in range(lanes_k):
            byte = self.act.data.word_select(lane, 8)
            sign = byte[7] & ~operand.unsigned
            m.d.comb += array.activations[lane].eq(
                Mux(operand.source, probabilities.word_select(lane, 8), Cat(byte, sign).as_signed())
            )
        for lane in range(lanes_n):  # one flat word for all would be too much for Verilator
            m.submodules[f"unpack_{lane}"] = unpack = WeightUnpack(lanes_k)
            row = slice(8 * lanes_k * lane, 8 * lanes_k * (lane + 1))
            m.d.comb += [
                unpack.data.eq(self.weight.data[row]),
                unpack.nibbles.eq(operand.nibbles),
                unpack.high.eq(operand.step[0]),
                array.weights[row].eq(unpack.weights),
            ]
        m.d.comb += [
            array.valid.eq(operand.valid),
            array.first.eq(operand.first),
            array.last.eq(operand.last),
            self.tiles.result.eq(array.result),
        ]

    def _row_scale(self, m: Module, exp2: Exp2Lanes, scored: data.View) -> data.View:
        """Reciprocal of the sum of the exponentials, in time for the strobe of the first tile."""
        summed = delay(m, scored, Exp2Lanes.TOTAL_LATENCY, "summed")
        total = Signal(EXP_SUM_BITS)
        with m.If(summed.valid & summed.softmax & summed.first_tile):
            m.d.sync += total.eq(exp2.total + Mux(summed.first, 0, total))
        m.submodules.reciprocal = reciprocal = Reciprocal(EXP_SUM_BITS)
        scale = Signal(RowScale)
        m.d.comb += [reciprocal.n.eq(total), scale.row.eq(reciprocal.row), scale.shift.eq(reciprocal.shift)]
        return delay(m, scale, _SLACK, "scale")
