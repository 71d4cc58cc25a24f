"""An integer graph as a QONNX model of one task: docs/numerics.md in ONNX operators, bit for bit. Needs onnx.

Tensors hold the integers themselves, under the reference's trace names. Products of Quant weights and Quant activations
are exact in float32 (they stay below 2^24; P.V of more than 518 tokens may not, and is in float64); a requantize and
everything inside LayerNorm is exact in float64 (below 2^53); tables are Gathers. Experts are dense: each computes all
tokens, and the gate's score is zero for those that did not choose it.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, TensorProto

from edgemoe_models.arithmetic import ops
from edgemoe_models.arithmetic.tables import EXP2G, RECIP, RSQRT, norm_constants
from edgemoe_models.export_onnx.writer import OnnxGraph
from edgemoe_models.graph.integer_graph import (
    Activation,
    IntegerBlock,
    IntegerGraph,
    IntegerLayerNorm,
    IntegerLinear,
)

#: Powers of two that a float64 integer can reach; floor_log2 counts them.
_POWERS = 2.0 ** np.arange(64)
_SOFTMAX_END = 9 * 64  # from this distance to the maximum on, a probability is zero


def export(graph: IntegerGraph, task: str) -> ModelProto:
    """The whole inference of one task.

    Input ``image`` float32 [1, 3, H, W], pixels k / 256. Outputs ``heads.{task}`` float32 [rows, outputs], the head's
    raw integers, and ``output``, the same arranged as an image [1, channels, h, w] (or [1, channels]) in the float
    model's units.

    Raises:
        ValueError: the model has no such task.
    """
    return Exporter(graph, task).model()


class Exporter:
    """Writes one task; ``read_back`` follows a file with it."""

    def __init__(self, graph: IntegerGraph, task: str) -> None:
        self.graph, self.config = graph, graph.config
        self.head = graph.config.task(task)
        self.task = task
        self.onnx = OnnxGraph()

    def rows_of_head(self) -> tuple[str, int]:
        """Write all of it; the name of the raw outputs, and their rows."""
        config, head = self.config, self.head
        residual = self.embed("image")
        for i, block in enumerate(self.graph.blocks):
            residual = self.attention(block, residual, f"blocks.{i}")
            residual = (
                self.experts(block, residual, f"blocks.{i}")
                if block.is_moe
                else self.mlp(block, residual, f"blocks.{i}")
            )
        first, count = config.head_rows(self.task)
        rows = self.onnx.rows(residual, first, first + count)
        if head.is_finished_by_host:
            rows, count = self.mean(rows, count), 1
        raw = self.heads(self.norm(rows, self.graph.norm, "norm"))
        self.arrange(raw)
        return raw, count

    def model(self) -> ModelProto:
        """The file's content."""
        config, head = self.config, self.head
        raw, count = self.rows_of_head()
        outputs = {raw: (count, head.head_outputs), "output": (1, *config.output_shape(self.task))}
        metadata = {
            "edgemoe.config": config.to_json(),
            "edgemoe.task": self.task,
            "edgemoe.scales": json.dumps({name: np.asarray(s).tolist() for name, s in self.graph.scales.items()}),
        }
        shape = (1, 3, config.image_height, config.image_width)
        return self.onnx.model(config.name, {"image": shape}, outputs, metadata)

    # --- Linear layers (sections 2 and 3) -----------------------------------------------------------------------------

    def linear(
        self,
        x: str,
        layer: IntegerLinear,
        bits: int,
        name: str | None = None,
        row: str | None = None,
    ) -> str:
        """``requantize(x @ weight.T + bias)``, with a row factor [T, 1] (float64) if given."""
        weight = self.onnx.quant(self.onnx.constant(layer.weight.T.astype(np.float32)), layer.bits)
        a = self.onnx.op("Add", self.onnx.op("MatMul", x, weight), layer.bias.astype(np.float32))
        step = 2.0 ** -layer.shift.astype(np.float64)
        multiplier = layer.multiplier.astype(np.float64)
        if row is None:
            return self.requantize(a, multiplier * step, bits, name)
        return self.requantize(a, self.onnx.op("Mul", self.row_multiplier(multiplier, row), step), bits, name)

    def requantize(self, a: str, factor: str | npt.NDArray[Any], bits: int, name: str | None = None) -> str:
        """Round ``a * factor``, exact in float64, half to even to ``bits`` bits."""
        return self.onnx.quant(self.onnx.op("Mul", self.onnx.double(a), factor), bits, name=name)

    def row_multiplier(self, multiplier: npt.NDArray[Any] | float, row: str) -> str:
        """``(multiplier * row + 2^14) >> 15``."""
        product = self.onnx.op("Mul", row, np.asarray(multiplier) * 2.0**-15)
        return self.onnx.op("Floor", self.onnx.op("Add", product, 0.5))

    def add(self, residual: str, increment: str, name: str | None = None) -> str:
        """The residual stream's saturating sum."""
        return self.onnx.quant(self.onnx.op("Add", residual, increment), 16, name=name)

    def embed(self, image: str) -> str:
        p, (rows, columns) = self.config.patch, self.config.grid
        x = self.onnx.quant(image, 8, scale=1 / 256, signed=False)
        x = self.onnx.op("Mul", x, np.asarray(np.float32(256)))
        x = self.onnx.op("Transpose", self.onnx.reshape(x, 3, rows, p, columns, p), perm=[1, 3, 0, 2, 4])
        x = self.linear(self.onnx.reshape(x, rows * columns, 3 * p * p), self.graph.patch_embed, 16)
        start, prefix = self.graph.pos_embed.astype(np.float32), self.config.prefix_tokens
        if not prefix:
            return self.add(self.onnx.constant(start), x, "embed")
        x = self.add(self.onnx.constant(start[prefix:]), x)
        return self.onnx.op("Concat", start[:prefix], x, axis=0, name="embed")

    def mean(self, rows: str, count: int) -> str:
        """The mean of ``count`` residual rows, rounded half up: one row."""
        total = self.onnx.op("ReduceSum", self.onnx.double(rows), np.array([0], np.int64), keepdims=1)
        return self.onnx.op("Floor", self.onnx.op("Add", self.onnx.op("Div", total, float(count)), 0.5))

    # --- Functions (sections 4 to 6) ----------------------------------------------------------------------------------

    def floor_log2(self, n: str) -> str:
        """Position of the highest set bit of integers [..., 1] in float64, by counting the powers of two below."""
        reached = self.onnx.op("GreaterOrEqual", n, _POWERS[1:53])
        return self.onnx.reduce_sum(self.onnx.double(reached))

    def hidden(self, x: str, layer: IntegerLinear, activation: Activation, name: str) -> str:
        """A linear layer with its activation function."""
        assert layer.activation_shift is not None
        q = self.onnx.double(self.linear(x, layer, ops.ACTIVATION_BITS))
        table, last = activation.table, float(len(activation.table) - 1)
        entry = self.onnx.gather(table.astype(np.float64), self.onnx.op("Min", self.onnx.op("Abs", q), last))
        total = self.onnx.op("Add", self.onnx.op("Max", q, 0.0), entry)
        # Rounded before the offset, half to even: afterwards as well, for 128 is even.
        y = self.onnx.op("Sub", self.onnx.op("Mul", total, np.ldexp(1.0, -layer.activation_shift.astype(int))), 128.0)
        return self.onnx.quant(y, 8, name=name)

    def norm(self, residual: str, layer: IntegerLayerNorm, name: str) -> str:
        """LayerNorm of residual rows."""
        g, dim = self.onnx, len(layer.gamma)
        c, inverse = norm_constants(dim)
        x = g.double(residual)
        total, squares = g.reduce_sum(x), g.reduce_sum(g.op("Mul", x, x))
        mean = g.op("Round", g.op("Mul", total, inverse * 2.0 ** -(c + 8)))
        spread = g.op("Sub", g.op("Mul", squares, dim), g.op("Mul", total, total))
        variance = g.op("Max", g.op("Add", spread, layer.eps), 1.0)
        e = g.op("Floor", g.op("Mul", g.op("Sub", 51.0, self.floor_log2(variance)), 0.5))
        power = g.gather(_POWERS, e)
        u = g.op("Mul", g.op("Mul", variance, g.op("Mul", power, power)), 2.0**-42)
        root = g.gather(RSQRT, g.op("Floor", u))
        difference = g.op("Sub", g.op("Mul", x, 256.0), mean)
        t = g.op("Mul", g.op("Mul", difference, root), g.op("Mul", power, 2.0 ** (c - 39)))
        t = g.double(g.quant(t, 16))
        y = g.op("Add", g.op("Mul", t, layer.gamma.astype(np.float64)), layer.beta.astype(np.float64))
        return g.quant(g.op("Mul", y, 2.0**-layer.shift), 8, name=name)

    def reciprocal(self, total: str) -> tuple[str, str]:
        """``row`` and ``2^row_shift`` of the sums [..., 1]."""
        power = self.onnx.gather(_POWERS, self.floor_log2(total))
        mantissa = self.onnx.op("Floor", self.onnx.op("Mul", self.onnx.op("Div", total, power), 1024.0))
        return self.onnx.gather(RECIP, self.onnx.op("Sub", mantissa, 1024.0)), power

    def attention(self, block: IntegerBlock, residual: str, name: str) -> str:
        g, config = self.onnx, self.config
        qkv = self.linear(self.norm(residual, block.norm1, f"{name}.norm1"), block.qkv, 8)
        sizes = np.full(3, config.dim, np.int64)
        parts = g.ops("Split", qkv, sizes, names=[f"{name}.{part}" for part in "qkv"], axis=1)
        split = [g.reshape(part, config.num_tokens, config.heads, config.head_dim) for part in parts]
        q, k, v = (
            g.op("Transpose", x, perm=perm) for x, perm in zip(split, ([1, 0, 2], [1, 2, 0], [1, 0, 2]), strict=True)
        )
        factor = np.asarray(block.score.multiplier * 2.0**-block.score.shift)
        scores = self.requantize(g.op("MatMul", q, k), factor, 12, f"{name}.scores")
        p = self.probabilities(scores, block.score_shift, name)
        row, power = self.reciprocal(g.reduce_sum(g.double(p)))
        multiplier = g.op("Mul", self.row_multiplier(block.context.multiplier, row), 2.0**-block.context.shift)
        if 255 * 127 * config.num_tokens >= ops.ACCUMULATOR_LIMIT:  # float32 has no odd numbers there
            p, v = g.double(p), g.double(v)
        context = self.requantize(g.op("MatMul", p, v), g.op("Div", multiplier, power), 8)
        context = g.op("Transpose", context, perm=[1, 0, 2])
        context = g.reshape(context, config.num_tokens, config.dim, name=f"{name}.context")
        return self.add(residual, self.linear(context, block.proj, 16), f"{name}.residual1")

    def probabilities(self, scores: str, shift: int, name: str) -> str:
        """Unsigned 8-bit exponentials, one table of the distance to the row's maximum."""
        table, _ = ops.softmax_probabilities(-np.arange(_SOFTMAX_END + 1), 0)
        maximum = self.onnx.op("ReduceMax", scores, axes=[-1], keepdims=1, name=f"{name}.score_max")
        distance = self.onnx.op("Mul", self.onnx.double(self.onnx.op("Sub", maximum, scores)), 2.0**shift)
        p = self.onnx.gather(table, self.onnx.op("Min", distance, float(_SOFTMAX_END)))
        return self.onnx.quant(p, 8, signed=False, name=f"{name}.probabilities")

    # --- MLP, experts and heads (sections 7 to 9) ---------------------------------------------------------------------

    def mlp(self, block: IntegerBlock, residual: str, name: str) -> str:
        assert block.fc1 is not None and block.fc2 is not None  # a dense block has both
        x = self.norm(residual, block.norm2, f"{name}.norm2")
        h = self.hidden(x, block.fc1, block.activation, f"{name}.hidden")
        return self.add(residual, self.linear(h, block.fc2, 16), f"{name}.residual2")

    def experts(self, block: IntegerBlock, residual: str, name: str) -> str:
        g = self.onnx
        x = self.norm(residual, block.norm2, f"{name}.norm2")
        logits = g.double(self.linear(x, block.gates[self.task], 16, f"{name}.gate_logits"))
        names = [f"{name}.gate_scores.{e}" for e in range(self.config.num_experts)]
        scores = g.ops("Split", self.gate(logits), np.ones(len(names), np.int64), names=names, axis=1)
        for e, (fc1, fc2) in enumerate(zip(block.expert_fc1, block.expert_fc2, strict=True)):
            h = self.hidden(x, fc1, block.activation, f"{name}.experts.{e}.hidden")
            increment = self.linear(h, fc2, 16, row=scores[e])
            last = e == self.config.num_experts - 1
            residual = self.add(residual, increment, f"{name}.residual2" if last else None)
        return residual

    def gate(self, logits: str) -> str:
        """Scores [T, E] in units of 2^-15, zero for every expert that is not among the token's ``top_k``."""
        g, experts = self.onnx, self.config.num_experts
        table = np.array([EXP2G[i & 255] >> (i >> 8) if i >> 8 <= 15 else 0 for i in range(1 << 14)])
        distance = g.op("Sub", g.op("ReduceMax", logits, axes=[-1], keepdims=1), logits)
        p = g.gather(table, g.op("Floor", g.op("Mul", distance, 0.25)))
        row, power = self.reciprocal(g.reduce_sum(p))
        scores = g.op("Floor", g.op("Add", g.op("Div", g.op("Mul", p, row), power), 0.5))
        scores = g.op("Min", scores, float(ops.MAX_SCORE))
        # Distinct keys that order equal logits by expert number: the top_k-th largest key is the threshold.
        keys = g.op("Add", g.op("Mul", logits, experts), -np.arange(experts, dtype=np.float64))
        best, _ = g.ops(
            "TopK",
            keys,
            np.array([self.config.top_k], np.int64),
            axis=-1,
            names=[f"TopK.{len(g.nodes)}", f"TopK.{len(g.nodes)}.experts"],
        )
        least = g.op("ReduceMin", best, axes=[-1], keepdims=1)
        return g.op("Where", g.op("GreaterOrEqual", keys, least), scores, 0.0)

    def heads(self, x: str) -> str:
        head, name = self.graph.heads[self.task], f"heads.{self.task}"
        if head.fc1 is not None and head.activation is not None:
            x = self.hidden(x, head.fc1, head.activation, f"{name}.hidden")
        return self.linear(x, head.out, 16, name)

    def arrange(self, raw: str) -> str:
        """The raw rows as an image, in the float model's units."""
        head, shape = self.head, (1, *self.config.output_shape(self.task))
        if head.pool not in ("cls", "avg-norm"):
            raw = self.pooled(raw)
        x = self.onnx.op("Mul", raw, np.asarray(np.float32(self.graph.heads[self.task].output_scale)))
        if head.is_dense:
            x = self.onnx.reshape(x, *self.config.grid, head.cells, head.cells, head.channels)
            x = self.onnx.op("Transpose", x, perm=[4, 0, 2, 1, 3])
        return self.onnx.reshape(x, *shape, name="output")

    def pooled(self, raw: str) -> str:
        """The rows of a head of the whole picture as one, float32 [1, channels]."""
        g, n, (_, count), prefix = self.onnx, self.head.channels, self.config.head_rows(self.task), 0
        x = g.double(raw)
        if self.head.pool != "avg":
            first, second = g.ops("Split", x, np.full(2, n, np.int64), names=["pool.first", "pool.second"], axis=1)
            own = g.rows(first, 0, 1)
            if self.head.pool == "cls-dist":
                both = g.op("Mul", g.op("Add", own, g.rows(second, 1, 2)), 0.5)
                return g.op("Cast", both, to=TensorProto.FLOAT)
            prefix = self.config.prefix_tokens
            x = g.rows(second, prefix, count)
        total = g.op("ReduceSum", x, np.array([0], np.int64), keepdims=1)
        mean = g.op("Div", total, float(count - prefix))
        mean = g.op("Add", own, mean) if prefix else mean
        return g.op("Cast", mean, to=TensorProto.FLOAT)
