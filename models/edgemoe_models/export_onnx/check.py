"""An exported QONNX file against the integer reference, tensor by tensor. Needs onnxruntime or qonnx."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, ValueInfoProto

from edgemoe_models.graph.integer_graph import IntegerGraph
from edgemoe_models.integer import reference
from edgemoe_models.integer.postprocess import decode_output

Tensors = dict[str, npt.NDArray[Any]]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What was compared, and the largest difference (in units of the tensor; 0 when equal) with its tensor's name."""

    tensors: int
    values: int
    largest: float
    worst: str

    @property
    def is_exact(self) -> bool:
        return self.largest == 0.0


def onnxruntime_executor(model: ModelProto, names: list[str]) -> Callable[[Tensors], Tensors]:
    """The model under onnxruntime with its default optimizations, on one thread, giving the tensors ``names``."""
    import onnxruntime

    tapped = ModelProto()
    tapped.CopyFrom(model)
    known = {value.name for value in model.graph.output}
    tapped.graph.output.extend(ValueInfoProto(name=name) for name in names if name not in known)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(tapped.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda inputs: dict(zip(names, session.run(names, inputs), strict=True))


def qonnx_executor(model: ModelProto, names: list[str]) -> Callable[[Tensors], Tensors]:
    """The model under qonnx's own executor, node by node (slow)."""
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.core.onnx_exec import execute_onnx

    wrapper = ModelWrapper(model)

    def run(inputs: Tensors) -> Tensors:
        context = execute_onnx(wrapper, inputs, return_full_exec_context=True)
        return {name: context[name] for name in names}

    return run


EXECUTORS = {"onnxruntime": onnxruntime_executor, "qonnx": qonnx_executor}


def model_input(image: npt.NDArray[np.uint8]) -> Tensors:
    """The input of an exported model: pixels k / 256, float32 [1, 3, H, W]."""
    return {"image": image.transpose(2, 0, 1)[None].astype(np.float32) / np.float32(256)}


def _expected(graph: IntegerGraph, task: str, image: npt.NDArray[np.uint8]) -> Iterator[tuple[str, Any, Any]]:
    """Name, expected values and the rows that they are of, for every tensor of the reference."""
    trace: reference.Trace = {}
    raw = reference.run(graph, image, task, trace)
    yield "output", decode_output(graph, task, raw)[None], slice(None)
    for name, value in trace.items():
        block = name.rpartition(".")[0]
        if name.endswith(".gate_scores"):
            for e, queue in enumerate(trace[f"{block}.queues"]):
                rows = np.zeros((graph.config.num_tokens, 1), np.int64)
                rows[queue, 0] = value[e]
                yield f"{name}.{e}", rows, slice(None)
        elif ".experts." in name:
            first, _, expert = block.rpartition(".experts.")
            yield name, value, trace[f"{first}.queues"][int(expert)]
        elif not name.endswith(".queues"):
            yield name, value[..., None] if name.endswith(".score_max") else value, slice(None)


def compare(
    model: ModelProto, graph: IntegerGraph, task: str, images: npt.NDArray[np.uint8], executor: str = "onnxruntime"
) -> Comparison:
    """Run ``model`` on images uint8 [B, H, W, 3] and compare every tensor of the integer reference.

    The experts of the file compute all tokens; the rows of an expert's queue are compared, and that the scores of the
    others are zero.
    """
    expected = [list(_expected(graph, task, image)) for image in images]
    run = EXECUTORS[executor](model, [name for name, _, _ in expected[0]])
    values, largest, worst = 0, 0.0, ""
    for image, tensors in zip(images, expected, strict=True):
        found = run(model_input(image))
        for name, wanted, rows in tensors:
            difference = np.abs(found[name][rows].astype(np.float64) - wanted).max(initial=0.0)
            values += wanted.size
            if difference > largest:
                largest, worst = float(difference), name
    return Comparison(len(expected[0]), values, largest, worst)
