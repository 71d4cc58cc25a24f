"""A small writer of QONNX graphs: standard ONNX operators and QONNX's ``Quant`` node. Needs onnx.

``Quant`` is QONNX's own operator (Pappalardo et al. 2022, "QONNX", section III). The file carries its definition as an
ONNX function too, so that onnxruntime, which does not know QONNX, executes the same file.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import (
    AttributeProto,
    FunctionProto,
    ModelProto,
    NodeProto,
    TensorProto,
    helper,
    numpy_helper,
)

OPSET, IR_VERSION = 17, 9
QUANT_DOMAIN = "qonnx.custom_op.general"
FLOAT, DOUBLE, INT64 = TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT64

#: The name of a tensor in the graph, or a constant: numbers are float64, arrays keep their type.
Operand = str | int | float | npt.NDArray[Any]


class OnnxGraph:
    """Nodes and constants in order of their addition; equal constants are stored once."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: dict[tuple[str, tuple[int, ...], bytes], TensorProto] = {}

    def constant(self, value: int | float | npt.NDArray[Any]) -> str:
        """The name of a constant tensor."""
        array = np.asarray(value) if isinstance(value, np.ndarray | np.generic) else np.asarray(value, np.float64)
        array = np.ascontiguousarray(array).reshape(array.shape)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self.constants:
            self.constants[key] = numpy_helper.from_array(array, f"constant.{len(self.constants)}")
        result: str = self.constants[key].name
        return result

    def op(self, kind: str, *inputs: Operand, name: str | None = None, **attributes: Any) -> str:
        """Add a node with one output and return the output's name."""
        return self.ops(kind, *inputs, names=[name or f"{kind}.{len(self.nodes)}"], **attributes)[0]

    def ops(self, kind: str, *inputs: Operand, names: Sequence[str], domain: str = "", **attributes: Any) -> list[str]:
        """Add a node with the outputs ``names`` and return them."""
        operands = [x if isinstance(x, str) else self.constant(x) for x in inputs]
        self.nodes.append(helper.make_node(kind, operands, list(names), names[0], domain=domain, **attributes))
        return list(names)

    def double(self, x: str) -> str:
        """``x`` as float64."""
        return self.op("Cast", x, to=DOUBLE)

    def quant(self, x: str, bits: int, scale: float = 1.0, signed: bool = True, name: str | None = None) -> str:
        """QONNX's Quant of a float32 or float64 tensor to float32: divided by ``scale``, rounded half to even, clamped.

        Signed formats are symmetric ("narrow"), as everywhere in docs/numerics.md.
        """
        inputs = (np.float32(scale), np.float32(0), np.float32(bits))
        return self.ops(
            "Quant",
            x,
            *(np.asarray(value) for value in inputs),
            names=[name or f"Quant.{len(self.nodes)}"],
            domain=QUANT_DOMAIN,
            signed=int(signed),
            narrow=int(signed),
            rounding_mode="ROUND",
        )[0]

    def gather(self, table: npt.NDArray[Any], index: str) -> str:
        """``table[index]`` of a float64 table and an index that is integer-valued."""
        return self.op("Gather", table.astype(np.float64), self.op("Cast", index, to=INT64), axis=0)

    def reduce_sum(self, x: str) -> str:
        """Sum over the last axis, which stays with length 1."""
        return self.op("ReduceSum", x, np.array([-1], np.int64), keepdims=1)

    def reshape(self, x: str, *shape: int, name: str | None = None) -> str:
        return self.op("Reshape", x, np.array(shape, np.int64), name=name)

    def rows(self, x: str, start: int, end: int) -> str:
        """``x[start:end]``."""
        return self.op("Slice", x, *(np.array([value], np.int64) for value in (start, end, 0)))

    def model(
        self,
        name: str,
        inputs: dict[str, tuple[int, ...]],
        outputs: dict[str, tuple[int, ...]],
        metadata: dict[str, str],
    ) -> ModelProto:
        """The checked model, every tensor's shape and type inferred; inputs and outputs are float32."""
        given, made = (
            [helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in side.items()]
            for side in (inputs, outputs)
        )
        graph = helper.make_graph(self.nodes, name, given, made, list(self.constants.values()))
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(QUANT_DOMAIN, 1)]
        model = helper.make_model(
            graph, opset_imports=opsets, functions=[quant_function()], ir_version=IR_VERSION, producer_name="edgemoe"
        )
        helper.set_model_props(model, metadata)
        model = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
        onnx.checker.check_model(model, full_check=True)
        return model


def quant_function() -> FunctionProto:
    """QONNX's Quant with ``rounding_mode`` ROUND in standard operators: float32 or float64 in, float32 out."""
    node = helper.make_node

    def attribute(name: str) -> list[NodeProto]:
        constant = node("Constant", [], [f"{name}_integer"])
        constant.attribute.append(AttributeProto(name="value_int", ref_attr_name=name, type=AttributeProto.INT))
        return [constant, node("CastLike", [f"{name}_integer", "x"], [f"is_{name}"])]

    def number(name: str, value: float) -> list[NodeProto]:
        return [
            node("Constant", [], [f"{name}_float"], value_float=value),
            node("CastLike", [f"{name}_float", "x"], [name]),
        ]

    nodes = [*attribute("signed"), *attribute("narrow"), *number("one", 1.0), *number("two", 2.0)]
    nodes += [
        node("CastLike", [given, "x"], [name])
        for given, name in (("scale", "s"), ("zeropt", "zero"), ("bitwidth", "bits"))
    ]
    # highest = 2^(bits - signed) - 1, one less if unsigned and narrow; lowest = signed * (narrow - 2^(bits - 1))
    steps = {
        "exponent": ("Sub", "bits", "is_signed"),
        "power": ("Pow", "two", "exponent"),
        "end": ("Sub", "power", "one"),
        "is_unsigned": ("Sub", "one", "is_signed"),
        "less": ("Mul", "is_unsigned", "is_narrow"),
        "highest": ("Sub", "end", "less"),
        "negative": ("Sub", "is_narrow", "power"),
        "lowest": ("Mul", "is_signed", "negative"),
        "divided": ("Div", "x", "s"),
        "shifted": ("Add", "divided", "zero"),
        "rounded": ("Round", "shifted"),
        "above": ("Max", "rounded", "lowest"),
        "clamped": ("Min", "above", "highest"),
        "integer": ("Sub", "clamped", "zero"),
        "result": ("Mul", "integer", "s"),
    }
    nodes += [node(kind, inputs, [name]) for name, (kind, *inputs) in steps.items()]
    nodes.append(node("Cast", ["result"], ["y"], to=FLOAT))
    return helper.make_function(
        QUANT_DOMAIN,
        "Quant",
        ["x", "scale", "zeropt", "bitwidth"],
        ["y"],
        nodes,
        [helper.make_opsetid("", OPSET)],
        ["signed", "narrow", "rounding_mode"],
    )
