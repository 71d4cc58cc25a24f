"""The device ``remote``: a bundle that ``edgemoe serve`` runs elsewhere, as an executor. Standard library and NumPy."""

from __future__ import annotations

import os
import re
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgemoe.bundle import Bundle, BundleError, Joined
from edgemoe.errors import DeviceError
from edgemoe.runtime.executor import Executor, Measured
from edgemoe.runtime.http_line import Answer, HttpLine
from edgemoe.runtime.open_inference import (
    BINARY_SIZE,
    HEADER_LENGTH,
    RAW,
    ProtocolError,
    TensorInfo,
    input_info,
    join_message,
    output_infos,
    path_of,
    split_message,
)
from edgemoe_models.model_image import ModelImage
from edgemoe_models.storage import checks
from edgemoe_models.storage.atomic import write_bytes
from edgemoe_models.storage.json_text import parse_json

__all__ = ["ONE_PROGRAM", "RemoteExecutor", "open_executor"]

#: Parameter of a request: run what it asks for as one program, or refuse.
ONE_PROGRAM = "one_program"
_OK, _UNAUTHORIZED, _NOT_FOUND = 200, (401, 403), 404
_LARGEST_DOCUMENT, _LARGEST_BUNDLE = 1 << 20, 4 << 30
_MOST_MODELS = 1000
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_TIMEOUT = 60.0


@dataclass(frozen=True)
class _Served:
    """A bundle as a server has it."""

    name: str
    version: str
    sha256: str
    clock_mhz: float


def open_executor(
    bundle: Bundle | None,
    *,
    url: str | None = None,
    token: str | None = None,
    model: str | None = None,
    request_timeout: float = _TIMEOUT,
    depth: int = 2,
) -> RemoteExecutor:
    """An executor for a bundle that a server has.

    Args:
        bundle: what to run; None: what the server has, which is fetched from it
        url: the server's; default: the environment variable EDGEMOE_URL
        token: the server's; default: the environment variable EDGEMOE_TOKEN, and if there is none, no token
        model: of several models of the server, without ``bundle``, this one's newest version; ``name/2``: that version
        request_timeout: seconds that an answer may take, with the wait for a busy server
        depth: slots for frames

    Raises:
        BundleError: the server has no such bundle, or the one that it sent cannot be used
        DeviceError: the server cannot be reached, refuses the token, or is none of edgemoe's
        ValueError: an option is wrong
    """
    if depth < 1:
        raise ValueError(f"depth must be at least 1, not {depth!r}")
    url, token = url or os.environ.get("EDGEMOE_URL"), token or os.environ.get("EDGEMOE_TOKEN")
    if not url:
        raise ValueError("device remote needs url='http://HOST:PORT' of an edgemoe serve, or EDGEMOE_URL")
    if token is not None and not (token.isascii() and token.isprintable()):
        raise ValueError("the token has letters that no header can have")
    line = HttpLine(url, token, request_timeout)
    try:
        served = _models(line)
        if bundle is not None:
            wanted, name = bundle.sha256, bundle.model.name
            found = [each for each in served if each.sha256 == wanted]
            if not found:
                others = ", ".join(f"{each.name}/{each.version} ({each.sha256[:16]})" for each in served)
                raise BundleError(
                    f"{url} does not serve this bundle of {name} ({wanted[:16]}); it has {others}; open it without a "
                    f"bundle to run what it has"
                )
            return RemoteExecutor(line, bundle, found[-1], depth)
        chosen = _choose(served, model, url)
        return RemoteExecutor(line, _fetch(line, chosen), chosen, depth)
    except BaseException:
        line.close()
        raise


