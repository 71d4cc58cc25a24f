"""The integer graph in a QONNX file that ``export`` wrote, of its one task. Needs onnx.

The exporter runs once more, on a graph of zeros of the file's shape, and the file's nodes are followed beside it: each
must be the operator that the exporter writes next, on the same tensors. Constants that are a graph's own are read from
the file; all others must be the exporter's. Names of nodes and tensors do not matter.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, helper, numpy_helper

from edgemoe_models.config import ModelConfig
from edgemoe_models.export_onnx.model import Exporter
from edgemoe_models.export_onnx.writer import OnnxGraph, Operand
from edgemoe_models.graph.integer_graph import (
    Activation,
    GraphError,
    IntegerBlock,
    IntegerGraph,
    IntegerHead,
    IntegerLayerNorm,
    IntegerLinear,
    Requant,
)
from edgemoe_models.storage.json_text import JsonError, parse_json

Array = npt.NDArray[Any]

_LARGEST_MULTIPLIER, _LARGEST_SHIFT = (1 << 16) - 1, 47


class ReadBackError(ValueError):
    """A file that is not what ``export`` writes; the message says where it first differs."""


@dataclasses.dataclass
class _Call:
    """One node that exporter and file agree on: its constants in the file, by operand, and the exporter's own."""

    kind: str
    found: list[Array | None]
    own: list[Array | None]

    def take(self, operand: int) -> Array:
        """The file's constant, which is a graph's own and need not be the exporter's."""
        self.own[operand] = None
        value = self.found[operand]
        assert value is not None
        return value


class _Replay(OnnxGraph):
    """Follows a file's nodes instead of writing any."""

    def __init__(self, model: ModelProto) -> None:
        super().__init__()
        self.file = list(model.graph.node)
        self.values = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        self.names: dict[str, str] = {"image": model.graph.input[0].name}
        self.arrays: dict[str, Array] = {}
        self.calls: list[_Call] = []

    def constant(self, value: int | float | Array) -> str:
        array = np.asarray(value) if isinstance(value, np.ndarray | np.generic) else np.asarray(value, np.float64)
        name = f"constant.{len(self.arrays)}"
        self.arrays[name] = array
        return name

    def ops(self, kind: str, *inputs: Operand, names: Sequence[str], domain: str = "", **attributes: Any) -> list[str]:
        number = len(self.calls)
        if number >= len(self.file):
            raise ReadBackError(f"it ends before a node {kind}")
        node = self.file[number]
        operands = [x if isinstance(x, str) else self.constant(x) for x in inputs]
        mine = helper.make_node(kind, operands, list(names), domain=domain, **attributes)
        if (node.op_type, node.domain, len(node.output)) != (kind, domain, len(names)) or _plain(node) != _plain(mine):
            raise ReadBackError(f"node {number} {node.name!r} is {node.op_type}, where export writes {kind}")
        if len(node.input) != len(operands):
            raise ReadBackError(f"node {number} {node.name!r} has {len(node.input)} inputs, not {len(operands)}")
        call = _Call(kind, [None] * len(operands), [None] * len(operands))
        for place, (operand, name) in enumerate(zip(operands, node.input, strict=True)):
            own = self.arrays.get(operand)
            if own is None and self.names.get(operand) != name:
                raise ReadBackError(f"node {number} {node.name!r} reads another tensor than export's ({name!r})")
            if own is not None:
                value = self.values.get(name)
                if value is None or value.shape != own.shape or value.dtype != own.dtype:
                    raise ReadBackError(f"node {number} {node.name!r} has no constant {own.dtype} {list(own.shape)}")
                call.found[place], call.own[place] = value, own
        self.calls.append(call)
        self.nodes.append(mine)  # whose number is part of the exporter's names
        self.names |= dict(zip(names, node.output, strict=True))
        return list(names)

    def check(self) -> None:
        """All nodes were followed, and constants that are not a graph's own are the exporter's."""
        if len(self.calls) != len(self.file):
            raise ReadBackError(f"it has {len(self.file) - len(self.calls)} nodes more than export writes")
        for number, call in enumerate(self.calls):
            for own, value in zip(call.own, call.found, strict=True):
                if own is not None and (value is None or not np.array_equal(own, value)):
                    raise ReadBackError(f"node {number} ({call.kind}) has other constants than export writes")


def _plain(node: NodeProto) -> dict[str, Any]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


