"""Whether a model fits a configuration, from their shapes alone: before anything is quantized.

What can be written as a formula is, so that all limits are named at once; what depends on how the compiler arranges
weights is found by lowering a network of this shape, of zeros and of few blocks.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from edgemoe.bundle import Joined
from edgemoe.compiler.cuts import HeadParts, balanced_groups, query_groups
from edgemoe.compiler.errors import CompileError, CompilerOptions
from edgemoe.compiler.lowering import Lowered, lower
from edgemoe.compiler.packing import DramImage
from edgemoe.layout import align
from edgemoe_hw.spec import constants
from edgemoe_hw.spec.config import AcceleratorConfig
from edgemoe_models.config import ModelConfig
from edgemoe_models.graph.integer_graph import (
    Activation,
    IntegerBlock,
    IntegerGraph,
    IntegerHead,
    IntegerLayerNorm,
    IntegerLinear,
    Requant,
)

__all__ = ["Shortage", "commands_needed", "fits", "shortages", "zeros_graph"]

MAX_COMMANDS = (1 << constants.COUNT_BITS) - 1
_LARGEST_HEAD = (1 << 10) - 1  # what a command's field holds
_SMALLEST_DIM = 8  # of a LayerNorm
_DEFAULTS = CompilerOptions()


@dataclass(frozen=True)
class Shortage:
    """A limit that a model exceeds.

    Attributes:
        text: what is too large and by how much
        field: the configuration's field that is too small; None where no configuration can be large enough
        need: the least value of that field
    """

    text: str
    field: str | None = None
    need: int = 0


def fits(
    model: ModelConfig,
    config: AcceleratorConfig,
    options: CompilerOptions = _DEFAULTS,
    expert_bits: int = 8,
    joined: Joined | None = None,
) -> list[str]:
    """Everything that keeps a model of this shape from being compiled, one line each; empty when nothing does.

    With ``joined``, the program of these tasks and images, else each task's own.

    Weights can still be refused: accumulators that could overflow depend on their values.
    """
    if found := shortages(model, config, options, joined):
        return [shortage.text for shortage in found]
    try:
        needed = commands_needed(model, config, options, expert_bits, joined)
    except CompileError as error:
        return [str(error)]
    return [
        f"{what} needs {count} commands, the limit is {MAX_COMMANDS}: {count - MAX_COMMANDS} too many"
        for what, count in needed.items()
        if count > MAX_COMMANDS
    ]


def shortages(
    model: ModelConfig,
    config: AcceleratorConfig,
    options: CompilerOptions = _DEFAULTS,
    joined: Joined | None = None,
) -> tuple[Shortage, ...]:
    """The limits that follow from formulas: of the program of ``joined``, or else of each task's own."""
    return (*_counts(model, config), *_queues(model, config, joined), *_scratchpads(model, config, options, joined))


def _places(model: ModelConfig, joined: Joined | None) -> int:
    """Token sequences that are on chip together: without gates, an image's tasks share one until their heads."""
    if joined is None:
        return 1
    return joined.images * (len(joined.tasks) if _has_blocks(model, with_experts=True) else 1)


def _queues(model: ModelConfig, config: AcceleratorConfig, joined: Joined | None) -> Iterator[Shortage]:
    """An expert's queue may get every token of every sequence."""
    tokens = _places(model, joined) * model.num_tokens
    if model.num_tokens < tokens and _has_blocks(model, with_experts=True) and tokens > config.max_tokens:
        text = (
            f"{joined}: {tokens} tokens in all, but {config.name} allows max_tokens = {config.max_tokens}: "
            f"{tokens - config.max_tokens} too many"
        )
        yield Shortage(text, "max_tokens", tokens) if tokens <= constants.MAX_TOKENS else Shortage(text)


def _counts(model: ModelConfig, config: AcceleratorConfig) -> Iterator[Shortage]:
    for what, value, field, largest in (
        ("dim", model.dim, "max_dim", constants.MAX_DIM),
        ("tokens", model.num_tokens, "max_tokens", constants.MAX_TOKENS),
        ("experts", model.num_experts, "max_experts", constants.MAX_EXPERTS),
        ("top_k", model.top_k, "max_top_k", constants.MAX_TOP_K),
    ):
        if value > largest:
            text = f"{model.name} has {what} {value}, but no configuration allows more than {largest}"
            yield Shortage(f"{text}: {value - largest} too many")
        elif value > (limit := getattr(config, field)):
            text = f"{model.name} has {what} {value}, but {config.name} allows {field} = {limit}"
            yield Shortage(f"{text}: {value - limit} too many", field, value)
    if (padded := align(model.head_dim, config.lanes_k)) > _LARGEST_HEAD:
        yield Shortage(
            f"{model.name} has attention heads of {model.head_dim} channels, {padded} with padding to "
            f"{config.lanes_k} lanes; a command can express {_LARGEST_HEAD}: use more heads"
        )
    if model.dim < _SMALLEST_DIM:
        yield Shortage(f"dim must be at least {_SMALLEST_DIM} (LayerNorm), not {model.dim}")


