"""Walking an ONNX graph: every tensor becomes a constant, a part of a Vision Transformer, or what is not mapped."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from edgemoe_models.importers.onnx_graph import operators
from edgemoe_models.importers.onnx_graph.embedding import convolve, is_embedding, join_tokens
from edgemoe_models.importers.onnx_graph.layout import is_move, move, split
from edgemoe_models.importers.onnx_graph.values import (
    MOST_ELEMENTS,
    Array,
    Joined,
    Mean,
    Norm,
    Picture,
    Unmapped,
    Value,
    View,
    whole,
)
from edgemoe_models.importers.options import ImportRefused

_FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)
_ACTIVATIONS = {
    "Tanh": "the approximation of GELU by tanh, or a pooler",
    "Elu": "ELU",
    "LeakyRelu": "LeakyReLU",
    "HardSwish": "hard swish",
    "HardSigmoid": "hard swish",
    "Mish": "Mish",
    "Softplus": "Mish",
}
_LARGEST_PICTURE = 2048  # pixels of a side


@dataclasses.dataclass(frozen=True)
class Failure:
    """The first node on the way to a tensor that has no counterpart, and why."""

    number: int
    name: str
    operator: str
    reason: str

    def text(self) -> str:
        """For the report."""
        return f"node {self.number} {self.name!r} ({self.operator}): {self.reason}"


Known: TypeAlias = "Value | Failure | None"


@dataclasses.dataclass(frozen=True)
class Walked:
    """What a graph's outputs are, by name, the size of its picture, and how many nodes there were."""

    outputs: dict[str, Known]
    height: int
    width: int
    mapped: int
    nodes: int


def walk(model: ModelProto) -> Walked:
    """Follow every node of a graph with one input, a picture [1, 3, H, W].

    Raises:
        ImportRefused: its input is none
    """
    known: dict[str, Known] = {"": None}
    for tensor in model.graph.initializer:
        known[tensor.name] = _plain(numpy_helper.to_array(tensor))
    name, height, width = _picture(model, known)
    picture = Picture(3, height * width, height, np.ones(3), np.zeros(3))
    known[name] = whole(picture, 1, 3, height, width)
    mapped = 0
    for number, node in enumerate(model.graph.node):
        found = _outputs(model, node, known, number)
        mapped += not any(isinstance(value, Failure) for value in found)
        known |= dict(zip(node.output, found, strict=False))
        known[""] = None
    outputs = {output.name: known.get(output.name) for output in model.graph.output}
    return Walked(outputs, height, width, mapped, len(model.graph.node))


def _picture(model: ModelProto, known: dict[str, Known]) -> tuple[str, int, int]:
    inputs = [value for value in model.graph.input if value.name not in known]
    if len(inputs) != 1:
        names = ", ".join(value.name for value in inputs)
        raise ImportRefused(f"the graph must have one input, the picture, not {len(inputs)}: {names}")
    sizes = [dim.dim_value for dim in inputs[0].type.tensor_type.shape.dim]
    if (
        len(sizes) != 4
        or sizes[0] > 1
        or sizes[1] not in (0, 3)
        or not all(1 <= size <= _LARGEST_PICTURE for size in sizes[2:])
    ):
        raise ImportRefused(
            f"the graph's input must be [batch, 3, height, width] with a fixed height and width, not {sizes} (0 is one "
            "that varies): export it for one size"
        )
    return inputs[0].name, sizes[2], sizes[3]


def _plain(array: Array) -> Array:
    """Half precision as single; all else as it is."""
    return array.astype(np.float32) if array.dtype.kind == "f" and array.dtype.itemsize < 4 else array


def _attributes(node: NodeProto) -> dict[str, Any]:
    return {attribute.name: _attribute(attribute) for attribute in node.attribute}


def _attribute(attribute: AttributeProto) -> Any:
    value = helper.get_attribute_value(attribute)
    return value.decode() if isinstance(value, bytes) else value


def _outputs(model: ModelProto, node: NodeProto, known: dict[str, Known], number: int) -> list[Known]:
    inputs = [known.get(name) for name in node.input]
    if failed := [value for value in inputs if isinstance(value, Failure)]:
        return [failed[0]] * len(node.output)
    try:
        if not any(isinstance(value, View) for value in inputs):
            return list(_folded(model, node, inputs))
        return list(_mapped(node.op_type, inputs, _attributes(node), len(node.output)))
    except Unmapped as error:
        failure = Failure(number, node.name or node.output[0], node.op_type, str(error))
    return [failure] * len(node.output)


def _folded(model: ModelProto, node: NodeProto, inputs: list[Any]) -> Iterator[Value]:
    """The outputs of a node of constants alone, by ONNX's own definition of it."""
    if any(attribute.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS) for attribute in node.attribute):
        raise Unmapped("a branch or loop")
    names = [name for name in node.input if name]
    if any(known is None for name, known in zip(node.input, inputs, strict=True) if name):
        raise Unmapped("an input that no node computes")
    if (size := _made(node.op_type, inputs)) > MOST_ELEMENTS:
        raise Unmapped(f"constants of {size:,} elements")
    given = [helper.make_empty_tensor_value_info(name) for name in dict.fromkeys(names)]
    wanted = [helper.make_empty_tensor_value_info(name) for name in node.output]
    graph = helper.make_graph([node], "constants", given, wanted)
    alone = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    feeds = dict(zip(node.input, inputs, strict=True))
    try:
        found = ReferenceEvaluator(alone).run(None, {name: feeds[name] for name in names})
    except Exception as error:  # of a damaged file: any of NumPy's and Python's
        raise Unmapped(f"constants that cannot be computed ({str(error).partition(chr(10))[0]})") from None
    for value in found:
        if not isinstance(value, np.ndarray | np.generic):
            raise Unmapped("constants that are no tensor")
        yield _plain(np.asarray(value))