class _Reader(Exporter):
    """The exporter on a graph of zeros, which notes what the file has in place of each layer."""

    def __init__(self, graph: IntegerGraph, task: str, model: ModelProto) -> None:
        super().__init__(graph, task)
        self.onnx = self.replay = _Replay(model)
        self.layers: dict[int, Any] = {}  # by identity of the layer of zeros
        self.blocks: dict[int, dict[str, Any]] = {}
        self.current: dict[str, Any] = {}
        self.pos_embed: Array = graph.pos_embed
        self.output_scale = 1.0

    def read(self) -> None:
        self.rows_of_head()
        self.replay.check()

    def embed(self, image: str) -> str:
        start = len(self.replay.calls)
        result = super().embed(image)
        calls = [call for call in self.replay.calls[start:] if call.kind in ("Add", "Concat")]
        parts = [call.take(0) for call in calls if call.found[0] is not None]
        self.pos_embed = np.concatenate(parts[::-1])  # the patches' were added before the others were put before them
        return result

    def linear(
        self,
        x: str,
        layer: IntegerLinear,
        bits: int,
        name: str | None = None,
        row: str | None = None,
    ) -> str:
        start = len(self.replay.calls)
        result = super().linear(x, layer, bits, name, row)
        calls = self.replay.calls[start:]
        weight, weight_bits, bias = calls[0].take(0), calls[0].take(3), calls[2].take(1)
        if row is None:
            pairs = [_pair(float(factor)) for factor in calls[4].take(1)]
        else:
            multipliers, steps = calls[3].take(1) * 2.0**15, calls[6].take(1)
            pairs = [(int(m), _exponent(float(step))) for m, step in zip(multipliers, steps, strict=True)]
        self.layers[id(layer)] = IntegerLinear(
            weight.T.astype(np.int8),
            bias.astype(np.int32),
            np.array([m for m, _ in pairs], np.uint16),
            np.array([s for _, s in pairs], np.uint8),
            bits=int(weight_bits),
        )
        return result

    def norm(self, residual: str, layer: IntegerLayerNorm, name: str) -> str:
        start = len(self.replay.calls)
        result = super().norm(residual, layer, name)
        calls = self.replay.calls[start:]
        eps = next(call for call in calls if call.kind == "Add").take(1)
        gamma, beta, step = calls[-4].take(1), calls[-3].take(1), calls[-2].take(1)
        self.layers[id(layer)] = IntegerLayerNorm(
            gamma.astype(np.int16), beta.astype(np.int32), _exponent(float(step)), int(eps)
        )
        return result

    def hidden(self, x: str, layer: IntegerLinear, activation: Activation, name: str) -> str:
        result = super().hidden(x, layer, activation, name)
        table, steps = self.replay.calls[-6].take(0), self.replay.calls[-3].take(1)
        shift = np.array([_exponent(float(step)) for step in steps], np.uint8)
        self.layers[id(activation)] = Activation(table.astype(np.uint8))
        self.layers[id(layer)] = dataclasses.replace(self.layers[id(layer)], activation_shift=shift)
        return result

    def requantize(self, a: str, factor: str | Array, bits: int, name: str | None = None) -> str:
        result = super().requantize(a, factor, bits, name)
        if name is not None and name.endswith(".scores"):
            self.current["score"] = Requant(*_pair(float(self.replay.calls[-2].take(1))))
        return result

    def probabilities(self, scores: str, shift: int, name: str) -> str:
        start = len(self.replay.calls)
        result = super().probabilities(scores, shift, name)
        factor = next(call for call in self.replay.calls[start:] if call.kind == "Mul").take(1)
        self.current["score_shift"] = -_exponent(float(factor))
        return result

    def row_multiplier(self, multiplier: Array | float, row: str) -> str:
        start = len(self.replay.calls)
        result = super().row_multiplier(multiplier, row)
        if np.ndim(multiplier) == 0:  # of the context; a layer's are vectors
            self.current["context"] = int(float(self.replay.calls[start].take(1)) * 2.0**15), len(self.replay.calls)
        return result

    def attention(self, block: IntegerBlock, residual: str, name: str) -> str:
        self.current = {}
        result = super().attention(block, residual, name)
        multiplier, after = self.current["context"]
        step = self.replay.calls[after].take(1)
        self.current["context"] = Requant(multiplier, _exponent(float(step)))
        self.blocks[id(block)] = self.current
        return result

    def arrange(self, raw: str) -> str:
        result = super().arrange(raw)
        calls = [call for call in self.replay.calls if call.kind == "Mul"]
        self.output_scale = float(calls[-1].take(1))
        return result

    def graph_of_file(self, scales: dict[str, npt.NDArray[np.float32]]) -> IntegerGraph:
        """What was read, in place of zeros."""
        graph, head = self.graph, self.graph.heads[self.task]
        found = self.layers
        return dataclasses.replace(
            graph,
            residual_scale=float(scales["embed"]) if "embed" in scales and scales["embed"].ndim == 0 else 1.0,
            pos_embed=self.pos_embed.astype(np.int16),
            patch_embed=found[id(graph.patch_embed)],
            blocks=tuple(self._block(block) for block in graph.blocks),
            norm=found[id(graph.norm)],
            heads={
                self.task: IntegerHead(
                    found[id(head.out)],
                    self.output_scale,
                    found[id(head.fc1)] if head.fc1 is not None else None,
                    found[id(head.activation)] if head.activation is not None else None,
                )
            },
            scales=scales,
        )

    def _block(self, block: IntegerBlock) -> IntegerBlock:
        found = self.layers
        return dataclasses.replace(
            block,
            norm1=found[id(block.norm1)],
            qkv=found[id(block.qkv)],
            proj=found[id(block.proj)],
            norm2=found[id(block.norm2)],
            activation=found[id(block.activation)],
            fc1=found[id(block.fc1)] if block.fc1 is not None else None,
            fc2=found[id(block.fc2)] if block.fc2 is not None else None,
            gates={task: found[id(gate)] for task, gate in block.gates.items()},
            expert_fc1=tuple(found[id(layer)] for layer in block.expert_fc1),
            expert_fc2=tuple(found[id(layer)] for layer in block.expert_fc2),
            **self.blocks[id(block)],
        )


