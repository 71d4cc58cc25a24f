"""Requests for inference as they are read, and responses as they are written; every wrong request is refused here."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgemoe.bundle import Bundle, Joined
from edgemoe.runtime.open_inference import (
    BINARY_SIZE,
    ProtocolError,
    TensorInfo,
    input_info,
    join_message,
    output_infos,
    split_message,
)
from edgemoe.runtime.predictions import Prediction
from edgemoe.runtime.remote import ONE_PROGRAM
from edgemoe_models.storage import checks

__all__ = ["InferRequest", "largest_body", "read_request", "write_response"]

_DOCUMENT = 1 << 16  # bytes of a request beside its pictures
_TEXT_OF_A_VALUE = 6  # characters of an element as JSON, with its comma, a space and its share of brackets
_LONGEST_ID = 1000
_LONGEST_WAIT = 1 << 62  # microseconds

RGB = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class InferRequest:
    """What is asked for.

    Attributes:
        images: uint8 [N, H, W, 3]
        outputs: tensors that are wanted, in this order, and of each whether in binary
        tasks: that have to run for them, in the bundle's order
        program: to run exactly this program; None: whatever suits
        id: to be repeated in the response
        timeout: seconds that it may take; None: as long as the server lets it
    """

    images: RGB
    outputs: tuple[tuple[TensorInfo, bool], ...]
    tasks: tuple[str, ...]
    program: Joined | None = None
    id: str | None = None
    timeout: float | None = None


def largest_body(bundle: Bundle, most_images: int) -> int:
    """Bytes that a request may have: its pictures as JSON, which are longer than binary ones."""
    return _DOCUMENT + _TEXT_OF_A_VALUE * input_info(bundle.model).size(most_images)


def read_request(bundle: Bundle, body: bytes, header_length: str | None, most_images: int) -> InferRequest:
    """A request, all of it checked.

    Args:
        body: what was sent
        header_length: the header that says where its JSON ends; None: there is none
        most_images: pictures that it may have

    Raises:
        ProtocolError: it is wrong; one line says what
    """
    document, rest = split_message(body, header_length, largest_body(bundle, most_images))
    try:
        if document is None:  # pixels and nothing else
            return InferRequest(_bare_images(bundle, rest, most_images), _wanted(bundle, {}, True), tuple(bundle.tasks))
        _has_keys(document, "the request", ("inputs",), ("id", "parameters", "outputs"))
        parameters = _parameters(document, "the request", ("tasks", "timeout", "binary_data_output", ONE_PROGRAM))
        is_binary = checks.boolean(parameters.get("binary_data_output", False), "binary_data_output")
        outputs = _wanted(bundle, document, is_binary, _tasks(bundle, parameters.get("tasks")))
        images = _images(bundle, document["inputs"], rest, most_images)
        named = {info.task for info, _ in outputs}
        tasks = tuple(name for name in bundle.tasks if name in named)
        return InferRequest(
            images,
            outputs,
            tasks,
            _program(bundle, tasks, len(images)) if _flag(parameters, ONE_PROGRAM) else None,
            _id(document),
            _timeout(parameters),
        )
    except checks.FieldError as error:
        raise ProtocolError(str(error)) from None


def _has_keys(value: object, name: str, needed: Sequence[str], optional: Sequence[str]) -> None:
    record = checks.record(value, name, needed, others=True)
    if unknown := [key for key in record if key not in (*needed, *optional)]:
        known = ", ".join((*needed, *optional))
        raise checks.FieldError(f"{name} has no field {checks.shown(unknown[0])}; it has {known}")


def _parameters(owner: Mapping[str, Any], name: str, known: Sequence[str]) -> dict[str, Any]:
    """Of a request, an input or an output; what this server would not heed it refuses."""
    parameters = checks.record(owner.get("parameters", {}), f"parameters of {name}", (), others=True)
    if unknown := [key for key in parameters if key not in known]:
        raise checks.FieldError(f"{name} can have no parameter {checks.shown(unknown[0])}, only {', '.join(known)}")
    return parameters


def _flag(parameters: Mapping[str, Any], name: str) -> bool:
    return checks.boolean(parameters.get(name, False), name)


def _id(document: Mapping[str, Any]) -> str | None:
    value = document.get("id")
    if value is not None and (type(value) is not str or len(value) > _LONGEST_ID):
        raise checks.FieldError(f"id must be a string of at most {_LONGEST_ID} characters, not {checks.shown(value)}")
    return value


def _timeout(parameters: Mapping[str, Any]) -> float | None:
    if "timeout" not in parameters:
        return None
    microseconds = checks.integer(parameters["timeout"], "timeout (microseconds)", 0, _LONGEST_WAIT)
    return microseconds / 1e6 or None  # 0: none of its own, as Triton has it


def _tasks(bundle: Bundle, value: object) -> frozenset[str]:
    """What the parameter ``tasks`` says: names with commas between them, or a list; all where it is not given."""
    if value is None:
        return frozenset(bundle.tasks)
    names = value.split(",") if isinstance(value, str) else value
    if type(names) is not list or not names or not all(type(name) is str for name in names):
        raise checks.FieldError(f"tasks must be names of tasks, not {checks.shown(value)}")
    found = frozenset(name.strip() for name in names)
    if unknown := sorted(found - bundle.tasks.keys()):
        raise checks.FieldError(f"this model has no task {checks.shown(unknown[0])}; it has {', '.join(bundle.tasks)}")
    return found


def _wanted(
    bundle: Bundle, document: Mapping[str, Any], is_binary: bool, tasks: frozenset[str] | None = None
) -> tuple[tuple[TensorInfo, bool], ...]:
    """The outputs that a request names, or else all of the tasks that it names."""
    known = {info.name: info for info in output_infos(bundle.model) if tasks is None or info.task in tasks}
    entries = checks.items(document.get("outputs", []), "outputs", 0, len(known))
    if not entries:
        return tuple((info, is_binary) for info in known.values())
    wanted: dict[str, tuple[TensorInfo, bool]] = {}
    for entry in entries:
        _has_keys(entry, "an output", ("name",), ("parameters",))
        name = entry["name"]
        if type(name) is not str or name not in known:
            of_tasks = "this model" if tasks == frozenset(bundle.tasks) else "of its tasks the request"
            raise checks.FieldError(f"{of_tasks} has no output {checks.shown(name)}; it has {', '.join(known)}")
        if name in wanted:
            raise checks.FieldError(f"output {name} is asked for twice")
        parameters = _parameters(entry, f"output {name}", ("binary_data",))
        wanted[name] = known[name], checks.boolean(parameters.get("binary_data", is_binary), "binary_data")
    return tuple(wanted.values())


def _bare_images(bundle: Bundle, pixels: memoryview, most_images: int) -> RGB:
    """Pictures of a body that is nothing else."""
    info = input_info(bundle.model)
    count, left = divmod(len(pixels), info.size(1))
    if left or not 1 <= count <= most_images:
        raise checks.FieldError(
            f"the body must be 1 to {most_images} pictures of {info.size(1)} bytes each, not {len(pixels)} bytes"
        )
    return np.frombuffer(pixels, np.uint8).reshape(count, *info.shape)


def _images(bundle: Bundle, inputs: object, rest: memoryview, most_images: int) -> RGB:
    """The pictures of a request."""
    info = input_info(bundle.model)
    entry = checks.items(inputs, "inputs", 1, 1)[0]
    _has_keys(entry, "an input", ("name", "datatype", "shape"), ("data", "parameters"))
    if entry["name"] != info.name:
        raise checks.FieldError(f"this model has no input {checks.shown(entry['name'])}; it has {info.name}")
    if entry["datatype"] != info.datatype:
        raise checks.FieldError(f"{info.name} must be {info.datatype}, not {checks.shown(entry['datatype'])}")
    shape, wanted = entry["shape"], list(info.shape)
    if type(shape) is not list or any(type(size) is not int for size in shape) or shape[1:] != wanted or not shape:
        sizes = ", ".join(map(str, wanted))
        raise checks.FieldError(f"{info.name} must have the shape [N, {sizes}], not {checks.shown(shape)}")
    count = shape[0]
    if not 1 <= count <= most_images:
        raise checks.FieldError(f"a request may have 1 to {most_images} pictures, not {count}")
    size = _parameters(entry, f"input {info.name}", (BINARY_SIZE,)).get(BINARY_SIZE)
    if (size is None) == ("data" not in entry):
        raise checks.FieldError(f"{info.name} must have either data or the parameter {BINARY_SIZE}")
    if size is None:
        if len(rest):
            raise checks.FieldError(f"{len(rest)} bytes behind the JSON belong to no input")
        return _numbers(entry["data"], (count, *info.shape), info.name)
    needed = info.size(count)
    if type(size) is not int or size != needed or len(rest) != needed:
        raise checks.FieldError(
            f"{info.name} of this shape has {needed} bytes; {BINARY_SIZE} is {checks.shown(size)}, and {len(rest)} "
            f"bytes are behind the JSON"
        )
    return np.frombuffer(rest, np.uint8).reshape(count, *info.shape)


def _numbers(data: object, shape: tuple[int, ...], name: str) -> RGB:
    """JSON's integers, nested as the shape says or all in one list."""
    values: list[Any] = [data]
    is_flat = type(data) is list and bool(data) and type(data[0]) is not list
    for size in [int(np.prod(shape))] if is_flat else shape:
        if any(type(part) is not list or len(part) != size for part in values):
            raise checks.FieldError(f"data of {name} is neither flat nor nested as its shape {list(shape)} says")
        values = list(itertools.chain.from_iterable(values))
    if set(map(type, values)) != {int} or min(values) < 0 or max(values) > 255:
        raise checks.FieldError(f"data of {name} must be integers from 0 to 255")
    return np.array(values, np.uint8).reshape(shape)


