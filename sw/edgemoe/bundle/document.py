"""A bundle's document: the JSON beside its tensors, written from its parts and read with exact types and ranges."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from edgemoe.layout import OutputPart
from edgemoe_hw.spec.constants import MAX_EXPERTS
from edgemoe_models.storage import checks
from edgemoe_models.storage.checks import FieldError

__all__ = ["JointTable", "Phase", "TaskTable", "read_joint", "read_options", "read_task", "write_joint", "write_task"]

_MOST_BYTES = 1 << 32  # offsets in commands have 32 bits
_MOST_CYCLES = 1 << 40
_MOST_MACS = 1 << 48
_MOST_PARTS = 1 << 16  # no more than commands
_MOST_OPTIONS = 64
_MOST_JOINT = 64  # programs of several tasks or images
_MOST_SEQUENCES = 64  # of one
_WORDS = (("expert_prefetch", "off"), ("expert_prefetch", "auto"))
_Table = TypeVar("_Table")


@dataclasses.dataclass(frozen=True)
class Phase:
    """One phase of an inference.

    Attributes:
        name: ``embed``, ``blocks.{i}.attention``, ``blocks.{i}.mlp`` or ``.moe``, ``head``
        macs: multiply-accumulates that the model needs at least, whatever the image, without padding
        bytes_read: bytes of DRAM that it has to read, likewise
        bytes_written: bytes of DRAM that it has to write, likewise
        expert_macs: on top for each queued token (tokens * top_k of them)
        expert_bytes: on top for each expert that the image uses
        prefetched: bytes that are fetched for each expert ahead of the gate, whether the image uses it or not; empty
            where there are none
        matmuls: MATMULs that have finished when the phase has
        estimated_cycles: of the analytic model
    """

    name: str
    macs: int
    bytes_read: int
    bytes_written: int
    expert_macs: int
    expert_bytes: int
    prefetched: tuple[int, ...]
    matmuls: int
    estimated_cycles: int


_PHASE_LIMITS = {
    "macs": _MOST_MACS,
    "bytes_read": _MOST_BYTES,
    "bytes_written": _MOST_BYTES,
    "expert_macs": _MOST_MACS,
    "expert_bytes": _MOST_BYTES,
    "matmuls": 1 << 16,
    "estimated_cycles": _MOST_CYCLES,
}


@dataclasses.dataclass(frozen=True)
class TaskTable:
    """What the document says of a task, by the names of ``bundle.Task``."""

    outputs: tuple[OutputPart, ...]
    output_bytes: int
    output_rows: int
    output_channels: int
    output_scale: float
    phases: tuple[Phase, ...]
    load_bytes: int


@dataclasses.dataclass(frozen=True)
class JointTable:
    """What the document says of a program of several token sequences, by the names of ``bundle.Joint``; ``tasks`` and
    ``images`` are its ``joined``'s."""

    tasks: tuple[str, ...]
    images: int
    outputs: tuple[tuple[OutputPart, ...], ...]
    output_bytes: int
    phases: tuple[Phase, ...]
    load_bytes: int


def _names(table: type) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(table))


def write_task(task: Any) -> dict[str, Any]:
    """The document's entry of a task."""
    values = {name: getattr(task, name) for name in _names(TaskTable)}
    values["outputs"] = [part.to_list() for part in task.outputs]
    values["phases"] = [dataclasses.asdict(phase) for phase in task.phases]
    return values


def write_joint(joint: Any) -> dict[str, Any]:
    """The document's entry of a program of several token sequences."""
    return {
        "tasks": list(joint.joined.tasks),
        "images": joint.joined.images,
        "outputs": [[part.to_list() for part in parts] for parts in joint.outputs],
        "output_bytes": joint.output_bytes,
        "phases": [dataclasses.asdict(phase) for phase in joint.phases],
        "load_bytes": joint.load_bytes,
    }


