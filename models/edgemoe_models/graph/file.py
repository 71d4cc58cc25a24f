"""The integer graph's file: one safetensors container (no pickle). NumPy only.

It holds integer tensors, float32 scales under ``scale.<name>`` that serve reports only, the experts' use under
``expert_use.<name>`` where it was measured, and one JSON metadata entry with the format's version, the model's config,
all scalars and a sha256.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import numpy as np
import numpy.typing as npt

from edgemoe_models.arithmetic.ops import ACCUMULATOR_LIMIT, MAX_SHIFT
from edgemoe_models.arithmetic.tables import ACTIVATION_ENTRIES, MAX_ACTIVATION_SHIFT
from edgemoe_models.config import ModelConfig, TaskConfig
from edgemoe_models.graph.integer_graph import (
    REMEDY,
    Activation,
    GraphError,
    IntegerBlock,
    IntegerGraph,
    IntegerHead,
    IntegerLayerNorm,
    IntegerLinear,
    Requant,
)
from edgemoe_models.storage import checks
from edgemoe_models.storage.atomic import write_bytes
from edgemoe_models.storage.file_kind import GRAPH_KEY
from edgemoe_models.storage.json_text import JsonError, parse_json
from edgemoe_models.storage.tensor_file import (
    TensorFileError,
    parse_tensors,
    read_metadata,
    read_tensors,
    tensor_bytes,
)

__all__ = [
    "FORMAT_VERSION",
    "METADATA_KEY",
    "digest",
    "graph_bytes",
    "is_graph_file",
    "parse_graph",
    "read_graph",
    "read_outline",
    "write_graph",
]

FORMAT_VERSION = 3
METADATA_KEY = GRAPH_KEY
_USE = "expert_use."  # before the names of ``IntegerGraph.expert_use``
_SMALLEST_SCALE = 1e-30  # and 1e30: what a float32 holds with room to spare

Array = npt.NDArray[Any]


def graph_bytes(graph: IntegerGraph) -> bytes:
    """The content of a graph's file. Equal graphs give equal bytes."""
    tensors, scalars = _flatten(graph)
    document = {"version": FORMAT_VERSION, "config": graph.config.to_dict(), "scalars": scalars}
    document["sha256"] = digest(tensors, document)
    return tensor_bytes(tensors, {METADATA_KEY: json.dumps(document, sort_keys=True, allow_nan=False)})


def write_graph(graph: IntegerGraph, path: Path | str) -> None:
    """Write ``graph`` to one file, whole or not at all.

    Raises:
        SaveError: it cannot be written
    """
    write_bytes(path, graph_bytes(graph))


def read_graph(path: Path | str) -> IntegerGraph:
    """Read a graph that ``write_graph`` wrote, and check all of it.

    Raises:
        GraphError: the file is missing, damaged, of another version or inconsistent; the message names it
    """
    try:
        return _graph(*_checked_tensors(lambda: read_tensors(path)))
    except GraphError as error:
        raise GraphError(f"{path}: {error}") from None


def parse_graph(content: bytes) -> IntegerGraph:
    """The graph of which this is the file's content; raises GraphError as ``read_graph``."""
    return _graph(*_checked_tensors(lambda: parse_tensors(content)))


def is_graph_file(metadata: Mapping[str, str]) -> bool:
    """Whether a safetensors file's metadata is an integer graph's."""
    return METADATA_KEY in metadata


def read_outline(content: bytes) -> tuple[ModelConfig, dict[str, Any]]:
    """The model and the scalars of a graph's file, without its tensors; raises GraphError."""
    _, text = _checked_tensors(lambda: (None, read_metadata(content)))
    document = _document(text)
    return _config(document), checks.record(document.get("scalars"), "scalars", (), others=True)


_Tensors = TypeVar("_Tensors")


