"""The float network as ONNX, for ONNX Runtime and OpenVINO. Needs onnx.

Input ``images`` uint8 [batch, H, W, 3], output ``rows`` float32 [batch, rows, outputs].

Sparse experts gather their own tokens (NonZero, Gather), and their results are put back in the order of the tokens
(ScatterND). Dense experts are one wide MLP whose hidden values are multiplied by the gate's scores, which are zero
for the experts that a token did not choose.

int8 is quantize-dequantize (QDQ) form, for which both runtimes have integer kernels: a linear layer's weights symmetric
int8, a scale per output; its input asymmetric uint8, a scale per tensor, from calibration. Attention's two products,
softmax, LayerNorm, activation functions and gates stay in float32.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, TensorProto, helper

from edgemoe.studies.baselines.workload import Workload
from edgemoe_models.exact.functions import QUICK_GELU_SLOPE
from edgemoe_models.export_onnx.writer import IR_VERSION, OPSET, OnnxGraph

__all__ = ["float_network"]

Floats = npt.NDArray[np.float32]
Ranges = Mapping[str, tuple[float, float]]
_PIXEL = np.float32(1 / 256)


def float_network(workload: Workload, dense: bool = False, ranges: Ranges | None = None) -> ModelProto:
    """The workload's network; in int8 where ``ranges`` of the linear layers' inputs are given."""
    config = workload.config
    network = _Network(workload, dense, ranges)
    rows = network.build()
    shape = ["batch", config.image_height, config.image_width, 3]
    graph = helper.make_graph(
        network.graph.nodes,
        config.name,
        [helper.make_tensor_value_info("images", TensorProto.UINT8, shape)],
        [helper.make_tensor_value_info(rows, TensorProto.FLOAT, ["batch", *workload.expected.shape[1:]])],
        list(network.graph.constants.values()),
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)


def _ints(*values: int) -> npt.NDArray[np.int64]:
    return np.array(values, np.int64)


class _Network:
    """Builds one graph; N is the number of all tokens of the batch, D their width."""

    def __init__(self, workload: Workload, dense: bool, ranges: Ranges | None) -> None:
        self.graph = OnnxGraph()
        self.config, self.state, self.task = workload.config, workload.state, workload.task
        self.dense, self.ranges = dense, ranges

    def build(self) -> str:
        c = self.config
        x = self.embed()
        for i in range(c.depth):
            name = f"blocks.{i}"
            x = self.graph.op("Add", x, self.attention(self.norm(x, f"{name}.norm1"), name))
            y = self.norm(x, f"{name}.norm2")
            x = self.graph.op("Add", x, self.moe(y, name) if c.is_moe(i) else self.mlp(y, f"{name}.mlp", name))
        x = self.graph.op("Reshape", x, _ints(-1, c.num_tokens, c.dim))
        first, count = c.head_rows(self.task)
        x = self.graph.op("Slice", x, _ints(first), _ints(first + count), _ints(1))
        if c.task(self.task).is_finished_by_host:
            x, count = self.graph.op("ReduceMean", x, axes=[1], keepdims=1), 1
        y = self.norm(self.graph.op("Reshape", x, _ints(-1, c.dim)), "norm")
        head = f"heads.{self.task}"
        if c.task(self.task).head_hidden:
            y = self.activate(self.named_linear(y, f"{head}.fc1", "norm"))
            y = self.named_linear(y, f"{head}.fc2", f"{head}.hidden")
        else:
            y = self.named_linear(y, head, "norm")
        return self.graph.op("Reshape", y, _ints(-1, count, c.task(self.task).head_outputs), name="rows")

    def embed(self) -> str:
        """Images -> tokens [N, D]; the class token is a row of zeros to which its own table row is added."""
        c, p = self.config, self.config.patch
        x = self.graph.op("Reshape", "images", _ints(-1, c.grid[0], p, c.grid[1], p, 3))
        x = self.graph.op("Transpose", x, perm=[0, 1, 3, 5, 2, 4])
        x = self.graph.op("Reshape", x, _ints(-1, c.patch_inputs))
        x = self.graph.op("Mul", self.graph.op("Cast", x, to=TensorProto.FLOAT), np.asarray(_PIXEL))
        x = self.named_linear(x, "patch_embed", "pixels")
        x = self.graph.op("Reshape", x, _ints(-1, c.num_patches, c.dim))
        x = self.graph.op("Pad", x, _ints(0, c.prefix_tokens, 0, 0, 0, 0))
        table = self.state["pos_embed"].copy()
        if c.prefix_tokens:
            table[0] += self.state["cls_token"]
        return self.graph.op("Reshape", self.graph.op("Add", x, table), _ints(-1, c.dim))

    def norm(self, x: str, name: str) -> str:
        weight, bias = self.state[f"{name}.weight"], self.state[f"{name}.bias"]
        return self.graph.op("LayerNormalization", x, weight, bias, axis=-1, epsilon=self.config.eps)

    def activate(self, x: str) -> str:
        """The model's activation function; exact GELU in the form that runtimes recognize."""
        kind = self.config.activation
        if kind == "relu":
            return self.graph.op("Relu", x)
        if kind != "gelu":
            slope = 1.0 if kind == "silu" else QUICK_GELU_SLOPE
            scaled = x if slope == 1.0 else self.graph.op("Mul", x, np.asarray(slope, np.float32))
            return self.graph.op("Mul", x, self.graph.op("Sigmoid", scaled))
        erf = self.graph.op("Erf", self.graph.op("Div", x, np.asarray(np.sqrt(2), np.float32)))
        x = self.graph.op("Mul", x, self.graph.op("Add", erf, np.asarray(1, np.float32)))
        return self.graph.op("Mul", x, np.asarray(0.5, np.float32))

    def named_linear(self, x: str, name: str, source: str) -> str:
        return self.linear(x, self.state[f"{name}.weight"], self.state[f"{name}.bias"], source)

    def linear(self, x: str, weight: Floats, bias: Floats, source: str) -> str:
        """x [N, inputs] -> [N, outputs] by weight [outputs, inputs]; ``source`` names the range of x."""
        matrix = np.ascontiguousarray(weight.T)
        if self.ranges is None:
            return self.graph.op("Gemm", x, matrix, bias)
        low, high = (0.0, 255 / 256) if source == "pixels" else self.ranges[source]
        scale = np.float32((high - low) / 255)
        zero = np.asarray(np.rint(-low / scale), np.uint8)
        x = self.graph.op("QuantizeLinear", x, np.asarray(scale), zero)
        x = self.graph.op("DequantizeLinear", x, np.asarray(scale), zero)
        scales = np.maximum(np.abs(matrix).max(0), np.float32(1e-12)) / np.float32(127)
        steps = np.rint(matrix / scales).astype(np.int8)
        dequantized = self.graph.op("DequantizeLinear", steps, scales, np.zeros(len(scales), np.int8), axis=1)
        # ONNX Runtime has no integer kernel for MatMul + Add here, OpenVINO none for Gemm with a bias; this both take.
        return self.graph.op("Add", self.graph.op("Gemm", x, dequantized), bias)

    def attention(self, x: str, name: str) -> str:
        c = self.config
        x = self.named_linear(x, f"{name}.attn.qkv", f"{name}.norm1")
        x = self.graph.op("Reshape", x, _ints(-1, c.num_tokens, 3, c.heads, c.head_dim))
        parts = self.graph.ops("Split", x, axis=2, names=[f"{name}.{part}" for part in "qkv"])
        q, k, v = (self.graph.op("Reshape", part, _ints(-1, c.num_tokens, c.heads, c.head_dim)) for part in parts)
        q, v = (self.graph.op("Transpose", part, perm=[0, 2, 1, 3]) for part in (q, v))
        scores = self.graph.op("MatMul", q, self.graph.op("Transpose", k, perm=[0, 2, 3, 1]))
        scores = self.graph.op("Mul", scores, np.asarray(c.head_dim**-0.5, np.float32))
        x = self.graph.op("MatMul", self.graph.op("Softmax", scores, axis=-1), v)
        x = self.graph.op("Transpose", x, perm=[0, 2, 1, 3])
        return self.named_linear(self.graph.op("Reshape", x, _ints(-1, c.dim)), f"{name}.attn.proj", f"{name}.context")

    def mlp(self, x: str, name: str, block: str) -> str:
        return self.named_linear(
            self.activate(self.named_linear(x, f"{name}.fc1", f"{block}.norm2")), f"{name}.fc2", f"{block}.hidden"
        )

    def moe(self, x: str, block: str) -> str:
        """Sum of score * expert(token) over each token's experts, [N, D] -> [N, D]."""
        logits = self.graph.op("MatMul", x, np.ascontiguousarray(self.state[f"{block}.moe.gate.{self.task}"].T))
        scores = self.graph.op("Softmax", logits, axis=-1)  # [N, E]
        top_k = [f"{block}.best", f"{block}.chosen"]
        chosen = self.graph.ops("TopK", logits, _ints(self.config.top_k), axis=-1, names=top_k)[1]  # [N, top_k]
        return (self.dense_experts if self.dense else self.sparse_experts)(x, scores, chosen, block)

    def dense_experts(self, x: str, scores: str, chosen: str, block: str) -> str:
        c = self.config
        w1, b1, w2, b2 = (self.state[f"{block}.moe.{part}"] for part in ("w1", "b1", "w2", "b2"))
        hot = self.graph.op("OneHot", chosen, _ints(c.num_experts), np.array([0, 1], np.float32), axis=-1)
        scores = self.graph.op("Mul", scores, self.graph.op("ReduceSum", hot, _ints(1), keepdims=0))
        hidden = self.activate(self.linear(x, w1.reshape(-1, c.dim), b1.reshape(-1), f"{block}.norm2"))
        hidden = self.graph.op("Reshape", hidden, _ints(-1, c.num_experts, c.expert_hidden))
        hidden = self.graph.op("Mul", hidden, self.graph.op("Reshape", scores, _ints(-1, c.num_experts, 1)))
        hidden = self.graph.op("Reshape", hidden, _ints(-1, c.num_experts * c.expert_hidden))
        wide = np.ascontiguousarray(w2.transpose(0, 2, 1)).reshape(-1, c.dim)  # [E*H, D]
        return self.graph.op("Add", self.graph.op("MatMul", hidden, wide), self.graph.op("MatMul", scores, b2))

    def sparse_experts(self, x: str, scores: str, chosen: str, block: str) -> str:
        c = self.config
        visits = self.graph.op("Reshape", chosen, _ints(-1))  # [N * top_k]: token by token, its experts
        places, outputs = [], []
        for e in range(c.num_experts):
            w1, b1, w2, b2 = (self.state[f"{block}.moe.{part}"][e] for part in ("w1", "b1", "w2", "b2"))
            mine = self.graph.op("Equal", visits, _ints(e))
            places.append(self.graph.op("Reshape", self.graph.op("NonZero", mine), _ints(-1)))
            queue = self.graph.op("Gather", x, self.graph.op("Div", places[-1], _ints(c.top_k)), axis=0)
            hidden = self.activate(self.linear(queue, w1, b1, f"{block}.norm2"))
            outputs.append(self.linear(hidden, w2, b2, f"{block}.moe.hidden"))
        y = self.graph.op("Concat", *outputs, axis=0)
        order = self.graph.op("Unsqueeze", self.graph.op("Concat", *places, axis=0), _ints(1))
        y = self.graph.op("ScatterND", y, order, y)  # a permutation, so every row is replaced
        y = self.graph.op("Reshape", y, _ints(-1, c.top_k, c.dim))
        weights = self.graph.op("GatherElements", scores, chosen, axis=1)
        y = self.graph.op("Mul", y, self.graph.op("Unsqueeze", weights, _ints(2)))
        return self.graph.op("ReduceSum", y, _ints(1), keepdims=0)
