"""The bundle: one ``.emoe`` file with everything that a device needs. No pickle: safetensors and JSON.

Tensors, all uint8: ``data`` (the DRAM image of weights and parameters), ``graph`` (the integer graph's file, for the
reference device), and a task's ``program.<task>`` (commands) and ``trace.<task>`` (JSON, see ``edgemoe_sim.trace``);
``joint_program.<number>`` and ``joint_trace.<number>`` of the programs of several token sequences.
Metadata: ``edgemoe_bundle``, JSON with ``document`` (everything else, JSON too) and ``sha256`` over all of it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgemoe.bundle.contents import check_contents
from edgemoe.bundle.document import (
    JointTable,
    TaskTable,
    read_joint,
    read_options,
    read_task,
    write_joint,
    write_task,
)
from edgemoe.bundle.parts import Bytes, Joined, Joint, Parts, Task
from edgemoe_hw.spec.config import ISA_VERSION, AcceleratorConfig, ConfigError
from edgemoe_models.config import ModelConfig
from edgemoe_models.graph.file import parse_graph
from edgemoe_models.graph.integer_graph import GraphError, IntegerGraph
from edgemoe_models.storage import checks
from edgemoe_models.storage.file_kind import BUNDLE_KEY, describe
from edgemoe_models.storage.json_text import JsonError, parse_json
from edgemoe_models.storage.tensor_file import TensorFileError, read_tensors, write_tensors

__all__ = ["FORMAT_VERSION", "METADATA_KEY", "Bundle", "BundleError", "Task", "digest"]

FORMAT_VERSION = 2
METADATA_KEY = BUNDLE_KEY
_DOCUMENT = (
    "format_version",
    "isa_version",
    "config",
    "config_hash",
    "model",
    "input_bytes",
    "tasks",
    "options",
    "joint",
)
_LARGEST = 12 << 30  # data and as much again for the graph, of which no command can address more than 4 GiB each


class BundleError(ValueError):
    """A bundle that cannot be used; the message says why and what to do."""


@dataclass(frozen=True)
class Bundle(Parts):
    """A compiled model for one configuration.

    Attributes:
        config: the accelerator's parameters
        model: the model's shape
        data: DRAM image of weights and parameters, shared by all tasks
        graph_file: the integer graph's file
        input_bytes: size of the INPUT memory
        tasks: by name
        options: compiler options, for reports
        joint: programs of several tasks of an image, or of several images
    """

    def find_joint(self, tasks: Iterable[str], images: int = 1) -> Joint | None:
        """The program of these tasks, in any order, of so many images at once; None when the bundle has none."""
        wanted = sorted(tasks)
        for joint in self.joint:
            if sorted(joint.joined.tasks) == wanted and joint.joined.images == images:
                return joint
        return None

    @property
    def most_images(self) -> int:
        """Images of its largest program."""
        return max((joint.joined.images for joint in self.joint), default=1)

    def task(self, name: str) -> Task:
        """The task called ``name``; BundleError when the bundle has none."""
        if name not in self.tasks:
            raise BundleError(f"this bundle has no task {name!r}; it has {', '.join(self.tasks)}")
        return self.tasks[name]

    def program(self, name: str | Joined) -> Task | Joint:
        """The program of a task, or of several tasks or images at once.

        Raises:
            BundleError: the bundle has none
        """
        key = name if isinstance(name, str) else name.key
        if isinstance(key, str):
            return self.task(key)
        for joint in self.joint:
            if joint.joined == key:
                return joint
        known = "; ".join(str(joint.joined) for joint in self.joint) or "none of several tasks or images"
        raise BundleError(f"this bundle has no program of {key}; it has {known}")

    def check_device(self, config: AcceleratorConfig, device: str, isa_version: int = ISA_VERSION) -> None:
        """Raise BundleError unless a device has this bundle's configuration and ISA version."""
        if isa_version != ISA_VERSION:
            raise BundleError(
                f"the bundle has ISA version {ISA_VERSION}, device {device} has {isa_version}; "
                f"compile the model with the edgemoe that built the device"
            )
        if config.content_hash != self.config.content_hash:
            raise BundleError(
                f"the bundle is for config {self.config.name} ({self.config.content_hash[:16]}), device {device} has "
                f"{config.name} ({config.content_hash[:16]}); compile the model for it: "
                f"edgemoe compile --config {config.name}"
            )

    def graph(self) -> IntegerGraph:
        """The integer graph, checked."""
        try:
            return parse_graph(self.graph_file.tobytes())
        except GraphError as error:
            raise BundleError(f"the bundle's integer graph is unusable: {error}") from None

    def _document(self) -> dict[str, Any]:
        return {
            "format_version": FORMAT_VERSION,
            "isa_version": ISA_VERSION,
            "config": self.config.to_dict(),
            "config_hash": self.config.content_hash,
            "model": self.model.to_dict(),
            "input_bytes": self.input_bytes,
            "tasks": {name: write_task(task) for name, task in self.tasks.items()},
            "options": dict(self.options),
            "joint": [write_joint(joint) for joint in self.joint],
        }

    def check(self) -> None:
        """Hold all parts against each other, and every command of the programs against what it may do.

        Raises:
            BundleError: one line says what contradicts what; of a program, it names the command
        """
        try:
            check_contents(self)
        except (ValueError, ConfigError) as error:
            raise BundleError(f"the bundle is inconsistent ({error}); compile it again with edgemoe compile") from None

    def save(self, path: Path | str) -> None:
        """Write the bundle whole or not at all; equal bundles give equal bytes.

        Raises:
            SaveError: it cannot be written; a file that was there before is unchanged
        """
        tensors, text = self._contents()
        stored = json.dumps({"document": text, "sha256": digest(tensors, text)})  # safetensors does not order keys
        write_tensors(path, tensors, {METADATA_KEY: stored})

    @property
    def sha256(self) -> str:
        """Of its whole content, as the file has it: equal for equal bundles. Computed each time."""
        return digest(*self._contents())

    def _contents(self) -> tuple[dict[str, Bytes], str]:
        """Every tensor of the file, and the document's text."""
        tensors: dict[str, Bytes] = {"data": self.data, "graph": self.graph_file}
        for name, task in self.tasks.items():
            tensors[f"program.{name}"] = np.frombuffer(task.program, np.uint8)
            tensors[f"trace.{name}"] = np.frombuffer(json.dumps(task.trace).encode(), np.uint8)
        for number, joint in enumerate(self.joint):
            tensors[f"joint_program.{number}"] = np.frombuffer(joint.program, np.uint8)
            tensors[f"joint_trace.{number}"] = np.frombuffer(json.dumps(joint.trace).encode(), np.uint8)
        return tensors, json.dumps(self._document(), sort_keys=True, allow_nan=False)

    @classmethod
    def load(cls, path: Path | str) -> Bundle:
        """Read a bundle and check all of it, programs too; the integer graph's tensors are checked by ``graph``.

        Raises:
            BundleError: the file is missing, damaged, of another version or inconsistent; one line says how
        """
        tensors, metadata = _read(Path(path))
        try:
            bundle = _parse(tensors, metadata[METADATA_KEY])
            bundle.check()
        except BundleError as error:
            raise BundleError(f"{path}: {error}") from None
        except (ValueError, ConfigError) as error:
            raise BundleError(
                f"{path}: the bundle is inconsistent ({error}); compile it again with edgemoe compile"
            ) from None
        return bundle


