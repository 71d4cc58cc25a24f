"""What holds between the parts of a bundle, checked when it is loaded: tables, programs, model and integer graph.

The numbers that a host allocates and reads by are recomputed from the model and the programs, never believed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgemoe.bundle.fields import ProgramError
from edgemoe.bundle.parts import Joined, Joint, Parts, Task
from edgemoe.bundle.program import Checked, Limits, check_program
from edgemoe.bundle.trace import check_trace
from edgemoe.layout import OutputPart, align
from edgemoe_models.graph.file import read_outline
from edgemoe_models.storage.checks import FieldError

__all__ = ["check_contents", "phase_names"]


def phase_names(depth: int, moe_blocks: Sequence[int]) -> list[str]:
    """Names of a program's phases, in order, for a model of ``depth`` blocks of which some have experts."""
    names = ["embed"]
    for block in range(depth):
        names += [f"blocks.{block}.attention", f"blocks.{block}.{'moe' if block in moe_blocks else 'mlp'}"]
    return [*names, "head"]


def check_contents(bundle: Parts) -> None:
    """Hold a bundle's parts against each other.

    Raises:
        ValueError: names the part that contradicts another; of a program, the command
    """
    model, config = bundle.model, bundle.config
    for what, value, limit in (
        ("channels", model.dim, config.max_dim),
        ("tokens", model.num_tokens, config.max_tokens),
        ("experts", model.num_experts, config.max_experts),
        ("experts a token", model.top_k, config.max_top_k),
    ):
        if value > limit:
            raise FieldError(f"model {model.name} has {value} {what}, but config {config.name} allows {limit}")
    rows = model.num_patches * -(-model.patch_inputs // config.lanes_k)
    masters = config.load_masters("ACT")
    needed = masters * align(rows * config.lanes_k // masters)
    if bundle.input_bytes != needed:
        raise FieldError(f"input_bytes is {bundle.input_bytes}, but an image of the model needs {needed}")
    if list(bundle.tasks) != [task.name for task in model.tasks]:
        raise FieldError(f"tasks must be those of the model, not {', '.join(bundle.tasks)}")
    _check_graph(bundle)
    for task in bundle.tasks.values():
        try:
            _check_task(bundle, task)
        except ProgramError as error:
            raise ProgramError(f"program of task {task.name}: {error}") from None
        except FieldError as error:
            raise FieldError(f"tasks.{task.name}.{error}") from None
    for number, joint in enumerate(bundle.joint):
        try:
            _check_joint(bundle, joint)
        except ProgramError as error:
            raise ProgramError(f"program of {joint.joined}: {error}") from None
        except FieldError as error:
            raise FieldError(f"joint[{number}].{error}") from None


def _check_graph(bundle: Parts) -> None:
    """The graph's own model and output scales are the bundle's; all of it is checked where it is used."""
    config, scalars = read_outline(bundle.graph_file.tobytes())
    if config != bundle.model:
        raise FieldError("model differs from the model of the integer graph")
    for name, task in bundle.tasks.items():
        if scalars.get(f"heads.{name}.output_scale") != task.output_scale:
            raise FieldError(f"tasks.{name}.output_scale is not that of the integer graph")


def _check_task(bundle: Parts, task: Task) -> None:
    model = bundle.model
    rows, channels = model.device_outputs(task.name)
    for name, found, wanted in (
        ("output_rows", task.output_rows, rows),
        ("output_channels", task.output_channels, channels),
    ):
        if found != wanted:
            raise FieldError(f"{name} is {found}, but the model's head has {wanted}")
    _check_outputs([(task.outputs, rows, channels)], task.output_bytes)
    _check_program(bundle, task, Joined((task.name,)), task.outputs)


def _check_joint(bundle: Parts, joint: Joint) -> None:
    model, joined = bundle.model, joint.joined
    known, found = [task.name for task in model.tasks], list(joined.tasks)
    if found != [name for name in known if name in found]:
        raise FieldError(f"tasks must be of {', '.join(known)}, in this order, not {', '.join(found)}")
    if len(joined.sequences) < 2:
        raise FieldError("tasks and images are those of a single task's own program")
    if [other.joined for other in bundle.joint].count(joined) > 1:
        raise FieldError("tasks and images are those of another program too")
    shapes = [model.device_outputs(task) for _, task in joined.sequences]
    _check_outputs([(parts, *shape) for parts, shape in zip(joint.outputs, shapes, strict=True)], joint.output_bytes)
    _check_program(bundle, joint, joined, [part for parts in joint.outputs for part in parts])


def _check_program(bundle: Parts, task: Task | Joint, joined: Joined, outputs: Sequence[OutputPart]) -> None:
    """The program and its tables, whatever it is of."""
    model = bundle.model
    names = phase_names(model.depth, [block for block in range(model.depth) if model.is_moe(block)])
    if [phase.name for phase in task.phases] != names:
        raise FieldError(f"phases must be {names[0]}, {names[1]}, ... {names[-1]}: {len(names)} of them, in this order")
    sizes = (bundle.data.size, joined.images * bundle.input_bytes, task.output_bytes)
    limits = Limits(bundle.config, model, *sizes, len(task.phases), joined)
    checked = check_program(task.program, limits)
    _check_tables(bundle, task, joined, outputs, checked)
    check_trace(task.trace, checked, bundle.config, model, joined)


def _check_tables(
    bundle: Parts, task: Task | Joint, joined: Joined, outputs: Sequence[OutputPart], checked: Checked
) -> None:
    """What the document says of the program is what the program does."""
    if task.load_bytes != checked.load_bytes:
        raise FieldError(f"load_bytes is {task.load_bytes}, but the program's LOADs read {checked.load_bytes}")
    last = 0
    experts = bundle.model.num_experts
    for number, (phase, matmuls) in enumerate(zip(task.phases, checked.matmuls, strict=True)):
        of_host = all(bundle.model.task(name).is_finished_by_host for name in joined.tasks)
        only_stores = number == len(task.phases) - 1 and of_host
        if phase.matmuls != matmuls or (matmuls <= last and not only_stores):
            raise FieldError(f"phases[{number}].matmuls is {phase.matmuls}, but the program has {matmuls} by then")
        last = matmuls
        is_moe = phase.name.endswith(".moe")
        if not is_moe and (phase.expert_macs or phase.expert_bytes or phase.prefetched):
            raise FieldError(f"phases[{number}] has experts' MACs or bytes, but {phase.name} has no experts")
        if phase.prefetched and len(phase.prefetched) != experts:
            raise FieldError(f"phases[{number}].prefetched has {len(phase.prefetched)} items for {experts} experts")
        if (size := sum(phase.prefetched)) > checked.certain_bytes[number]:
            raise FieldError(
                f"phases[{number}].prefetched has {size} bytes, but the program's LOADs without a condition read "
                f"{checked.certain_bytes[number]}"
            )
    for number, part in enumerate(outputs):
        end = part.offset + 2 * part.tokens * part.stride
        inside = (checked.stored[:, 0] <= part.offset) & (checked.stored[:, 1] >= end)
        if not inside.any():
            raise FieldError(f"outputs[{number}] is at bytes {part.offset} to {end}, which no STORE writes")


def _check_outputs(heads: Sequence[tuple[Sequence[OutputPart], int, int]], output_bytes: int) -> None:
    """The parts lie inside the output, apart from each other, and are each head's rows and channels, each once."""
    for parts, rows, channels in heads:
        seen = np.zeros((rows, channels), bool)
        for number, part in enumerate(parts):
            name = f"outputs[{number}]"
            if part.token + part.tokens > rows or part.channel + part.channels > channels:
                raise FieldError(
                    f"{name} has rows to {part.token + part.tokens} and channels to {part.channel + part.channels} of "
                    f"{rows} x {channels}"
                )
            if part.stride < part.channels or part.offset % 2:
                raise FieldError(
                    f"{name} has stride {part.stride} at offset {part.offset} for {part.channels} channels"
                )
            if _end(part) > output_bytes:
                raise FieldError(f"{name} ends at byte {_end(part)}, beyond output_bytes {output_bytes}")
            place = seen[part.token : part.token + part.tokens, part.channel : part.channel + part.channels]
            if place.any():
                raise FieldError(f"{name} has values that are in an earlier one already")
            place[:] = True
        if not seen.all():
            row, channel = (int(index) for index in np.argwhere(~seen)[0])
            raise FieldError(f"outputs lack channel {channel} of row {row}")
    ordered = sorted((part for parts, _, _ in heads for part in parts), key=lambda part: part.offset)
    for before, after in zip(ordered, ordered[1:], strict=False):
        if _end(before) > after.offset:
            raise FieldError(f"outputs overlap at byte {after.offset}")
    if output_bytes != _end(ordered[-1]):
        raise FieldError(f"output_bytes is {output_bytes}, but the outputs end at byte {_end(ordered[-1])}")


def _end(part: OutputPart) -> int:
    return part.offset + 2 * part.tokens * part.stride