def read_task(value: object, name: str) -> TaskTable:
    """A task's entry.

    Raises:
        FieldError: names the first field of a wrong type, or beyond what any model has
    """
    fields = checks.record(value, name, _names(TaskTable))
    return TaskTable(
        _parts(fields["outputs"], f"{name}.outputs"),
        checks.integer(fields["output_bytes"], f"{name}.output_bytes", 1, _MOST_BYTES),
        checks.integer(fields["output_rows"], f"{name}.output_rows", 1, 1 << 16),
        checks.integer(fields["output_channels"], f"{name}.output_channels", 1, 1 << 20),
        checks.number(fields["output_scale"], f"{name}.output_scale"),
        _phases(fields["phases"], f"{name}.phases"),
        checks.integer(fields["load_bytes"], f"{name}.load_bytes", 0, _MOST_MACS),
    )


def read_joint(value: object) -> list[JointTable]:
    """The entries of all programs of several token sequences; raises as ``read_task``."""
    return [
        _joint(entry, f"joint[{number}]") for number, entry in enumerate(checks.items(value, "joint", 0, _MOST_JOINT))
    ]


def _joint(value: object, name: str) -> JointTable:
    fields = checks.record(value, name, _names(JointTable))
    tasks = checks.items(fields["tasks"], f"{name}.tasks", 1, _MOST_SEQUENCES)
    images = checks.integer(fields["images"], f"{name}.images", 1, _MOST_SEQUENCES)
    count = len(tasks) * images
    outputs = checks.items(fields["outputs"], f"{name}.outputs", count, count)
    return JointTable(
        tuple(checks.text(task, f"{name}.tasks[{number}]") for number, task in enumerate(tasks)),
        images,
        tuple(_parts(parts, f"{name}.outputs[{number}]") for number, parts in enumerate(outputs)),
        checks.integer(fields["output_bytes"], f"{name}.output_bytes", 1, _MOST_BYTES),
        _phases(fields["phases"], f"{name}.phases"),
        checks.integer(fields["load_bytes"], f"{name}.load_bytes", 0, _MOST_MACS),
    )


def _parts(value: object, name: str) -> tuple[OutputPart, ...]:
    parts = checks.items(value, name, 1, _MOST_PARTS)
    return tuple(_part(part, f"{name}[{number}]") for number, part in enumerate(parts))


def _phases(value: object, name: str) -> tuple[Phase, ...]:
    phases = checks.items(value, name, 1, 256)
    return tuple(_phase(phase, f"{name}[{number}]") for number, phase in enumerate(phases))


def _part(value: object, name: str) -> OutputPart:
    numbers = checks.items(value, name, 6, 6)
    low = dict.fromkeys(("tokens", "channels", "stride"), 1)
    return OutputPart(
        *(
            checks.integer(number, f"{name}.{field}", low.get(field, 0), _MOST_BYTES)
            for number, field in zip(numbers, _names(OutputPart), strict=True)
        )
    )


def _phase(value: object, name: str) -> Phase:
    fields = checks.record(value, name, _names(Phase))
    label = checks.text(fields["name"], f"{name}.name")
    prefetched = checks.items(fields["prefetched"], f"{name}.prefetched", 0, MAX_EXPERTS)
    return Phase(
        label,
        prefetched=tuple(
            checks.integer(size, f"{name}.prefetched[{number}]", 0, _MOST_BYTES)
            for number, size in enumerate(prefetched)
        ),
        **{key: checks.integer(fields[key], f"{name}.{key}", 0, most) for key, most in _PHASE_LIMITS.items()},
    )


def read_options(value: object) -> Mapping[str, bool | int | float | str]:
    """The compiler's options: names, and numbers or one of few words, for reports only."""
    options = checks.record(value, "options", (), others=True)
    if len(options) > _MOST_OPTIONS:
        raise FieldError(f"options must be at most {_MOST_OPTIONS}, not {len(options)}")
    for name, option in options.items():
        checks.text(name, "a name of options", 40)
        if type(option) is not bool and (name, option) not in _WORDS:
            checks.number(option, f"options.{name}", -1e18, 1e18)
    return options