def _parse(tensors: Mapping[str, Bytes], text: str) -> Bundle:
    """The bundle, its fields of the right types and in themselves possible; raises ValueError."""
    stored = checks.record(parse_json(text), "metadata", ("document", "sha256"))
    document_text = stored["document"]
    if not isinstance(document_text, str):
        raise checks.FieldError("document must be JSON text")
    document = parse_json(document_text)
    _check_versions(document)
    found, expected = stored["sha256"], digest(tensors, document_text)
    if found != expected:
        raise BundleError(
            f"its contents have sha256 {expected[:16]}, but the file says {checks.shown(str(found)[:16])}: it is "
            f"damaged; copy it again, or compile it again with edgemoe compile"
        )
    document = checks.record(document, "document", _DOCUMENT)
    config = AcceleratorConfig.from_dict(document["config"])
    if config.content_hash != document["config_hash"]:
        raise checks.FieldError(f"its config has hash {config.content_hash[:16]}, but config_hash is another")
    model = ModelConfig.from_dict(document["model"])
    input_bytes = checks.integer(document["input_bytes"], "input_bytes", 1, 1 << 32)
    names = [task.name for task in model.tasks]
    entries = checks.record(document["tasks"], "tasks", names)
    tables = read_joint(document["joint"])
    _check_tensors(tensors, names, len(tables))
    tasks = {name: _task(name, read_task(entries[name], f"tasks.{name}"), tensors) for name in names}
    options = read_options(document["options"])
    joint = tuple(_joint(number, table, tensors) for number, table in enumerate(tables))
    return Bundle(config, model, tensors["data"], tensors["graph"], input_bytes, tasks, options, joint)


