"""Operand path of the MATMUL engine: scratchpads to array. int4 weights and P.V's exponentials are made on the way."""

from amaranth import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from edgemoe_hw.engines.matmul.array import MacArray
from edgemoe_hw.engines.matmul.issue import StepMeta, TileMeta
from edgemoe_hw.engines.matmul.softmax import Exp2Lanes, Reciprocal
from edgemoe_hw.engines.matmul.unpack import WeightUnpack
from edgemoe_hw.primitives.delay import delay
from edgemoe_hw.spec.config import AcceleratorConfig
from edgemoe_hw.spec.constants import EXP_SUM_BITS, ROW_FACTOR_BITS, ROW_SHIFT_BITS, accumulator_bits

__all__ = ["OperandPath"]


class OperandPath(wiring.Component):
    """Reads a step's operands, turns scores into probabilities, multiplies, and delivers finished tiles.

    The addresses of activations and weights are delayed, not the data, until the exponentials of the same step are
    ready. The sum of a token's exponentials is taken during its first tile; its reciprocal reaches the epilogue
    together with that tile's result.

    Members:
        step: from the issue unit
        act_row / act_data, weight_row / weight_data, score_row / score_data, maximum_row / maximum_data: read ports of
            the memories, data one cycle later
        tile_valid, tile: one cycle before ``result`` holds the tile
        softmax_row, softmax_shift: row factor, stable from the result of a token's first tile to the next token's
    """

    def __init__(self, config: AcceleratorConfig):
        self._config = config
        lanes_k = config.lanes_k
        super().__init__(
            {
                "step": In(StepMeta),
                "act_row": Out(16),
                "act_data": In(lanes_k * 8),
                "weight_row": Out(16),
                "weight_data": In(config.lanes_n * lanes_k * 8),
                "score_row": Out(16),
                "score_data": In(lanes_k * 12),
                "maximum_row": Out(11),
                "maximum_data": In(signed(12)),
                "tile_valid": Out(1),
                "tile": Out(TileMeta),
                "result": Out(data.ArrayLayout(signed(accumulator_bits(config.max_tokens)), config.lanes_n)),
                "softmax_row": Out(ROW_FACTOR_BITS),
                "softmax_shift": Out(ROW_SHIFT_BITS),
            }
        )

    def elaborate(self, platform):
        m = Module()
        lanes_k = self._config.lanes_k
        # Cycles from score data to tile strobe, along the sum and along the products.
        sum_path = Exp2Lanes.TOTAL_LATENCY + 1 + Reciprocal.LATENCY
        product_path = Exp2Lanes.LATENCY + MacArray.LATENCY - 1
        extra = max(0, sum_path - product_path)
        slack = max(0, product_path - sum_path)
        hold = Exp2Lanes.LATENCY + extra  # cycles by which activation and weight addresses trail the scores'

        step = delay(m, self.step, 1, "issued")
        m.d.comb += [self.score_row.eq(step.source_row), self.maximum_row.eq(step.maximum_row)]

        scored = delay(m, step, 1, "scored")
        m.submodules.exp2 = exp2 = Exp2Lanes(lanes_k)
        base = scored.step << exact_log2(lanes_k)
        for lane in range(lanes_k):
            m.d.comb += [
                exp2.score[lane].eq(self.score_data[12 * lane : 12 * lane + 12].as_signed()),
                exp2.mask[lane].eq(base + lane < scored.keys),
            ]
        m.d.comb += [exp2.maximum.eq(self.maximum_data), exp2.score_shift.eq(scored.score_shift)]

        addressed = delay(m, step, hold, "addressed")
        m.d.comb += [self.act_row.eq(addressed.source_row), self.weight_row.eq(addressed.weight_row)]
        operand = delay(m, addressed, 1, "operand")
        probabilities = delay(m, Cat(exp2.p), extra, "probability")
        m.submodules.array = array = MacArray(
            lanes_k, self._config.lanes_n, acc_bits=accumulator_bits(self._config.max_tokens)
        )
        for lane in range(lanes_k):
            byte = self.act_data[8 * lane : 8 * lane + 8]
            sign = byte[7] & ~operand.unsigned
            m.d.comb += array.activations[lane].eq(
                Mux(operand.source, probabilities[8 * lane : 8 * lane + 8], Cat(byte, sign).as_signed())
            )
        m.d.comb += [
            array.valid.eq(operand.valid),
            array.first.eq(operand.first),
            array.last.eq(operand.last),
            self.result.eq(array.result),
        ]

        for lane in range(self._config.lanes_n):  # one flat word for all would be too much for Verilator
            m.submodules[f"unpack_{lane}"] = unpack = WeightUnpack(lanes_k)
            row = slice(8 * lanes_k * lane, 8 * lanes_k * (lane + 1))
            m.d.comb += [
                unpack.data.eq(self.weight_data[row]),
                unpack.nibbles.eq(operand.nibbles),
                unpack.high.eq(operand.step[0]),
                array.weights[row].eq(unpack.weights),
            ]

        finished = delay(m, Cat(operand.valid & operand.last, operand.softmax & operand.first_tile), 4, "finished")
        m.d.comb += [
            self.tile_valid.eq(finished[0]),
            self.tile.eq(delay(m, operand.tile, MacArray.LATENCY - 1, "tile")),
        ]
        self._row_factor(m, exp2, scored, finished, slack)
        return m

    def _row_factor(self, m: Module, exp2, scored, finished, slack: int) -> None:
        counted = delay(
            m, Cat(scored.valid & scored.softmax & scored.first_tile, scored.first), Exp2Lanes.TOTAL_LATENCY, "counted"
        )
        total = Signal(EXP_SUM_BITS)
        with m.If(counted[0]):
            m.d.sync += total.eq(exp2.total + Mux(counted[1], 0, total))
        m.submodules.reciprocal = reciprocal = Reciprocal(EXP_SUM_BITS)
        m.d.comb += reciprocal.n.eq(total)
        row, shift = delay(m, reciprocal.row, slack, "row"), delay(m, reciprocal.shift, slack, "row_shift")
        with m.If(finished[0] & finished[1]):
            m.d.sync += [self.softmax_row.eq(row), self.softmax_shift.eq(shift)]