def _scratchpads(
    model: ModelConfig, config: AcceleratorConfig, options: CompilerOptions, joined: Joined | None
) -> Iterator[Shortage]:
    needs = {
        "residual": _residual_rows(model, config, _places(model, joined)),
        "activation": max(_activation_rows(model, config, options, joined)),
        "score": _score_rows(model, config, options),
        "weight": max(_weight_rows(model, config)),
    }
    for memory, (need, what) in needs.items():
        field = "act_depth" if memory == "activation" else f"{memory}_depth"
        depth: int = getattr(config, field)
        if need <= depth:
            continue
        text = f"{what} need {need} rows of the {memory} scratchpad, which has {depth}: {need - depth} too few"
        if need <= constants.MAX_DEPTH:
            yield Shortage(text, field, need)
        else:
            yield Shortage(f"{text}, and no configuration has more than {constants.MAX_DEPTH}")


def _rows(channels: int, lanes: int) -> int:
    return -(-channels // lanes)


def _has_blocks(model: ModelConfig, with_experts: bool) -> bool:
    return any(model.is_moe(i) == with_experts for i in range(min(model.depth, model.moe_every)))


def _residual_rows(model: ModelConfig, config: AcceleratorConfig, places: int) -> tuple[int, str]:
    need = places * model.num_tokens * _rows(model.dim, config.epilogue_lanes)
    return need, f"{places * model.num_tokens} tokens of {model.dim} channels"


def _activation_rows(
    model: ModelConfig, config: AcceleratorConfig, options: CompilerOptions, joined: Joined | None
) -> Iterator[tuple[int, str]]:
    """One tensor of the tokens, and beside it what each step needs."""
    lanes, tokens = config.lanes_k, _places(model, joined) * model.num_tokens
    tensor = tokens * max(_rows(model.dim, lanes), model.heads * _rows(model.head_dim, lanes))
    group = max(group.count for group in balanced_groups(model.num_tokens, options.group_tokens))
    beside = f"beside one tensor of {tokens} tokens, {model.dim} channels"
    yield 2 * tensor, f"two tensors of {tokens} tokens, {model.dim} channels"
    yield tensor + group * _rows(model.patch_inputs, lanes), f"{group} patches of {model.patch_inputs} inputs {beside}"
    if _has_blocks(model, with_experts=False):
        need = tensor + group * _rows(model.mlp_hidden, lanes)
        yield need, f"{group} tokens of {model.mlp_hidden} hidden channels {beside}"
    if _has_blocks(model, with_experts=True):
        need = tensor + tokens * _rows(model.expert_hidden, lanes)
        yield need, f"a full expert queue of {tokens} tokens, {model.expert_hidden} hidden channels, {beside}"
    images, names = (1, _names(model)) if joined is None else (joined.images, joined.tasks)
    for task in map(model.task, names):
        if task.head_hidden:
            of_image = model.num_tokens if task.is_dense else model.head_rows(task.name)[1]
            rows = images * of_image
            need = tensor + rows * _rows(task.head_hidden, lanes)
            yield need, f"{rows} tokens of {task.head_hidden} hidden channels of the head {task.name} {beside}"


def _names(model: ModelConfig) -> list[str]:
    return [task.name for task in model.tasks]


def _score_rows(model: ModelConfig, config: AcceleratorConfig, options: CompilerOptions) -> tuple[int, str]:
    group = max(group.count for group in query_groups(model.num_tokens, config, options))
    return group * _rows(model.num_tokens, config.lanes_k), f"scores of {group} tokens for {model.num_tokens} keys"


def _weight_rows(model: ModelConfig, config: AcceleratorConfig) -> Iterator[tuple[int, str]]:
    """Keys and values with the weights that make them, and the smallest part of each layer by itself."""
    lanes_k, lanes_n, parts = config.lanes_k, config.lanes_n, HeadParts.of(model, config)
    of = "" if parts.unit_heads == model.heads else f" for {parts.unit_heads} of {model.heads} heads"
    what = f"keys and values of {model.num_tokens} tokens{of}, and the weights that make them,"
    yield parts.least_rows, what
    hidden = model.mlp_hidden if _has_blocks(model, with_experts=False) else 0
    widest = max(model.patch_inputs, model.dim, hidden, *(task.head_hidden for task in model.tasks))
    yield _rows(widest, lanes_k), f"{lanes_n} outputs of {widest} inputs"
    if _has_blocks(model, with_experts=True):
        need = _rows(model.num_experts, lanes_n) * _rows(model.dim, lanes_k)
        yield need, f"the gate of {model.num_experts} experts and {model.dim} inputs"


# --- A network of zeros ----------------------------------------------------------------------------------------------


def commands_needed(
    model: ModelConfig,
    config: AcceleratorConfig,
    options: CompilerOptions = _DEFAULTS,
    expert_bits: int = 8,
    joined: Joined | None = None,
) -> dict[str, int]:
    """Commands of each task's program, or of ``joined``'s: three periods of blocks are lowered, the middle one counts
    for the rest.

    Raises:
        CompileError: what lowering refuses
    """
    period = model.moe_every if model.num_experts else 1
    few = dataclasses.replace(model, depth=min(model.depth, 3 * period + model.depth % period))
    image, needed = DramImage(config), {}
    for each in [joined] if joined is not None else [Joined((name,)) for name in _names(model)]:
        lowered = lower(zeros_graph(few, expert_bits), config, options, image, each)
        more = (model.depth - few.depth) // period * _commands_of_blocks(lowered, range(period, 2 * period))
        needed[str(each)] = len(lowered.builder.commands) + 2 + more
    return needed


def _commands_of_blocks(lowered: Lowered, blocks: range) -> int:
    names = tuple(f"blocks.{i}." for i in blocks)
    phases = lowered.builder.phases
    return sum(phases[command.phase].name.startswith(names) for command in lowered.builder.commands)


def _linear(outputs: int, inputs: int, bits: int = 8) -> IntegerLinear:
    zeros = np.zeros(outputs, np.int32)
    weight = np.broadcast_to(np.int8(0), (outputs, inputs))
    return IntegerLinear(weight, zeros, zeros.astype(np.uint16), zeros.astype(np.uint8), bits=bits)


def zeros_graph(model: ModelConfig, expert_bits: int) -> IntegerGraph:
    """A graph of this shape whose numbers are zero: all that the compiler needs to plan and to count cycles."""
    dim, norm = model.dim, _norm(model.dim)
    heads = {}
    for number, task in enumerate(model.tasks):
        hidden = (
            (_linear(task.head_hidden, dim), _activation(model.depth + number)) if task.head_hidden else (None, None)
        )
        heads[task.name] = IntegerHead(_linear(task.head_outputs, task.head_hidden or dim), 1.0, *hidden)
    return IntegerGraph(
        model,
        1.0,
        np.zeros((model.num_tokens, dim), np.int16),
        _linear(dim, model.patch_inputs),
        tuple(_block(model, i, expert_bits) for i in range(model.depth)),
        norm,
        heads,
    )


def _norm(dim: int) -> IntegerLayerNorm:
    return IntegerLayerNorm(np.zeros(dim, np.int16), np.zeros(dim, np.int32), 0, 0)


def _activation(number: int) -> Activation:
    """One that no other is equal to: equal tables are loaded once."""
    table = np.zeros(constants.ACTIVATION_ENTRIES, np.uint8)
    table[0], table[1] = number % 256, number // 256
    return Activation(table)


def _block(model: ModelConfig, i: int, expert_bits: int) -> IntegerBlock:
    dim, hidden, experts = model.dim, model.expert_hidden, range(model.num_experts)
    pair = Requant(1, 0)
    block = IntegerBlock(
        _norm(dim), _linear(3 * dim, dim), pair, 0, pair, _linear(dim, dim), _norm(dim), _activation(i)
    )
    if not model.is_moe(i):
        fc1, fc2 = _linear(model.mlp_hidden, dim), _linear(dim, model.mlp_hidden)
        return dataclasses.replace(block, fc1=fc1, fc2=fc2)
    return dataclasses.replace(
        block,
        gates={task.name: _linear(model.num_experts, dim) for task in model.tasks},
        expert_fc1=tuple(_linear(hidden, dim, expert_bits) for _ in experts),
        expert_fc2=tuple(_linear(dim, hidden, expert_bits) for _ in experts),
    )