def _models(line: HttpLine) -> list[_Served]:
    """Every model and version that a server has, in its order."""
    index = _document(line, line.ask("POST", "v2/repository/index", b"{}", {"Content-Type": "application/json"}))
    try:
        served = []
        for entry in checks.items(index, "the index", 1, _MOST_MODELS):
            record = checks.record(entry, "a model", ("name", "version"), others=True)
            name, version = (checks.text(record[key], key) for key in ("name", "version"))
            if not all(
                part.replace("-", "_").replace("_", "a").isalnum() and part.isascii() for part in (name, version)
            ):
                raise checks.FieldError(f"the model {checks.shown(name)}, {checks.shown(version)} has no proper name")
            about = _document(line, line.ask("GET", path_of(name, version)))
            about = checks.record(about, "metadata", ("parameters",), others=True)
            parameters = checks.record(about["parameters"], "parameters", ("sha256", "clock_mhz"), others=True)
            clock = checks.number(parameters["clock_mhz"], "clock_mhz", 0.0)
            served.append(_Served(name, version, checks.text(parameters["sha256"], "sha256"), clock))
        return served
    except checks.FieldError as error:
        raise DeviceError(f"device remote: {line.url} serves nothing of edgemoe ({error})") from None


def _choose(served: list[_Served], model: str | None, url: str) -> _Served:
    """The model that is wanted: the only one, or by name the newest version."""
    known = ", ".join(f"{each.name}/{each.version}" for each in served)
    if model is None:
        if len({each.name for each in served}) > 1:
            raise ValueError(f"{url} serves several models; choose one with model=...: {known}")
        return served[-1]
    found = [each for each in served if model in (each.name, f"{each.name}/{each.version}")]
    if not found:
        raise ValueError(f"{url} serves no model {model!r}; it has {known}")
    return found[-1]


def _fetch(line: HttpLine, served: _Served) -> Bundle:
    """The bundle that a server has, checked as every file is."""
    answer = line.ask("GET", path_of(served.name, served.version, "bundle"), largest=_LARGEST_BUNDLE)
    if answer.status != _OK:
        raise _refusal(line, answer)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fetched.emoe"
        write_bytes(path, answer.body)
        bundle = Bundle.load(path)
    if bundle.sha256 != served.sha256:
        raise BundleError(f"{line.url} sent another bundle than it says that it runs; give the bundle's file instead")
    return bundle


def _document(line: HttpLine, answer: Answer) -> Any:
    if answer.status != _OK:
        raise _refusal(line, answer)
    try:
        return parse_json(answer.body, _LARGEST_DOCUMENT)
    except ValueError as error:
        raise DeviceError(f"device remote: {line.url} is no edgemoe serve ({error})") from None


def _refusal(line: HttpLine, answer: Answer) -> DeviceError:
    """What an answer that is no success says."""
    try:
        said = checks.text(parse_json(answer.body, _LARGEST_DOCUMENT)["error"], "error", 2000)
    except (ValueError, TypeError, KeyError):
        said = f"HTTP status {answer.status}"
    if answer.status in _UNAUTHORIZED:
        said += "; open it with token=..., or set EDGEMOE_TOKEN"
    return DeviceError(f"device remote: {line.url} says: {said}")