def _checked_tensors(read: Callable[[], tuple[_Tensors, dict[str, str]]]) -> tuple[_Tensors, str]:
    """What ``read`` reads, and the graph's own metadata."""
    try:
        tensors, metadata = read()
    except (TensorFileError, OSError) as error:
        raise GraphError(f"not a readable graph file ({error}); copy it again, or {REMEDY}") from None
    if not is_graph_file(metadata):
        _refuse("a safetensors file, but no integer graph; quantize the float checkpoint first")
    return tensors, metadata[METADATA_KEY]


def _document(text: str) -> dict[str, Any]:
    try:
        document = parse_json(text)
    except JsonError as error:
        raise GraphError(f"its metadata is damaged ({error}); {REMEDY}") from None
    found = document.get("version") if isinstance(document, dict) else None
    if type(found) is not int or found != FORMAT_VERSION:
        _refuse(f"graph format {checks.shown(found)}, but this edgemoe reads {FORMAT_VERSION}; {REMEDY} with it")
    assert isinstance(document, dict)
    return document


def _config(document: Mapping[str, Any]) -> ModelConfig:
    try:
        return ModelConfig.from_dict(document["config"])
    except KeyError as error:
        raise GraphError(f"the graph lacks {error}; {REMEDY}") from None
    except ValueError as error:
        raise GraphError(f"{error}; {REMEDY}") from None


def _graph(tensors: dict[str, Array], text: str) -> IntegerGraph:
    document = _document(text)
    found = document.pop("sha256", None)
    if found != digest(tensors, document):
        _refuse(f"its contents do not match its sha256, the file is damaged; copy it again, or {REMEDY}")
    config = _config(document)
    try:
        scalars = checks.record(document.get("scalars"), "scalars", (), others=True)
        return _unflatten(config, tensors, dict(scalars))
    except KeyError as error:
        raise GraphError(f"the graph lacks {error}; {REMEDY}") from None
    except checks.FieldError as error:
        raise GraphError(f"{error}; {REMEDY}") from None


def _refuse(message: str) -> NoReturn:
    raise GraphError(message)


def digest(tensors: Mapping[str, Array], document: Mapping[str, Any]) -> str:
    """sha256 over the metadata without its own ``sha256``, and over every tensor with its name, type and shape."""
    digest = hashlib.sha256(json.dumps(document, sort_keys=True).encode())
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _norms(graph: IntegerGraph) -> Iterator[tuple[str, IntegerLayerNorm]]:
    for i, block in enumerate(graph.blocks):
        yield f"blocks.{i}.norm1", block.norm1
        yield f"blocks.{i}.norm2", block.norm2
    yield "norm", graph.norm


def _activations(graph: IntegerGraph) -> Iterator[tuple[str, Activation]]:
    yield from ((f"blocks.{i}.activation", block.activation) for i, block in enumerate(graph.blocks))
    for task, head in graph.heads.items():
        if head.activation is not None:
            yield f"heads.{task}.activation", head.activation


def _flatten(graph: IntegerGraph) -> tuple[dict[str, Array], dict[str, float]]:
    tensors: dict[str, Array] = {"pos_embed": graph.pos_embed}
    scalars: dict[str, float] = {"residual_scale": graph.residual_scale}
    for name, linear, _ in graph.linears():
        fields = {f.name: getattr(linear, f.name) for f in dataclasses.fields(linear)}
        bits = fields.pop("bits")
        tensors |= {f"{name}.{field}": array for field, array in fields.items() if array is not None}
        if bits != 8:
            scalars[f"{name}.bits"] = bits
    for name, norm in _norms(graph):
        tensors |= {f"{name}.gamma": norm.gamma, f"{name}.beta": norm.beta}
        scalars |= {f"{name}.shift": norm.shift, f"{name}.eps": norm.eps}
    tensors |= {f"{name}.table": activation.table for name, activation in _activations(graph)}
    for i, block in enumerate(graph.blocks):
        for field in ("score", "context"):
            pair: Requant = getattr(block, field)
            scalars |= {f"blocks.{i}.{field}.multiplier": pair.multiplier, f"blocks.{i}.{field}.shift": pair.shift}
        scalars[f"blocks.{i}.score_shift"] = block.score_shift
    for task, head in graph.heads.items():
        scalars[f"heads.{task}.output_scale"] = head.output_scale
    tensors |= {f"scale.{name}": np.asarray(scale, np.float32) for name, scale in graph.scales.items()}
    tensors |= {f"{_USE}{name}": np.asarray(use, np.float32) for name, use in graph.expert_use.items()}
    return {name: np.ascontiguousarray(array) for name, array in tensors.items()}, scalars


