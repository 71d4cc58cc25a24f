"""What a bundle consists of, apart from how it is checked and saved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from edgemoe.bundle.document import Phase
from edgemoe.layout import OutputPart
from edgemoe_hw.spec.config import AcceleratorConfig
from edgemoe_models.config import ModelConfig

__all__ = ["Bytes", "Parts", "Task"]

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Task:
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
    def commands(self) -> int:
        """How many commands the program has, BEGIN and END included."""
        return len(self.program) // 64


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
