"""The trace table of a program, checked when a bundle is loaded: which command completes which part of which tensor.

Whoever compares a run with the reference stops where the table says and reads what the command wrote, so each entry
is held against its command and against the tensor's shape in the reference.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from edgemoe.bundle.fields import Ints, ProgramFields
from edgemoe.bundle.parts import Joined
from edgemoe.bundle.program import Checked
from edgemoe_hw.spec.config import AcceleratorConfig
from edgemoe_hw.spec.isa import ENGINES, Memory, Mode, Opcode
from edgemoe_models.config import ModelConfig
from edgemoe_models.storage import checks
from edgemoe_models.storage.checks import FieldError, shown

__all__ = ["check_trace"]

_LARGEST = 1 << 32
_COLUMNS = ("command", "engine", "completion", "token", "tokens", "channel", "channels", "head", "expert", "sequence")
#: Tensors by kind, and what must have written them: opcode, and a MATMUL's mode.
_WRITERS: dict[str, tuple[tuple[Opcode, Mode | None], ...]] = {
    "embed": ((Opcode.MATMUL, Mode.RESIDUAL), (Opcode.LOAD, None)),
    "norm": ((Opcode.LAYERNORM, None),),
    "act": ((Opcode.MATMUL, Mode.ACT),),
    "key": ((Opcode.MATMUL, Mode.KEY),),
    "value": ((Opcode.MATMUL, Mode.VALUE),),
    "score": ((Opcode.MATMUL, Mode.SCORE),),
    "maximum": ((Opcode.MATMUL, Mode.SCORE),),
    "residual": ((Opcode.MATMUL, Mode.RESIDUAL),),
    "hidden": ((Opcode.MATMUL, Mode.ACT),),
    "queue": ((Opcode.MATMUL, Mode.GATE),),
}
_KINDS = {kind: number for number, kind in enumerate(_WRITERS)}


def _tensors(config: AcceleratorConfig, model: ModelConfig, task: str) -> dict[str, tuple[str, int, int]]:
    """Kind, rows and channels of each tensor that a program of ``task`` may trace; heads are padded."""
    tokens, dim = model.num_tokens, model.dim
    padded = model.heads * -(-model.head_dim // config.lanes_k) * config.lanes_k
    info = model.task(task)
    rows, channels = model.device_outputs(task)
    tensors = {"embed": ("embed", tokens, dim)}
    if not info.is_finished_by_host:
        tensors["norm"] = ("norm", rows, dim)
        tensors[f"heads.{task}"] = ("residual", rows, channels)
    if info.head_hidden:
        tensors[f"heads.{task}.hidden"] = ("act", rows, info.head_hidden)
    for block in range(model.depth):
        shapes = {
            "norm1": ("norm", tokens, dim),
            "q": ("act", tokens, padded),
            "k": ("key", tokens, padded),
            "v": ("value", tokens, padded),
            "scores": ("score", tokens, tokens),
            "score_max": ("maximum", tokens, 1),
            "context": ("act", tokens, padded),
            "residual1": ("residual", tokens, dim),
            "norm2": ("norm", tokens, dim),
            "residual2": ("residual", tokens, dim),
        }
        if model.is_moe(block):
            shapes |= dict.fromkeys(("queues", "gate_scores"), ("queue", tokens, 1))
            shapes |= {
                f"experts.{expert}.hidden": ("hidden", tokens, model.expert_hidden)
                for expert in range(model.num_experts)
            }
        else:
            shapes["hidden"] = ("act", tokens, model.mlp_hidden)
        tensors |= {f"blocks.{block}.{name}": shape for name, shape in shapes.items()}
    return tensors


def check_trace(parts: Any, program: Checked, config: AcceleratorConfig, model: ModelConfig, joined: Joined) -> None:
    """Hold every entry against its command and its tensor.

    Args:
        parts: the table, as it was read: lists of a name and ten integers
        program: checked
        config, model, joined: which tensors there are, and their shapes; each sequence of ``joined`` has its own

    Raises:
        FieldError: names the first entry that is wrong
    """
    sequences = len(joined.sequences)
    table = checks.items(parts, "trace", 0, program.fields.count * (2 * model.num_experts + 1 + sequences))
    if not table:
        return
    names, columns = _columns(table)
    whose = columns["sequence"].tolist()
    if not 0 <= min(whose) <= max(whose) < sequences:
        raise FieldError(f"trace must be of sequences 0..{sequences - 1}")
    tensors = [_tensors(config, model, task) for _, task in joined.sequences]
    numbered = [(number, name) for number, of_task in enumerate(tensors) for name in of_task]
    order = {key: place for place, key in enumerate(numbered)}
    places = [order.get(key, -1) for key in zip(whose, names, strict=True)]
    if -1 in places:
        number = places.index(-1)
        task = joined.sequences[whose[number]].task
        raise FieldError(f"trace[{number}] is of {shown(names[number])}, which task {task} does not have")
    shapes = np.array([(_KINDS[kind], *shape) for of_task in tensors for kind, *shape in of_task.values()])
    kinds, rows, channels = shapes.T[:, places]
    rows = np.where(kinds == _KINDS["hidden"], sequences * rows, rows)  # queued tokens of all of them
    wrong = _wrong(columns, kinds, (rows, channels), program, model, config.epilogue_lanes)
    for reason, bad in wrong.items():
        if bad.any():
            number = int(np.argmax(bad))
            raise FieldError(f"trace[{number}] ({names[number]}) {reason}: {table[number][1:]}")


def _columns(table: list[Any]) -> tuple[list[str], dict[str, Ints]]:
    """The table's names, and its numbers by column; exact types."""
    width = len(_COLUMNS) + 1
    if set(map(type, table)) != {list} or set(map(len, table)) != {width}:
        raise FieldError(f"trace must have entries of a name and {width - 1} integers")
    names = [part[0] for part in table]
    numbers = list(itertools.chain.from_iterable(table))
    del numbers[::width]
    if set(map(type, names)) != {str} or set(map(type, numbers)) != {int}:
        raise FieldError(f"trace must have entries of a name and {width - 1} integers")
    if not -1 <= min(numbers) <= max(numbers) <= _LARGEST:
        raise FieldError(f"trace must have integers in -1..{_LARGEST}")
    values = np.array(numbers, np.int64).reshape(len(table), -1)
    return names, dict(zip(_COLUMNS, values.T, strict=True))