def _made(operator: str, inputs: list[Any]) -> int:
    """Elements that operators make of a few numbers, as many as a file likes."""
    try:
        numbers = [[int(number) for number in np.asarray(value).reshape(-1)[:16]] for value in inputs[:3]]
        if operator == "ConstantOfShape":
            return math.prod(numbers[0])
        if operator == "Range":
            return abs(numbers[1][0] - numbers[0][0]) // max(abs(numbers[2][0]), 1)
        if operator in ("Expand", "Tile"):
            return int(np.size(inputs[0])) * math.prod(max(number, 1) for number in numbers[1])
    except (ValueError, TypeError, IndexError, OverflowError):  # ONNX's own definition says what is wrong
        pass
    return 0


def _mapped(operator: str, inputs: list[Any], attributes: dict[str, Any], count: int) -> Iterator[Known]:
    first = inputs[0]
    if operator == "Concat":
        yield _concat(inputs, int(attributes["axis"]))
    elif operator == "Split" and isinstance(first, View):
        sizes = inputs[1] if len(inputs) > 1 else attributes.get("split")
        parts = split(first.index, sizes, count, int(attributes.get("axis", 0)))
        yield from (first.at(part) for part in parts)
    elif operator == "Shape" and isinstance(first, View):
        begin, end = attributes.get("start", 0), attributes.get("end")
        yield np.array(first.shape, np.int64)[begin:end]
    elif operator == "Cast" and isinstance(first, View):
        if attributes["to"] not in _FLOATS:
            raise Unmapped("activations as integers")
        yield first
    elif operator == "Dropout":
        yield first
        yield from [None] * (count - 1)
    elif is_move(operator) and isinstance(first, View):
        if any(isinstance(value, View) for value in inputs[1:]):
            raise Unmapped("a shape or an index that depends on the picture")
        yield first.at(move(operator, first.index, inputs[1:], attributes))
    else:
        yield _computed(operator, inputs, attributes)
        yield from [None] * (count - 1)


def _computed(operator: str, inputs: list[Any], attributes: dict[str, Any]) -> View:
    a, b, c = (*inputs, None, None, None)[:3]
    if operator in ("Conv", "Gemm", "LayerNormalization"):
        if operator == "Conv":
            return convolve(a, b, c, attributes)
        if operator == "Gemm":
            return operators.gemm(a, b, c, attributes)
        return operators.layer_norm(a, b, c, int(attributes.get("axis", -1)), float(attributes.get("epsilon", 1e-5)))
    if operator in ("Add", "Sub"):
        return operators.add(a, b, 1.0 if operator == "Add" else -1.0)
    two = {"MatMul": operators.matmul, "Mul": operators.multiply, "Div": operators.divide, "Pow": operators.power}
    if operator in two:
        return two[operator](a, b)
    if operator in ("Sqrt", "Reciprocal", "Erf", "Sigmoid"):
        return operators.after(a, operator)
    if operator == "Where":
        return operators.where(a, b, c)
    if operator == "IsNaN":
        return operators.is_nan(a)
    if operator == "Softmax":
        return operators.softmax(a, int(attributes.get("axis", -1)))
    if operator in ("Gelu", "Relu", "Swish", "QuickGelu"):
        return operators.activation(a, operator, attributes)
    if operator == "ReduceMean" and isinstance(a, View):
        given = b if b is not None else attributes.get("axes", range(a.index.ndim))
        axes = tuple(sorted(int(axis) % a.index.ndim for axis in np.asarray(given).reshape(-1)))
        return operators.reduce_mean(a, axes, bool(attributes.get("keepdims", 1)))
    if operator in ("RMSNormalization", "SimplifiedLayerNormalization"):
        raise Unmapped(operators.RMS_NORM)
    if operator in _ACTIVATIONS:
        raise Unmapped(f"{operators.NOT_OURS}: {_ACTIVATIONS[operator]}")
    raise Unmapped("an operator that no plain Vision Transformer has")


def _concat(inputs: list[Any], axis: int) -> View:
    views = [value for value in inputs if isinstance(value, View)]
    if any(is_embedding(view.source) and not getattr(view.source, "layers", ()) for view in views):
        return join_tokens(inputs, axis)
    if len(views) == len(inputs) and all(view.source is views[0].source for view in views):
        if len({view.scale for view in views}) == 1:
            return views[0].at(np.concatenate([view.index for view in views], axis))
    if len(inputs) == 2 and len(views) == 2 and axis in (-1, views[0].index.ndim - 1):
        first, second = views
        if isinstance(first.source, Norm) and isinstance(second.source, Mean) and first.shape == second.shape:
            return whole(Joined(1, 2 * first.shape[-1], first, second), *first.shape[:-1], 2 * first.shape[-1])
    raise Unmapped("tensors joined that are not parts of one")