def _exponent(step: float) -> int:
    """Of ``2^-n`` n."""
    mantissa, exponent = np.frexp(step)
    if mantissa != 0.5:
        raise ReadBackError(f"{step:g} is no power of two, where export writes one")
    return int(1 - exponent)


def _pair(factor: float) -> tuple[int, int]:
    """Multiplier and shift of ``multiplier * 2^-shift``, the multiplier as large as it may be."""
    if factor == 0:
        return 0, 0
    shift = 0
    while factor * 2 <= _LARGEST_MULTIPLIER and shift < _LARGEST_SHIFT:
        factor, shift = factor * 2, shift + 1
    if not 0 < factor <= _LARGEST_MULTIPLIER or factor != int(factor):
        raise ReadBackError(f"{factor:g} is no multiplier and shift, as export writes them")
    return int(factor), shift


def read_back(model: ModelProto) -> IntegerGraph:
    """The graph that ``export`` wrote to this file, with the one task that is in it.

    Raises:
        ReadBackError: it is another's file, or was changed
    """
    entries = {entry.key: entry.value for entry in model.metadata_props}
    try:
        whole = ModelConfig.from_json(entries["edgemoe.config"])
        config = dataclasses.replace(whole, tasks=(whole.task(entries["edgemoe.task"]),))
        scales = {
            name: np.asarray(value, np.float32)
            for name, value in parse_json(entries.get("edgemoe.scales", "{}")).items()
            if not name.startswith("heads.") or name.split(".")[1] == config.tasks[0].name
        }
    except (KeyError, ValueError, TypeError, AttributeError, JsonError) as error:
        raise ReadBackError(f"its metadata is damaged ({error})") from None
    if not model.graph.input:
        raise ReadBackError("it has no input")
    reader = _Reader(_zeros(config), config.tasks[0].name, model)
    try:
        reader.read()
        graph = reader.graph_of_file(scales)
        graph.bound_check()
        return graph
    except (ReadBackError, GraphError, IndexError, StopIteration) as error:
        raise ReadBackError(str(error) or "it ends too early") from None


# --- A graph of zeros, each layer an object of its own ----------------------------------------------------------------


def _zeros(config: ModelConfig) -> IntegerGraph:
    task = config.tasks[0]
    hidden = (_activated(task.head_hidden, config.dim), _activation()) if task.head_hidden else (None, None)
    return IntegerGraph(
        config=config,
        residual_scale=1.0,
        pos_embed=np.zeros((config.num_tokens, config.dim), np.int16),
        patch_embed=_linear(config.dim, config.patch_inputs),
        blocks=tuple(_block_of_zeros(config, i) for i in range(config.depth)),
        norm=_norm(config.dim),
        heads={task.name: IntegerHead(_linear(task.head_outputs, task.head_hidden or config.dim), 1.0, *hidden)},
    )


def _linear(outputs: int, inputs: int) -> IntegerLinear:
    zeros = np.zeros(outputs, np.int32)
    weight = np.broadcast_to(np.int8(0), (outputs, inputs))
    return IntegerLinear(weight, zeros, zeros.astype(np.uint16), zeros.astype(np.uint8))


def _norm(dim: int) -> IntegerLayerNorm:
    return IntegerLayerNorm(np.zeros(dim, np.int16), np.zeros(dim, np.int32), 0, 0)


def _activated(outputs: int, inputs: int) -> IntegerLinear:
    return dataclasses.replace(_linear(outputs, inputs), activation_shift=np.zeros(outputs, np.uint8))


def _activation() -> Activation:
    return Activation(np.zeros(512, np.uint8))


def _block_of_zeros(config: ModelConfig, i: int) -> IntegerBlock:
    dim, experts, moe = config.dim, range(config.num_experts), config.is_moe(i)
    return IntegerBlock(
        norm1=_norm(dim),
        qkv=_linear(3 * dim, dim),
        score=Requant(1, 0),
        score_shift=0,
        context=Requant(1, 0),
        proj=_linear(dim, dim),
        norm2=_norm(dim),
        activation=_activation(),
        fc1=None if moe else _activated(config.mlp_hidden, dim),
        fc2=None if moe else _linear(dim, config.mlp_hidden),
        gates={task.name: _linear(config.num_experts, dim) for task in config.tasks} if moe else {},
        expert_fc1=tuple(_activated(config.expert_hidden, dim) for _ in experts) if moe else (),
        expert_fc2=tuple(_linear(dim, config.expert_hidden) for _ in experts) if moe else (),
    )