def _wrong(
    c: dict[str, Ints], kinds: Ints, shape: tuple[Ints, Ints], program: Checked, model: ModelConfig, lanes: int
) -> dict[str, Any]:
    """Which entries are wrong, by what is wrong with them."""
    fields, (rows, channels) = program.fields, shape
    place = c["command"] + 1
    outside = (c["command"] < 0) | (place >= fields.count - 1)
    place = np.where(outside, 0, place)
    opcode = fields.opcodes[place]
    engine = np.array([ENGINES.get(Opcode(number), -1) if number else -1 for number in range(max(Opcode) + 1)])[opcode]
    mode, written_tokens, written_channels = _written(fields, lanes, model)
    writers = np.zeros((len(_KINDS), max(Opcode) + 1, len(Mode) + 1), bool)
    for kind, pairs in _WRITERS.items():
        for writer, how in pairs:
            writers[_KINDS[kind], writer, len(Mode) if how is None else how] = True
    matmuls = fields.of(Opcode.MATMUL)
    scattered = np.zeros(fields.count, bool)  # to the tokens of all sequences, of which an entry has one
    scattered[matmuls.numbers] = matmuls["scatter"] != 0
    whole = (kinds == _KINDS["queue"]) | (kinds == _KINDS["maximum"])
    of_head = (kinds == _KINDS["score"]) | (kinds == _KINDS["maximum"])
    of_expert = (kinds == _KINDS["queue"]) | (kinds == _KINDS["hidden"])
    heads, experts = np.where(of_head, model.heads, 0), np.where(of_expert, model.num_experts, 0)
    low_head, low_expert = np.where(of_head, 0, -1), np.where(of_expert, 0, -1)
    end, last = c["token"] + c["tokens"], c["channel"] + c["channels"]
    return {
        "names a command that there is not": outside,
        "is not of its command's engine": c["engine"] != engine,
        "is complete at another count": c["completion"] != program.counts[np.maximum(engine, 0), place] + 1,
        "is of a command that writes something else": ~writers[kinds, opcode, mode[place]],
        "is outside its tensor": (c["token"] < 0)
        | (c["tokens"] < 1)
        | (end > rows)
        | (c["channel"] < 0)
        | (c["channels"] < 1)
        | (last > channels),
        "is not what its command writes": ~whole
        & ~((kinds == _KINDS["residual"]) & scattered[place])
        & (
            # A LOAD is traced for tokens before the patches alone, to which nothing is added.
            np.where(
                opcode == Opcode.LOAD,
                (c["tokens"] > written_tokens[place]) | (end > model.prefix_tokens),
                c["tokens"] != written_tokens[place],
            )
            | (c["channels"] > written_channels[place])
        ),
        "is of a head or expert that there is not": (c["head"] < low_head)
        | (c["head"] >= np.maximum(heads, low_head + 1))
        | (c["expert"] < low_expert)
        | (c["expert"] >= np.maximum(experts, low_expert + 1)),
    }


def _written(fields: ProgramFields, lanes: int, model: ModelConfig) -> tuple[Ints, Ints, Ints]:
    """Mode (or their number, where there is none), tokens and channels that each command writes."""
    mode = np.full(fields.count, len(Mode))
    tokens, channels = np.zeros(fields.count, np.int64), np.zeros(fields.count, np.int64)
    matmuls, norms, loads = (fields.of(opcode) for opcode in (Opcode.MATMUL, Opcode.LAYERNORM, Opcode.LOAD))
    mode[matmuls.numbers] = matmuls["mode"]
    tokens[matmuls.numbers], channels[matmuls.numbers] = matmuls["tokens"], matmuls["channels"]
    tokens[norms.numbers], channels[norms.numbers] = norms["tokens"], norms["dim"]
    stride = -(-model.dim // lanes)
    tokens[loads.numbers] = loads["rows"] // stride
    channels[loads.numbers] = np.where(loads["memory"] == Memory.RESIDUAL, loads["rows"] * lanes, 0)
    return mode, tokens, channels
