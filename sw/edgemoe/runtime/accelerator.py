"""An opened accelerator with a bundle: images in, predictions out."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, overload

from edgemoe.bundle import Bundle, Joined
from edgemoe.errors import DeviceError
from edgemoe.runtime.direct import execute_plan, interpret_all
from edgemoe.runtime.executor import Executor
from edgemoe.runtime.frames import FrameSource, items
from edgemoe.runtime.images import ImageLike, prepare
from edgemoe.runtime.pipeline import Pipeline
from edgemoe.runtime.planner import Chunk, Plan, Planner, Step
from edgemoe.runtime.predictions import Prediction
from edgemoe.runtime.stream import Stream, TaskSource, task_lists
from edgemoe_models.model_image import ModelImage
from edgemoe_models.pictures import Notes, Resize

__all__ = ["Accelerator"]


class Accelerator:
    """Runs one bundle on one device; made by ``edgemoe.open``. A context manager; ``close`` frees everything.

    Attributes:
        bundle: what it runs
        device: ``reference``, ``sim``, ``pynq``, ``serial``, ``remote``, or the name of a Platform of one's own
        tasks: names of the bundle's tasks
        executor: what runs the programs, for measurements; a ``Driver`` unless it is the reference
    """

    def __init__(self, executor: Executor, resize: Resize | None = None, notes: Notes | None = None) -> None:
        self.executor, self._resize, self._notes = executor, resize, notes or Notes()
        self.bundle: Bundle = executor.bundle
        self.device = executor.name
        self.tasks = tuple(self.bundle.tasks)
        self._planner = Planner(self.bundle)
        self._lock = threading.Lock()
        self._active: Pipeline | None = None
        self._closed = False

    @overload
    def run(self, image: ImageLike, task: str) -> Prediction: ...
    @overload
    def run(self, image: ImageLike, task: list[str] | tuple[str, ...]) -> dict[str, Prediction]: ...
    @overload
    def run(self, image: list[Any] | tuple[Any, ...], task: str) -> list[Prediction]: ...
    @overload
    def run(
        self, image: list[Any] | tuple[Any, ...], task: list[str] | tuple[str, ...]
    ) -> list[dict[str, Prediction]]: ...

    def run(self, image: Any, task: Any) -> Any:
        """One inference, or several, for which the bundle's programs of several tasks or images are used.

        Args:
            image: uint8 [H, W, 3], RGB, of the model's size (of any with ``resize``), or the path of an image or a
                ``.npy``; or a list of these
            task: one of ``tasks``, or a list of them

        Returns:
            A ``Segmentation``, ``Depth``, ``Normals``,
            ``Edges``, ``Classification`` or ``Features``, as the task's kind is; of a list of tasks a dictionary by
            task, of a list of images a list of what each has. Of what was computed together the ``stats`` are those of
            the whole program; ``stats.shared`` says of how many predictions

        Raises:
            ValueError: an image cannot be read, or does not fit, or a list is empty
            BundleError: there is no such task
            DeviceError: an inference failed, the accelerator is closed, or a stream is using it
        """
        tasks = self._checked(task)
        images = image if isinstance(image, (list, tuple)) else [image]
        if not images:
            raise ValueError("there are no images to run")
        found = self._run(self._planner.plan(tasks, len(images)), tasks, images)
        of_each: Sequence[Any] = [each[task] for each in found] if isinstance(task, str) else found
        return of_each if images is image else of_each[0]

    def run_program(self, joined: Joined, images: Sequence[ImageLike]) -> list[dict[str, Prediction]]:
        """One program of the bundle, whether or not ``run`` would choose it; for checks and measurements.

        Args:
            joined: what it computes, as ``bundle.joint`` has it
            images: as many as the program takes, each as ``run`` takes it

        Returns:
            Of each image its predictions by task

        Raises:
            ValueError: an image cannot be read, or does not fit, or there are more or fewer of them
            BundleError: the bundle has no such program
            DeviceError: as ``run``
        """
        cycles = self.bundle.program(joined).estimated_cycles
        if len(images) != joined.images:
            raise ValueError(f"the program of {joined} takes {joined.images} images, not {len(images)}")
        plan = Plan((Chunk(0, joined.images, (Step(joined, 0, cycles),)),))
        return self._run(plan, joined.tasks, images)

    def _run(self, plan: Plan, tasks: tuple[str, ...], images: Sequence[Any]) -> list[dict[str, Prediction]]:
        with self._lock:
            self._check_free()
            results = execute_plan(self.executor, plan, images, self._prepare)
        return interpret_all(self.bundle, tasks, len(images), results)

    def _checked(self, task: object) -> tuple[str, ...]:
        """The tasks that ``run`` is to run, each once."""
        names = [task] if isinstance(task, str) else task
        if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names) or not names:
            raise ValueError(f"task must be one of {', '.join(self.tasks)}, or a list of them, not {task!r}")
        return tuple(self.bundle.task(name).name for name in dict.fromkeys(names))

    def stream(self, source: FrameSource, tasks: TaskSource = None, *, on_error: str = "raise") -> Stream:
        """Frames through their tasks, in order, while preparing and interpreting overlap with the device.

        Where the bundle has a program of a frame's tasks, it is used; where it has programs of several images, frames
        of the same tasks that arrive while the device is busy run together, and none waits for another one.

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
