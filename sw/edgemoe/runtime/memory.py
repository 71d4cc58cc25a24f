"""What a bundle needs in an accelerator's memory: weights and programs, and slots for images and outputs."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgemoe.bundle import Bundle, Joined, Joint, Task
from edgemoe.errors import DeviceError
from edgemoe.layout import ALIGNMENT
from edgemoe.runtime.platforms.base import Buffer, Platform
from edgemoe_hw.spec import regs
from edgemoe_hw.spec.isa import Base

__all__ = ["BundleMemory"]


class BundleMemory:
    """Buffers of one bundle on one platform.

    Args:
        platform: where they are allocated
        bundle: what to load
        depth: number of input and of output slots

    Attributes:
        weights: the image of weights and parameters, shared by all programs
        programs: by task, or by what they join
        inputs: slots for the images of a program, one after the other
        outputs: slots for outputs

    Raises:
        DeviceError: memory is short, or where the accelerator cannot reach it; nothing stays allocated
    """

    def __init__(self, platform: Platform, bundle: Bundle, depth: int) -> None:
        self._platform = platform
        self._buffers: list[Buffer] = []
        try:
            self.weights = self._filled(bundle.data)
            programs: list[Task | Joint] = [*bundle.tasks.values(), *bundle.joint]
            self.programs: dict[str | Joined, Buffer] = {
                program.joined.key: self._filled(np.frombuffer(program.program, np.uint8)) for program in programs
            }
            zeros = np.zeros(bundle.most_images * bundle.input_bytes, np.uint8)
            self.inputs = tuple(self._filled(zeros) for _ in range(depth))
            # Flushed like the others: a dirty line that is written back later would overwrite outputs.
            zeros = np.zeros(max(program.output_bytes for program in programs), np.uint8)
            self.outputs = tuple(self._filled(zeros) for _ in range(depth))
        except BaseException:
            self.free()
            raise

    def _filled(self, content: npt.NDArray[np.uint8]) -> Buffer:
        buffer = self._platform.allocate(max(content.size, 1))
        self._buffers.append(buffer)
        address, limit = buffer.physical_address, 1 << regs.find("BASE_WEIGHTS").width
        if address % ALIGNMENT or address + content.size > limit:
            raise DeviceError(
                f"device {self._platform.name} allocated {content.size} bytes at {address:#x}; the accelerator "
                f"needs addresses that are multiples of {ALIGNMENT} and end at or below {limit:#x}"
            )
        buffer.array[: content.size] = content
        buffer.flush()
        return buffer

    @property
    def sizes(self) -> dict[Base, int]:
        """Bytes of the regions of DRAM that are the same for every program; INPUT is as large as its images."""
        regions = {Base.WEIGHTS: self.weights, Base.OUTPUT: self.outputs[0]}
        return {base: buffer.array.size for base, buffer in regions.items()}

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        """All of them, in the order of their allocation."""
        return tuple(self._buffers)

    def free(self) -> None:
        """Give everything back; a second call does nothing."""
        for buffer in self._buffers:
            buffer.free()
        self._buffers.clear()
