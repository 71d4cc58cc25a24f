"""The bundle: one ``.emoe`` file with everything that a device needs. No pickle: safetensors and JSON.

Tensors, all uint8: ``data`` (the DRAM image of weights and parameters), ``graph`` (the integer graph's file, for the
reference device), and a task's ``program.<task>`` (commands) and ``trace.<task>`` (JSON, see ``edgemoe_sim.trace``).
Metadata: ``edgemoe_bundle``, JSON with ``document`` (everything else, JSON too) and ``sha256`` over all of it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgemoe.layout import OutputPart
from edgemoe_hw.spec.config import ISA_VERSION, AcceleratorConfig, ConfigError
from edgemoe_models.config import ModelConfig
from edgemoe_models.graph.file import parse_graph
from edgemoe_models.graph.integer_graph import GraphError, IntegerGraph
from edgemoe_models.storage.tensor_file import TensorFileError, read_tensors, write_tensors

__all__ = ["FORMAT_VERSION", "Bundle", "BundleError", "Phase", "Task"]

FORMAT_VERSION = 1
METADATA_KEY = "edgemoe_bundle"
Bytes = npt.NDArray[np.uint8]


class BundleError(ValueError):
    """A bundle that cannot be used; the message says why and what to do."""


@dataclass(frozen=True)
class Phase:
    """One phase of an inference.

    Attributes:
        name: ``embed``, ``blocks.{i}.attention``, ``blocks.{i}.mlp`` or ``.moe``, ``head``
        macs, bytes_read, bytes_written: what the model needs at least, whatever the image, without padding
        expert_macs: on top for each queued token (tokens * top_k of them)
        expert_bytes: on top for each expert that the image uses
        matmuls: MATMULs that have finished when the phase has
        estimated_cycles: of the analytic model
    """

    name: str
    macs: int
    bytes_read: int
    bytes_written: int
    expert_macs: int
    expert_bytes: int
    matmuls: int
    estimated_cycles: int


@dataclass(frozen=True)
class Task:
    """One task's program and what the host needs to run it."""

    name: str
    program: bytes
    trace: list[list[Any]]
    outputs: tuple[OutputPart, ...]
    output_bytes: int
    output_rows: int
    output_channels: int
    output_scale: float
    phases: tuple[Phase, ...]
    load_bytes: int

    @property
    def commands(self) -> int:
        return len(self.program) // 64


