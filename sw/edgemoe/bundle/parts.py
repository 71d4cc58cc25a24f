"""What a bundle consists of, apart from how it is checked and saved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from edgemoe.bundle.document import Phase
from edgemoe.layout import OutputPart
from edgemoe_hw.spec.config import AcceleratorConfig
from edgemoe_models.config import ModelConfig

__all__ = ["Bytes", "Joined", "Joint", "Parts", "Sequence", "Task"]

Bytes = npt.NDArray[np.uint8]


class Sequence(NamedTuple):
    """What one token sequence of a program is of: an image of the program's input, and the task asked of it."""

    image: int
    task: str


@dataclass(frozen=True)
class Joined:
    """What a program computes: several tasks, or of several images; or it is a task's own program.

    Attributes:
        tasks: their names, in the model's order
        images: how many images it computes all of them for
    """

    tasks: tuple[str, ...]
    images: int = 1

    @property
    def sequences(self) -> list[Sequence]:
        """The token sequences, task by task: of each task, one for every image."""
        return [Sequence(image, task) for task in self.tasks for image in range(self.images)]

    @property
    def key(self) -> str | Joined:
        """By which an executor knows the program: a task's own by the task's name."""
        return self.tasks[0] if len(self.sequences) == 1 else self

    def __str__(self) -> str:
        tasks = "task " + self.tasks[0] if len(self.tasks) == 1 else "tasks " + ", ".join(self.tasks)
        return tasks if self.images == 1 else f"{tasks} of {self.images} images"


class _Program:
    """What follows from a program, of one token sequence or of several."""

    program: bytes
    phases: tuple[Phase, ...]

    @property
    def commands(self) -> int:
        """How many commands the program has, BEGIN and END included."""
        return len(self.program) // 64

    @property
    def estimated_cycles(self) -> int:
        """Of the analytic model, with balanced experts."""
        return sum(phase.estimated_cycles for phase in self.phases)


@dataclass(frozen=True)
class Task(_Program):
    """One task's program and what the host needs to run it.

    Attributes:
        name: the task's
        program: its commands, 64 bytes each
        trace: which command completes which part of which tensor (``edgemoe_sim.trace``); for simulations
        outputs: where the head's outputs lie in the OUTPUT memory
        output_bytes: size of the OUTPUT memory
        output_rows: rows of the head's outputs: tokens
        output_channels: channels of each row
        output_scale: a unit of the raw int16 outputs in the float model's
        phases: of one inference, with what each needs at least
        load_bytes: that its LOADs fetch when every expert is used
    """

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
    def joined(self) -> Joined:
        """The task, of one image."""
        return Joined((self.name,))

    @property
    def heads(self) -> list[tuple[str, tuple[OutputPart, ...]]]:
        """Of each token sequence: its task, and where its head's outputs lie."""
        return [(self.name, self.outputs)]


@dataclass(frozen=True)
class Joint(_Program):
    """One program for several token sequences: the tasks of a frame, or a batch of images.

    Everything before the first gate is computed once for all tasks of an image, and each expert is fetched once for all
    sequences. Images lie one after the other in the INPUT memory.

    Attributes:
        joined: which tasks of how many images
        program: its commands, 64 bytes each
        trace: which command completes which part of which sequence's tensor; for simulations
        outputs: of each sequence: where its head's outputs lie in the OUTPUT memory
        output_bytes: size of the OUTPUT memory
        phases: of one run, with what each needs at least
        load_bytes: that its LOADs fetch when every expert is used
    """

    joined: Joined
    program: bytes
    trace: list[list[Any]]
    outputs: tuple[tuple[OutputPart, ...], ...]
    output_bytes: int
    phases: tuple[Phase, ...]
    load_bytes: int

    @property
    def heads(self) -> list[tuple[str, tuple[OutputPart, ...]]]:
        """Of each token sequence: its task, and where its head's outputs lie."""
        return [(task, parts) for (_, task), parts in zip(self.joined.sequences, self.outputs, strict=True)]


@dataclass(frozen=True)
class Parts:
    """The parts, which ``contents`` holds against each other; ``Bundle`` says what each is."""

    config: AcceleratorConfig
    model: ModelConfig
    data: Bytes
    graph_file: Bytes
    input_bytes: int
    tasks: Mapping[str, Task]
    options: Mapping[str, Any] = field(default_factory=dict)
    joint: tuple[Joint, ...] = ()