def positive_scale(value: object, name: str) -> float:
    """``value`` if it is a float32's size and above 0.

    Raises:
        GraphError: it is not
    """
    if not isinstance(value, float) or not _SMALLEST_SCALE <= value <= 1 / _SMALLEST_SCALE:
        _refuse(f"{name} must be positive and finite, not {checks.shown(value)}; {REMEDY}")
    return value


class _Builder:
    """Takes checked pieces of a graph out of flat tensors and scalars."""

    def __init__(self, tensors: dict[str, Array], scalars: dict[str, Any]) -> None:
        self.tensors, self.scalars = tensors, scalars

    def array(self, name: str, dtype: type, shape: tuple[int, ...], low: int, high: int) -> Array:
        array = self.tensors.pop(name)
        if array.dtype != dtype or array.shape != shape:
            wanted = f"{np.dtype(dtype).name} {list(shape)}"
            _refuse(f"tensor {name} must be {wanted}, not {array.dtype.name} {list(array.shape)}; {REMEDY}")
        if array.size and not low <= int(array.min()) <= int(array.max()) <= high:
            _refuse(f"tensor {name} must lie in {low}..{high}; {REMEDY}")
        return array

    def integer(self, name: str, low: int, high: int) -> int:
        return checks.integer(self.scalars.pop(name), name, low, high)

    def scale(self, name: str) -> float:
        return positive_scale(self.scalars.pop(name), name)

    def linear(self, name: str, outputs: int, inputs: int, has_activation: bool = False) -> IntegerLinear:
        limit, shift = ACCUMULATOR_LIMIT - 1, f"{name}.activation_shift"
        return IntegerLinear(
            self.array(f"{name}.weight", np.int8, (outputs, inputs), -127, 127),
            self.array(f"{name}.bias", np.int32, (outputs,), -limit, limit),
            self.array(f"{name}.multiplier", np.uint16, (outputs,), 0, 65535),
            self.array(f"{name}.shift", np.uint8, (outputs,), 0, MAX_SHIFT),
            self.array(shift, np.uint8, (outputs,), 0, MAX_ACTIVATION_SHIFT) if has_activation else None,
            self.integer(f"{name}.bits", 4, 8) if f"{name}.bits" in self.scalars else 8,
        )

    def norm(self, name: str, dim: int) -> IntegerLayerNorm:
        return IntegerLayerNorm(
            self.array(f"{name}.gamma", np.int16, (dim,), -32767, 32767),
            self.array(f"{name}.beta", np.int32, (dim,), -(2**31) + 1, 2**31 - 1),
            self.integer(f"{name}.shift", 0, 31),
            self.integer(f"{name}.eps", 0, 2**32 - 1),
        )

    def activation(self, name: str) -> Activation:
        return Activation(self.array(f"{name}.activation.table", np.uint8, (ACTIVATION_ENTRIES,), 0, 255))

    def requant(self, name: str) -> Requant:
        return Requant(self.integer(f"{name}.multiplier", 0, 65535), self.integer(f"{name}.shift", 0, MAX_SHIFT))

    def block(self, config: ModelConfig, i: int) -> IntegerBlock:
        name, dim = f"blocks.{i}", config.dim
        common = IntegerBlock(
            norm1=self.norm(f"{name}.norm1", dim),
            qkv=self.linear(f"{name}.qkv", 3 * dim, dim),
            score=self.requant(f"{name}.score"),
            score_shift=self.integer(f"{name}.score_shift", 0, 3),
            context=self.requant(f"{name}.context"),
            proj=self.linear(f"{name}.proj", dim, dim),
            norm2=self.norm(f"{name}.norm2", dim),
            activation=self.activation(name),
        )
        if not config.is_moe(i):
            fc1 = self.linear(f"{name}.fc1", config.mlp_hidden, dim, True)
            return dataclasses.replace(common, fc1=fc1, fc2=self.linear(f"{name}.fc2", dim, config.mlp_hidden))
        hidden, experts = config.expert_hidden, range(config.num_experts)
        return dataclasses.replace(
            common,
            gates={t.name: self.linear(f"{name}.gate.{t.name}", config.num_experts, dim) for t in config.tasks},
            expert_fc1=tuple(self.linear(f"{name}.experts.{e}.fc1", hidden, dim, True) for e in experts),
            expert_fc2=tuple(self.linear(f"{name}.experts.{e}.fc2", dim, hidden) for e in experts),
        )

    def head(self, config: ModelConfig, task: TaskConfig) -> IntegerHead:
        name, scale = f"heads.{task.name}", self.scale(f"heads.{task.name}.output_scale")
        if not task.head_hidden:
            return IntegerHead(self.linear(name, task.head_outputs, config.dim), scale)
        fc1 = self.linear(f"{name}.fc1", task.head_hidden, config.dim, True)
        out = self.linear(name, task.head_outputs, task.head_hidden)
        return IntegerHead(out, scale, fc1, self.activation(name))