@dataclass(frozen=True)
class Bundle:
    """A compiled model for one configuration.

    Attributes:
        config, model: the accelerator's and the model's parameters
        data: DRAM image of weights and parameters, shared by all tasks
        graph_file: the integer graph's file
        input_bytes: size of the INPUT memory
        tasks: by name
        options: compiler options, for reports
    """

    config: AcceleratorConfig
    model: ModelConfig
    data: Bytes
    graph_file: Bytes
    input_bytes: int
    tasks: Mapping[str, Task]
    options: Mapping[str, Any] = field(default_factory=dict)

    def task(self, name: str) -> Task:
        """The task called ``name``; BundleError when the bundle has none."""
        if name not in self.tasks:
            raise BundleError(f"this bundle has no task {name!r}; it has {', '.join(self.tasks)}")
        return self.tasks[name]

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
        tasks = {}
        for name, task in self.tasks.items():
            values = {
                f.name: getattr(task, f.name)
                for f in dataclasses.fields(task)
                if f.name not in ("name", "program", "trace")
            }
            values["outputs"] = [part.to_list() for part in task.outputs]
            values["phases"] = [dataclasses.asdict(phase) for phase in task.phases]
            tasks[name] = values
        return {
            "format_version": FORMAT_VERSION,
            "isa_version": ISA_VERSION,
            "config": self.config.to_dict(),
            "config_hash": self.config.content_hash,
            "model": self.model.to_dict(),
            "input_bytes": self.input_bytes,
            "tasks": tasks,
            "options": dict(self.options),
        }

    def save(self, path: Path | str) -> None:
        """Write the bundle whole or not at all; equal bundles give equal bytes.

        Raises:
            SaveError: it cannot be written; a file that was there before is unchanged
        """
        tensors: dict[str, Bytes] = {"data": self.data, "graph": self.graph_file}
        for name, task in self.tasks.items():
            tensors[f"program.{name}"] = np.frombuffer(task.program, np.uint8)
            tensors[f"trace.{name}"] = np.frombuffer(json.dumps(task.trace).encode(), np.uint8)
        text = json.dumps(self._document(), sort_keys=True, allow_nan=False)
        stored = json.dumps({"document": text, "sha256": _digest(tensors, text)})  # safetensors does not order keys
        write_tensors(path, tensors, {METADATA_KEY: stored})

    @classmethod
    def load(cls, path: Path | str) -> Bundle:
        """Read and check a bundle.

        Raises:
            BundleError: the file is missing, damaged, of another version or inconsistent
        """
        tensors, metadata = _read(Path(path))
        try:
            stored = json.loads(metadata[METADATA_KEY])
            text = stored["document"]
            document = json.loads(text)
            _check_versions(path, document)
            found, expected = stored["sha256"], _digest(tensors, text)
            if found != expected:
                raise BundleError(
                    f"{path}: its contents have sha256 {expected[:16]}, but the file says "
                    f"{str(found)[:16]}: it is damaged; copy it again, or compile it again "
                    f"with edgemoe compile"
                )
            config = AcceleratorConfig.from_dict(document["config"])
            if config.content_hash != document["config_hash"]:
                raise BundleError(
                    f"{path}: its config has hash {config.content_hash[:16]}, but the file says "
                    f"{document['config_hash'][:16]}; compile it again with edgemoe compile"
                )
            model = ModelConfig.from_dict(document["model"])
            tasks = {task.name: _task(task.name, document["tasks"][task.name], tensors) for task in model.tasks}
            return cls(
                config, model, tensors["data"], tensors["graph"], document["input_bytes"], tasks, document["options"]
            )
        except BundleError:
            raise
        except (KeyError, TypeError, ValueError, ConfigError) as error:
            raise BundleError(
                f"{path}: the bundle is inconsistent ({error}); compile it again with edgemoe compile"
            ) from None


def _task(name: str, values: dict[str, Any], tensors: Mapping[str, Bytes]) -> Task:
    values = dict(values)
    values["outputs"] = tuple(OutputPart(*part) for part in values["outputs"])
    values["phases"] = tuple(Phase(**phase) for phase in values["phases"])
    return Task(
        name=name,
        program=tensors[f"program.{name}"].tobytes(),
        trace=json.loads(tensors[f"trace.{name}"].tobytes()),
        **values,
    )


def _check_versions(path: Path | str, document: Any) -> None:
    versions = (("format_version", FORMAT_VERSION, "bundle format"), ("isa_version", ISA_VERSION, "ISA version"))
    for key, own, what in versions:
        found = document.get(key) if isinstance(document, dict) else None
        if found != own:
            raise BundleError(f"{path}: {what} {found!r}, but this edgemoe has {own}; compile the model again with it")


def _read(path: Path) -> tuple[dict[str, Bytes], dict[str, str]]:
    try:
        tensors, metadata = read_tensors(path)
    except FileNotFoundError:
        raise BundleError(f"{path}: there is no such file; make a bundle with edgemoe compile") from None
    except TensorFileError as error:
        raise BundleError(
            f"{path}: not a readable bundle, corrupt or truncated ({error}); copy it again, or "
            f"compile it again with edgemoe compile"
        ) from None
    if METADATA_KEY not in metadata:
        raise BundleError(f"{path}: a safetensors file, but no bundle; make one with edgemoe compile")
    return tensors, metadata


def _digest(tensors: Mapping[str, Bytes], text: str) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].shape}".encode())
        digest.update(np.ascontiguousarray(tensors[name]).data)
    return digest.hexdigest()
