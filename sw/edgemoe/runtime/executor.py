"""What runs a bundle's programs: buffers for several images and outputs, one program at a time."""

from __future__ import annotations

import abc
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from edgemoe.bundle import Bundle, Joined
from edgemoe.errors import DeviceError
from edgemoe_hw.spec.regs import ERROR_TEXT, ErrorCode
from edgemoe_models.model_image import ModelImage

__all__ = ["Cancelled", "DeviceTimeout", "Executor", "Measured", "ProgramStopped"]


class Cancelled(DeviceError):
    """An inference was given up because its stream was closed."""


class DeviceTimeout(DeviceError):
    """The accelerator did not answer in time."""


class ProgramStopped(DeviceError):
    """The accelerator stopped a program.

    Attributes:
        code: why (``edgemoe_hw.spec.regs.ErrorCode``)
        command: index in the program of the command that failed, as ``edgemoe disasm`` shows it
    """

    def __init__(self, code: ErrorCode, command: int, where: str = "") -> None:
        super().__init__(f"command {command}: {code.name}, {ERROR_TEXT[code]}" + (f" ({where})" if where else ""))
        self.code = code
        self.command = command


@dataclass(frozen=True)
class Measured:
    """What an executor knows of one program's run: of all its tasks and images together.

    Attributes:
        seconds: from start to end, on the device's own clock (a simulation's is its assumed one)
        wall_seconds: the same as the host waited for it
        cycles: of the accelerator; None where there is none
        expert_loads: tokens of each expert, by MoE block; the accelerator's registers keep those of the first 16 blocks
        attempts: 1, and 1 more for each retry
    """

    seconds: float
    wall_seconds: float
    cycles: int | None = None
    expert_loads: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    attempts: int = 1


class Executor(abc.ABC):
    """Runs a bundle's programs on images in numbered slots.

    ``pack``, ``execute`` and ``unpack`` may be called from three threads at a time, each for slots of its own, so that
    the host packs image n + 1 and unpacks outputs n - 1 while the accelerator runs n.

    A program is named by its task, or, where it is of several tasks or images at once, by what it joins. An input slot
    has a place for each image of the bundle's largest program.

    Attributes:
        name: of the device
        bundle: what it runs
        depth: number of input slots and of output slots
    """

    name: str
    bundle: Bundle
    depth: int

    @abc.abstractmethod
    def pack(self, source: int, image: ModelImage, place: int = 0) -> None:
        """Put an image into a place of an input slot. It was checked when it was prepared, and is not checked again."""

    @abc.abstractmethod
    def execute(
        self, program: str | Joined, source: int, target: int, cancel: threading.Event | None = None, *, first: int = 0
    ) -> Measured:
        """Run a program on an input slot; its outputs are then in an output slot.

        Args:
            program: a task, or several tasks or images of which the bundle has a program
            source, target: the slots
            cancel: set from another thread to give it up
            first: place of its first image in the slot; further ones follow

        Raises:
            ProgramStopped, DeviceTimeout, DeviceError: it failed; the next call starts with a reset
            Cancelled: ``cancel`` was set meanwhile
        """

    @abc.abstractmethod
    def unpack(self, program: str | Joined, target: int, sequence: int = 0) -> npt.NDArray[np.int16]:
        """A head's raw outputs int16 [rows, channels] in an output slot: of one of the program's token sequences."""

    @property
    def clock_mhz(self) -> float:
        """The accelerator's clock; where there is none, what the configuration assumes."""
        return self.bundle.config.assumed_clock_mhz

    def power(self) -> dict[str, float]:
        """Watts of each supply rail that is measured, now."""
        return {}

    @abc.abstractmethod
    def reset(self) -> None:
        """Stop whatever runs and forget errors; DeviceError when the accelerator does not become idle."""

    @abc.abstractmethod
    def close(self) -> None:
        """Free everything; a second call does nothing."""