def _check_tensors(tensors: Mapping[str, Bytes], tasks: list[str], joint: int) -> None:
    """The tensors of a bundle, no other, all of them rows of bytes."""
    wanted = {"data", "graph", *(f"{kind}.{name}" for name in tasks for kind in ("program", "trace"))}
    wanted |= {f"joint_{kind}.{number}" for number in range(joint) for kind in ("program", "trace")}
    for name in sorted(wanted ^ tensors.keys()):
        raise checks.FieldError(f"tensor {name} is missing" if name in wanted else f"tensor {name} is unexpected")
    for name, tensor in tensors.items():
        if tensor.dtype != np.uint8 or tensor.ndim != 1:
            raise checks.FieldError(f"tensor {name} must be uint8 [N], not {tensor.dtype.name} {list(tensor.shape)}")


def _task(name: str, table: TaskTable, tensors: Mapping[str, Bytes]) -> Task:
    trace = _trace(f"trace.{name}", tensors)
    values = {field.name: getattr(table, field.name) for field in dataclasses.fields(table)}
    return Task(name=name, program=tensors[f"program.{name}"].tobytes(), trace=trace, **values)


def _joint(number: int, table: JointTable, tensors: Mapping[str, Bytes]) -> Joint:
    trace = _trace(f"joint_trace.{number}", tensors)
    values = {field.name: getattr(table, field.name) for field in dataclasses.fields(table)}
    joined = Joined(values.pop("tasks"), values.pop("images"))
    return Joint(joined, tensors[f"joint_program.{number}"].tobytes(), trace, **values)


def _trace(name: str, tensors: Mapping[str, Bytes]) -> Any:
    try:
        return parse_json(tensors[name].tobytes())
    except JsonError as error:
        raise checks.FieldError(f"tensor {name} is damaged: {error}") from None


def _check_versions(document: object) -> None:
    versions = (("format_version", FORMAT_VERSION, "bundle format"), ("isa_version", ISA_VERSION, "ISA version"))
    for key, own, what in versions:
        found = document.get(key) if isinstance(document, dict) else None
        if type(found) is not int or found != own:
            raise BundleError(
                f"{what} {checks.shown(found)}, but this edgemoe has {own}; compile the model again with it"
            )


def _read(path: Path) -> tuple[dict[str, Bytes], dict[str, str]]:
    try:
        tensors, metadata = read_tensors(path, _LARGEST)
    except FileNotFoundError:
        raise BundleError(f"{path}: there is no such file; make a bundle with edgemoe compile") from None
    except TensorFileError as error:
        if found := describe(path, BUNDLE_KEY):
            raise BundleError(f"{path} {found}") from None
        raise BundleError(
            f"{path}: not a readable bundle, corrupt or truncated ({error}); copy it again, or "
            f"compile it again with edgemoe compile"
        ) from None
    if METADATA_KEY not in metadata:
        raise BundleError(f"{path} {describe(path)}")
    return tensors, metadata


def digest(tensors: Mapping[str, Bytes], text: str) -> str:
    """sha256 over the document's text and every tensor, with its name and shape."""
    result = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        result.update(f"{name} {tensors[name].shape}".encode())
        result.update(np.ascontiguousarray(tensors[name]).data)
    return result.hexdigest()
