"""Pictures through a bundle's tasks on a device: raw outputs, pictures of the predictions and, simulated, a report."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgemoe.bundle import Bundle
from edgemoe.reports.cycles import Inference, build_report
from edgemoe.reports.files import save_report
from edgemoe.reports.names import result_names
from edgemoe.reports.pictures import save_predictions
from edgemoe.runtime.executor import Measured
from edgemoe.runtime.images import prepare
from edgemoe.runtime.opening import open as open_device
from edgemoe.runtime.predictions import Classification, Prediction, interpret
from edgemoe.runtime.waves import Waves
from edgemoe_models.integer import reference
from edgemoe_models.model_image import ModelImage
from edgemoe_models.pictures import Notes, PictureError, Resize, picture_files
from edgemoe_models.storage.array_file import write_array

__all__ = ["PictureResult", "PictureRun", "RunOptions", "TaskResult", "picture_paths"]


@dataclass(frozen=True)
class RunOptions:
    """How to run.

    Attributes:
        device: as ``edgemoe.open`` takes it
        out: folder for raw outputs, pictures and, of ``sim``, ``report.json``
        tasks: of the bundle; all where none is named
        resize: ``crop`` or ``squeeze`` images of other sizes
        trace: compare every tensor with the reference (``sim``)
        waves: of the first inference (``sim``)
        device_options: further ones of ``edgemoe.open``
        building: told how far the build of the simulator is
        note: told once for each kind of thing that was done to pictures, and each picture that was skipped
    """

    device: str
    out: Path
    tasks: Sequence[str] = ()
    resize: Resize | None = None
    trace: bool = True
    waves: Waves | None = None
    device_options: Mapping[str, Any] = field(default_factory=dict)
    building: Callable[[str, float], None] | None = None
    note: Callable[[str], None] = lambda text: None


@dataclass(frozen=True)
class TaskResult:
    """One task on one picture; ``tensors`` were compared (0: none), of which ``mismatches`` values differ."""

    prediction: Prediction
    tensors: int = 0
    mismatches: int = 0


@dataclass(frozen=True)
class PictureResult:
    """What was found in a picture, by task."""

    path: Path
    tasks: dict[str, TaskResult]


def picture_paths(given: Sequence[Path]) -> list[Path]:
    """Files as they are given, folders as the pictures in them.

    Raises:
        PictureError: a folder has no pictures, or cannot be read
    """
    return [path for one in given for path in (picture_files(one) if one.is_dir() else [one])]


class PictureRun:
    """All pictures through all tasks, one after the other.

    Files that are named are read when this is made; a picture of a folder is read when its turn comes, and skipped with
    a note where it cannot be.

    Args:
        bundle: what to run
        given: files and folders
        options: how

    Raises:
        BundleError: there is no such task
        PictureError: a file cannot be read, or a folder has no pictures
        ValueError: a result would replace a picture that is read
    """

    def __init__(self, bundle: Bundle, given: Sequence[Path], options: RunOptions) -> None:
        self.bundle, self._options, self._notes = bundle, options, Notes(options.note)
        self.tasks = [bundle.task(name).name for name in options.tasks] or list(bundle.tasks)
        self.paths = list(dict.fromkeys(picture_paths(given)))
        self.skipped: list[PictureError] = []
        self._names = dict(zip(self.paths, result_names(self.paths, self.tasks), strict=True))
        self._check_results()
        self._ready = {path: self._read(path) for path in given if not path.is_dir()}

    def _check_results(self) -> None:
        read = {os.path.realpath(path) for path in self.paths}
        for path in self.paths:
            for written in self._written(path):
                if os.path.realpath(written) in read:
                    raise ValueError(f"{written} is read and would be replaced by a result; choose another --out")

    def _written(self, path: Path) -> list[Path]:
        stem = self._options.out / self._names[path]
        return [stem.with_name(f"{stem.name}-{task}{kind}") for task in self.tasks for kind in (".npy", ".png")]

    def _read(self, path: Path) -> ModelImage:
        return prepare(path, self.bundle.model, self._options.resize, self._notes)

    def results(self) -> Iterator[PictureResult]:
        """Run; each picture's files are written before it is given.

        Raises:
            DeviceError: the device is missing or failed
            PictureError: of a folder's pictures none could be read
            SaveError: a file cannot be written
        """
        with contextlib.closing(self._device()) as device:
            for path in self.paths:
                try:
                    image = self._ready.pop(path) if path in self._ready else self._read(path)
                except PictureError as error:
                    self.skipped.append(error)
                    self._options.note(f"skipped: {error}")
                    continue
                found = device.run(image, self.tasks, self._names[path])
                self._save(path, image, found)
                yield PictureResult(path, found)
            if len(self.skipped) == len(self.paths):
                raise self.skipped[0]
            device.finish()

    def _device(self) -> _Device:
        if self._options.device == "sim":
            return _Simulated(self.bundle, self._options)
        return _Opened(self.bundle, self._options)

    def _save(self, path: Path, image: ModelImage, found: dict[str, TaskResult]) -> None:
        stem = self._options.out / self._names[path]
        for task, result in found.items():
            write_array(stem.with_name(f"{stem.name}-{task}.npy"), result.prediction.raw)
        save_predictions(stem, np.asarray(image), {task: result.prediction for task, result in found.items()})


class _Device:
    """What runs one picture after the other."""

    def run(self, image: ModelImage, tasks: list[str], name: str) -> dict[str, TaskResult]:
        """All tasks of one picture, which is called ``name``."""
        raise NotImplementedError

    def finish(self) -> None:
        """All pictures are done."""

    def close(self) -> None:
        """Give the device back."""


class _Opened(_Device):
    """What ``edgemoe.open`` opens; tasks of which the bundle has one program are computed together."""

    def __init__(self, bundle: Bundle, options: RunOptions) -> None:
        self._accelerator = open_device(options.device, bundle, **options.device_options)

    def run(self, image: ModelImage, tasks: list[str], name: str) -> dict[str, TaskResult]:
        return {task: TaskResult(found) for task, found in self._accelerator.run(image, tasks).items()}

    def close(self) -> None:
        self._accelerator.close()


class _Simulated(_Device):
    """The verified simulation, task by task, as its report is; keeps what that needs."""

    def __init__(self, bundle: Bundle, options: RunOptions) -> None:
        from edgemoe.runtime.verify import open_verified  # needs the simulator, as nothing else here does

        self._bundle, self._options = bundle, options
        self._graph = bundle.graph()
        self._runs: list[Inference] = []
        self._comparisons: list[Any] = []
        self._verifier = open_verified(
            bundle,
            waves=options.waves,
            building=options.building,
        )

    def run(self, image: ModelImage, tasks: list[str], name: str) -> dict[str, TaskResult]:
        return {task: self._run(image, task, name) for task in tasks}

    def _run(self, image: ModelImage, task: str, name: str) -> TaskResult:
        expected: dict[str, Any] | None = None
        if self._options.trace:
            reference.run(self._graph, image, task, expected := {})
        result = self._verifier.run(image, task, expected=expected)
        waves = self._options.waves
        if waves is not None and not self._runs and self._verifier.waves_cut:
            self._options.note(
                f"{waves.path} ends within the inference: it has reached {waves.limit / 1e9:g} GB; choose a part with "
                "--waves-from and --waves-to, or another --waves-limit"
            )
        seconds, compared = result.stats["seconds"], result.comparison
        measured = Measured(seconds, seconds, result.stats["cycles"])
        prediction = interpret(self._bundle, task, result.outputs, measured, 0)
        best = prediction.topk() if isinstance(prediction, Classification) else ()
        self._runs.append(Inference(task, name, result.stats, best))
        if compared is None:
            return TaskResult(prediction)
        self._comparisons.append(compared)
        return TaskResult(prediction, len(compared.tensors), compared.mismatches)

    def finish(self) -> None:
        report = build_report(self._bundle, self._runs, {}, self._comparisons)
        save_report(report, self._options.out / "report.json")

    def close(self) -> None:
        self._verifier.close()
