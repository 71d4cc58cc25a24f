"""Cycles of a model on a configuration: the compiler's analytic estimate, and a floor under it that costs nothing."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import edgemoe.compiler
from edgemoe.compiler import compile_graph
from edgemoe.compiler.fits import zeros_graph
from edgemoe.workloads import named_graphs, read_metadata
from edgemoe_hw.spec.config import AcceleratorConfig
from edgemoe_models.checkpoint import read_shape
from edgemoe_models.config import PRESETS, ModelConfig
from edgemoe_models.graph.file import is_graph_file, read_graph
from edgemoe_models.storage.cache import cache_root, cached
from edgemoe_models.storage.file_kind import CHECKPOINT_KEY, describe
from edgemoe_models.storage.json_text import read_json

__all__ = ["Workload", "estimated_cycles", "floor_cycles", "milliseconds", "workload"]

_INT4 = 0.5  # bytes of a weight


@dataclass(frozen=True)
class Workload:
    """A model as the explorer sees it: its shape, and the bits of its experts' weights.

    Attributes:
        given: what ``--model`` was: a preset's name or a file
        shape: of the model
        expert_bits: 8 or 4
    """

    given: str
    shape: ModelConfig
    expert_bits: int = 8

    @property
    def first_task(self) -> ModelConfig:
        """The shape with its first task only: others take as long but for their heads."""
        return dataclasses.replace(self.shape, tasks=self.shape.tasks[:1])


def workload(model: str, expert_bits: int = 8) -> Workload:
    """The shape of a preset, a packaged graph, an integer graph's file or a float checkpoint; nothing is quantized.

    Args:
        model: name or file
        expert_bits: 8 or 4, for what is not quantized yet

    Raises:
        ValueError: it is none of these, or cannot be read
    """
    if model in PRESETS:
        return Workload(model, PRESETS[model], expert_bits)
    path = named_graphs().get(model, Path(model))
    if not path.is_file():
        names = ", ".join([*PRESETS, *named_graphs()])
        raise ValueError(f"model must be one of {names}, or a checkpoint or graph file, not {model!r}")
    metadata = read_metadata(path)
    if is_graph_file(metadata):
        graph = read_graph(path)
        return Workload(model, graph.config, graph.expert_bits)
    if CHECKPOINT_KEY not in metadata:
        raise ValueError(f"{path} {describe(path)}")
    return Workload(model, read_shape(metadata), expert_bits)


def estimated_cycles(load: Workload, config: AcceleratorConfig, cache: Path | None = None) -> int:
    """Cycles of the model's first task by the compiler's schedule; kept, since a large model takes seconds.

    Args:
        load: the model
        config: deep enough for it
        cache: folder that keeps estimates; default: ``explorer`` in the cache folder

    Raises:
        CompileError: the model does not fit
    """
    folder = cache_root() / "explorer" if cache is None else cache

    def make() -> int:
        compiled = compile_graph(zeros_graph(load.first_task, load.expert_bits), config)
        return compiled.programs[load.first_task.tasks[0].name].estimated_cycles

    return cached(folder / f"{_key(load, config)}.json", _read, make, lambda cycles: json.dumps(cycles).encode())


def _read(path: Path) -> int:
    """A kept estimate; ValueError if the file is torn."""
    found = read_json(path)
    if not isinstance(found, int) or isinstance(found, bool) or found <= 0:
        raise ValueError(f"{path} is no number of cycles")
    return found


def _key(load: Workload, config: AcceleratorConfig) -> str:
    """Changes with the shape, what decides time in a configuration, and the compiler's sources."""
    text = json.dumps([load.first_task.to_dict(), load.expert_bits, config.content_hash, config.dram_latency])
    return hashlib.sha256(f"{text} {config.dram_bytes_per_cycle} {_compiler()}".encode()).hexdigest()[:24]


@functools.lru_cache(maxsize=1)
def _compiler() -> str:
    digest = hashlib.sha256()
    for source in sorted(Path(edgemoe.compiler.__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()


def floor_cycles(load: Workload, config: AcceleratorConfig) -> float:
    """No schedule takes fewer: all of the array's steps with their padding, or all bytes of weights, whichever is more.

    Experts are taken to be chosen evenly, as in the estimate.
    """
    steps = sum(count * _steps(config, *product) for count, product in _products(load.first_task))
    return max(steps, _weight_bytes(load) / config.dram_bytes_per_cycle)


def _steps(config: AcceleratorConfig, tokens: int, inputs: int, outputs: int) -> int:
    """Cycles of one matrix product: a tile takes a step for each row, and at least as many as its groups to drain."""
    tiles = -(-outputs // config.lanes_n)
    return tokens * tiles * max(-(-inputs // config.lanes_k), config.epilogue_cycles)


def _products(model: ModelConfig) -> Iterator[tuple[int, tuple[int, int, int]]]:
    """``(how often, (tokens, inputs, outputs))`` of all matrix products."""
    tokens, dim, heads, width = model.num_tokens, model.dim, model.heads, model.head_dim
    yield 1, (model.num_patches, model.patch_inputs, dim)
    yield model.depth, (tokens, dim, 3 * dim)
    yield model.depth * heads, (tokens, width, tokens)
    yield model.depth * heads, (tokens, tokens, width)
    yield model.depth, (tokens, dim, dim)
    blocks = sum(model.is_moe(index) for index in range(model.depth))
    for count, rows, hidden in (
        (model.depth - blocks, tokens, model.mlp_hidden),
        (blocks, tokens * model.top_k, model.expert_hidden),
    ):
        if count and rows:
            yield count, (rows, dim, hidden)
            yield count, (rows, hidden, dim)
    if blocks:
        yield blocks, (tokens, dim, model.num_experts)


def _weight_bytes(load: Workload) -> float:
    """Of one image: every weight once, of as many experts as a balanced gate uses."""
    model = load.shape
    dim, blocks = model.dim, sum(model.is_moe(index) for index in range(model.depth))
    used = min(model.num_experts, model.num_tokens * model.top_k)
    expert = _INT4 if load.expert_bits == 4 else 1.0
    dense = (model.depth - blocks) * 2 * dim * model.mlp_hidden
    experts = blocks * used * 2 * dim * model.expert_hidden * expert
    return model.patch_inputs * dim + model.depth * 4 * dim * dim + dense + experts


def milliseconds(cycles: float, config: AcceleratorConfig) -> float:
    """At the configuration's assumed clock."""
    return cycles / config.assumed_clock_mhz / 1000