class RemoteExecutor(Executor):
    """Sends images to a server and gets raw outputs back, program by program.

    Args:
        line: to the server; closed with this
        bundle: what the server runs
        served: by which name
        depth: number of input and of output slots
    """

    name = "remote"

    def __init__(self, line: HttpLine, bundle: Bundle, served: _Served, depth: int = 2) -> None:
        self.bundle, self.depth = bundle, depth
        self._line, self._served = line, served
        self._infos = {info.name: info for info in output_infos(bundle.model)}
        self._images: dict[tuple[int, int], ModelImage] = {}
        self._outputs: dict[int, list[npt.NDArray[np.int16]]] = {}
        self._is_closed = False

    @property
    def clock_mhz(self) -> float:
        return self._served.clock_mhz

    def pack(self, source: int, image: ModelImage, place: int = 0) -> None:
        self._images[source, place] = ModelImage(image.copy())

    def execute(
        self, program: str | Joined, source: int, target: int, cancel: threading.Event | None = None, *, first: int = 0
    ) -> Measured:
        if self._is_closed:
            raise DeviceError("device remote is closed; open it again")
        joined = self.bundle.program(program).joined
        infos = [self._infos[task + RAW] for task in joined.tasks]
        pixels = np.stack([self._images[source, first + number] for number in range(joined.images)]).tobytes()
        given = input_info(self.bundle.model)
        document = {
            "parameters": {ONE_PROGRAM: True},
            "inputs": [
                {
                    "name": given.name,
                    "datatype": given.datatype,
                    "shape": [joined.images, *given.shape],
                    "parameters": {BINARY_SIZE: len(pixels)},
                }
            ],
            "outputs": [{"name": info.name, "parameters": {"binary_data": True}} for info in infos],
        }
        body, headers = join_message(document, [pixels])
        largest = _LARGEST_DOCUMENT + sum(info.size(joined.images) for info in infos)
        path = path_of(self._served.name, self._served.version, "infer")
        begin = time.perf_counter()
        answer = self._line.ask("POST", path, body, headers, largest=largest, cancel=cancel)
        wall = time.perf_counter() - begin
        if answer.status != _OK:
            raise _refusal(self._line, answer)
        try:
            found, rest = split_message(answer.body, answer.headers.get(HEADER_LENGTH.lower()), _LARGEST_DOCUMENT)
            measured, self._outputs[target] = self._understood(found, rest, infos, joined.images, wall)
        except (ProtocolError, checks.FieldError) as error:
            raise DeviceError(f"device remote: {self._line.url} gave no proper answer: {error}") from None
        return measured

    def _understood(
        self, document: object, rest: memoryview, infos: list[TensorInfo], images: int, wall: float
    ) -> tuple[Measured, list[npt.NDArray[np.int16]]]:
        """What an answer says, and its tensors, task by task, image by image; raises FieldError."""
        record = checks.record(document, "the answer", ("outputs", "parameters"), others=True)
        outputs: list[npt.NDArray[np.int16]] = []
        for info, entry in zip(infos, checks.items(record["outputs"], "outputs", len(infos), len(infos)), strict=True):
            wanted = {"name": info.name, "datatype": info.datatype, "shape": [images, *info.shape]}
            given = checks.record(entry, "an output", (*wanted, "parameters"), others=True)
            for key, value in wanted.items():
                if given[key] != value:
                    raise checks.FieldError(f"output {info.name} must have the {key} {value}, not {given[key]!r:.60}")
            sizes = checks.record(given["parameters"], "parameters", (BINARY_SIZE,), others=True)
            size = checks.integer(sizes[BINARY_SIZE], BINARY_SIZE, info.size(images), info.size(images))
            if len(rest) < size:
                raise checks.FieldError(f"output {info.name} is not whole")
            values = np.frombuffer(rest[:size], info.dtype).astype(np.int16).reshape(images, *info.shape)
            outputs += [*values]
            rest = rest[size:]
        if len(rest):
            raise checks.FieldError(f"it has {len(rest)} bytes too many")
        return _measured(checks.record(record["parameters"], "parameters", (), others=True), wall), outputs

    def unpack(self, program: str | Joined, target: int, sequence: int = 0) -> npt.NDArray[np.int16]:
        return self._outputs[target][sequence]

    def reset(self) -> None:
        """The server does it by itself."""

    def close(self) -> None:
        self._is_closed = True
        self._line.close()
        self._images.clear()
        self._outputs.clear()


def _measured(parameters: Mapping[str, Any], wall: float) -> Measured:
    """What a server says of the program that it has run."""
    text = checks.text(parameters.get("expert_loads", "{}"), "expert_loads", _LARGEST_DOCUMENT)
    try:
        table = parse_json(text)
    except ValueError as error:
        raise checks.FieldError(f"expert_loads: {error}") from None
    loads: dict[int, tuple[int, ...]] = {}
    for block, tokens in checks.record(table, "expert_loads", (), others=True).items():
        if not re.fullmatch("[0-9]{1,4}", block):
            raise checks.FieldError(f"expert_loads has the block {checks.shown(block)}")
        items = checks.items(tokens, "expert_loads")
        loads[int(block)] = tuple(checks.integer(count, "tokens of an expert", 0, 1 << 40) for count in items)
    cycles = parameters.get("cycles")
    return Measured(
        checks.number(parameters.get("device_seconds"), "device_seconds", 0.0),
        wall,
        None if cycles is None else checks.integer(cycles, "cycles", 0, 1 << 62),
        loads,
        checks.integer(parameters.get("attempts", 1), "attempts", 1, 1 << 30),
    )