def _expert_use(config: ModelConfig, tensors: dict[str, Array]) -> dict[str, Array]:
    """Takes what was measured of each gate's choices, if anything was."""
    use = {name.removeprefix(_USE): tensors.pop(name) for name in list(tensors) if name.startswith(_USE)}
    gates = {f"blocks.{i}.{task.name}" for i in range(config.depth) if config.is_moe(i) for task in config.tasks}
    for name, share in use.items():
        if name not in gates:
            _refuse(f"tensor {_USE}{name} is of no gate; {REMEDY}")
        fits = share.dtype == np.float32 and share.shape == (config.num_experts,)
        if not fits or not ((share >= 0) & (share <= 1)).all():
            _refuse(f"tensor {_USE}{name} must be float32 [{config.num_experts}] in 0..1; {REMEDY}")
    return use


def _unflatten(config: ModelConfig, tensors: dict[str, Array], scalars: dict[str, Any]) -> IntegerGraph:
    scales = {name.removeprefix("scale."): tensors.pop(name) for name in list(tensors) if name.startswith("scale.")}
    for name, scale in scales.items():
        if scale.dtype != np.float32 or not (np.isfinite(scale).all() and (scale > 0).all()):
            _refuse(f"scale of {name} must be positive and finite; {REMEDY}")
    use = _expert_use(config, tensors)
    builder = _Builder(tensors, scalars)
    tokens = (config.num_tokens, config.dim)
    graph = IntegerGraph(
        config=config,
        residual_scale=builder.scale("residual_scale"),
        pos_embed=builder.array("pos_embed", np.int16, tokens, -32767, 32767),
        patch_embed=builder.linear("patch_embed", config.dim, config.patch_inputs),
        blocks=tuple(builder.block(config, i) for i in range(config.depth)),
        norm=builder.norm("norm", config.dim),
        heads={task.name: builder.head(config, task) for task in config.tasks},
        scales=scales,
        expert_use=use,
    )
    for what, rest in (("tensors", tensors), ("scalars", scalars)):
        if rest:
            _refuse(f"the graph has unexpected {what} {sorted(rest)[:3]}; {REMEDY}")
    graph.bound_check()
    return graph
