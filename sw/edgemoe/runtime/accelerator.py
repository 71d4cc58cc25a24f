"""An opened accelerator with a bundle: images in, predictions out."""

from __future__ import annotations

import threading
import time

from edgemoe.bundle import Bundle
from edgemoe.errors import DeviceError
from edgemoe.runtime.executor import Executor
from edgemoe.runtime.frames import FrameSource, items
from edgemoe.runtime.images import ImageLike, prepare
from edgemoe.runtime.pipeline import Pipeline
from edgemoe.runtime.predictions import Prediction, interpret
from edgemoe.runtime.stream import Stream, TaskSource, task_lists
from edgemoe_models.model_image import ModelImage
from edgemoe_models.pictures import Notes, Resize

__all__ = ["Accelerator"]


class Accelerator:
    """Runs one bundle on one device; made by ``edgemoe.open``. A context manager; ``close`` frees everything.

    Attributes:
        bundle: what it runs
        device: ``reference``, ``sim``, ``pynq``, ``serial``, or the name of a Platform of one's own
        tasks: names of the bundle's tasks
        executor: what runs the programs, for measurements; a ``Driver`` unless it is the reference
    """

    def __init__(self, executor: Executor, resize: Resize | None = None, notes: Notes | None = None) -> None:
        self.executor, self._resize, self._notes = executor, resize, notes or Notes()
        self.bundle: Bundle = executor.bundle
        self.device = executor.name
        self.tasks = tuple(self.bundle.tasks)
        self._lock = threading.Lock()
        self._active: Pipeline | None = None
        self._closed = False

    def run(self, image: ImageLike, task: str) -> Prediction:
        """One inference.

        Args:
            image: uint8 [H, W, 3], RGB, of the model's size (of any with ``resize``), or the path of an image or a
                ``.npy``
            task: one of ``tasks``

        Returns:
            A ``Segmentation``, ``Depth``, ``Normals``,
            ``Edges``, ``Classification`` or ``Features``, as the task's kind is

        Raises:
            ValueError: the image cannot be read, or does not fit
            BundleError: there is no such task
            DeviceError: the inference failed, the accelerator is closed, or a stream is using it
        """
        if not isinstance(task, str):
            raise ValueError(f"task must be one of {', '.join(self.tasks)}, not {task!r}; a stream takes lists of them")
        self.bundle.task(task)
        with self._lock:
            self._check_free()
            begin = time.perf_counter()
            self.executor.pack(0, self._prepare(image))
            measured = self.executor.execute(task, 0, 0)
            raw = self.executor.unpack(task, 0)
            spent = time.perf_counter() - begin - measured.wall_seconds
        return interpret(self.bundle, task, raw, measured, spent)

    def stream(self, source: FrameSource, tasks: TaskSource = None, *, on_error: str = "raise") -> Stream:
        """Frames through their tasks, in order, while preparing and interpreting overlap with the device.

        Args:
            source: whatever ``edgemoe.frames`` takes
            tasks: a task, or a list of tasks, for every frame; a function of the frame's number; any other iterable has
                each frame's in turn; None: all tasks
            on_error: ``raise`` FrameError at the first frame that fails, after all frames before it; or ``report``:
                yield that frame with its ``error`` and go on

        Returns:
            An iterator of ``Frame``, whose ``stats`` may be read at any time

        Raises:
            ValueError: there is no such source
            BundleError: there is no such task
            DeviceError: the accelerator is closed, or another stream is using it
        """
        if on_error not in ("raise", "report"):
            raise ValueError(f"on_error must be raise or report, not {on_error!r}")
        lists = task_lists(self.bundle, tasks)
        with self._lock:
            self._check_free()
            self._active = Pipeline(
                self.executor, items(source), lists, self._prepare, on_error == "report", self._stream_ended
            )
            return Stream(self._active, on_error == "report")

    def reset(self) -> None:
        """Forget errors, and stop what another program may have left running; DeviceError while a stream runs."""
        with self._lock:
            self._check_free()
            self.executor.reset()

    @property
    def clock_mhz(self) -> float:
        """The device's clock; a simulation has the configuration's assumed one, and so has the reference."""
        return self.executor.clock_mhz

    def power(self) -> dict[str, float]:
        """Watts of each supply rail that the board measures, now; empty: nothing is measured. At any time."""
        return self.executor.power()

    def close(self) -> None:
        """End a running stream and free everything; a second call does nothing."""
        self._closed = True  # from here on nothing new begins
        with self._lock:
            active = self._active
        if active is not None:
            active.close()
        with self._lock:
            self.executor.close()

    def __enter__(self) -> Accelerator:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _prepare(self, image: object) -> ModelImage:
        return prepare(image, self.bundle.model, self._resize, self._notes)  # type: ignore[arg-type]

    def _check_free(self) -> None:
        if self._closed:
            raise DeviceError(f"device {self.device} is closed; open it again")
        if self._active is not None:
            raise DeviceError("a stream is using this accelerator; finish or close it first")

    def _stream_ended(self) -> None:
        self._active = None