def _program(bundle: Bundle, tasks: tuple[str, ...], images: int) -> Joined:
    """The one program of so many tasks and images."""
    if len(tasks) == images == 1:
        return Joined(tasks)
    joint = bundle.find_joint(tasks, images)
    if joint is None:
        raise checks.FieldError(f"the bundle has no program of {Joined(tasks, images)}")
    return joint.joined


def write_response(
    name: str, version: str, request: InferRequest, found: Sequence[Mapping[str, Prediction]]
) -> tuple[bytes, dict[str, str]]:
    """Body and headers of a response.

    Args:
        name, version: of the model
        found: of each image its predictions by task

    Raises:
        ValueError: a number is not finite, for which JSON has no form
    """
    entries, tensors = [], []
    for info, is_binary in request.outputs:
        predictions = [each[info.task] for each in found]
        is_raw = info.name != info.task
        values = np.stack([each.raw if is_raw else each.values for each in predictions]).astype(info.dtype)
        entry: dict[str, Any] = {"name": info.name, "datatype": info.datatype, "shape": list(values.shape)}
        parameters: dict[str, Any] = {"scale": float(predictions[0].scale)} if is_raw else {}
        if is_binary:
            tensors.append(values.tobytes())
            parameters[BINARY_SIZE] = len(tensors[-1])
        else:
            entry["data"] = values.reshape(-1).tolist()
        if parameters:
            entry["parameters"] = parameters
        entries.append(entry)
    document: dict[str, Any] = {"model_name": name, "model_version": version}
    if request.id is not None:
        document["id"] = request.id
    return join_message({**document, "parameters": _cost(request, found), "outputs": entries}, tensors)


def _cost(request: InferRequest, found: Sequence[Mapping[str, Prediction]]) -> dict[str, Any]:
    """What the programs cost that made these predictions: of those that others share, this request's part."""
    every = [prediction.stats for predictions in found for prediction in predictions.values()]
    cost: dict[str, Any] = {
        "device_seconds": sum(stats.device_seconds_each for stats in every),
        "attempts": max(stats.attempts for stats in every),
    }
    cycles = [each for stats in every if (each := stats.cycles_each) is not None]
    if cycles:
        cost["cycles"] = round(sum(cycles))
    if request.program is not None:
        loads = {str(block): list(tokens) for block, tokens in every[0].expert_loads.items()}
        cost["expert_loads"] = json.dumps(loads, separators=(",", ":"))
    return cost
