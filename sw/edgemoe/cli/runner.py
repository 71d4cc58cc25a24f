"""``edgemoe run``: image files through a bundle's tasks on a device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgemoe.bundle import Bundle
from edgemoe.reports.cycles import Inference, build_report, save_report
from edgemoe.reports.pictures import save_picture
from edgemoe.runtime.executor import Measured
from edgemoe.runtime.images import RGB, prepare
from edgemoe.runtime.opening import open as open_device
from edgemoe.runtime.predictions import Prediction, interpret
from edgemoe_models.integer import reference
from edgemoe_models.pictures import Notes, Resize

__all__ = ["RunOptions", "run_images"]


@dataclass(frozen=True)
class RunOptions:
    """How to run.

    Attributes:
        device: ``reference``, ``sim`` or ``pynq``
        out: folder for raw outputs, pictures and, of ``sim``, ``report.json``
        tasks: of the bundle; all where none is named
        resize: ``crop`` or ``squeeze`` images of other sizes
        trace: compare every tensor with the reference (``sim``)
        waves: VCD file, first and last command of the waveforms of the first inference (``sim``)
        building: told how far the build of the simulator is
        note: told once for each kind of thing that was done to pictures
    """

    device: str
    out: Path
    tasks: Sequence[str] = ()
    resize: Resize | None = None
    trace: bool = False
    waves: tuple[Path, int, int | None] | None = None
    building: Callable[[str, float], None] | None = None
    note: Callable[[str], None] = print


def run_images(bundle: Bundle, paths: Sequence[Path], options: RunOptions, track: Callable[[float], None]) -> bool:
    """Run every image and task; ``track`` is told the share that is done.

    Returns False when tensors were compared and differ.
    """
    tasks = [bundle.task(name).name for name in options.tasks] or list(bundle.tasks)
    notes = Notes(options.note)
    images = {path: prepare(path, bundle.model, options.resize, notes) for path in paths}
    device = _Simulated(bundle, options) if options.device == "sim" else open_device(options.device, bundle)
    options.out.mkdir(parents=True, exist_ok=True)
    total, done = len(images) * len(tasks), 0
    with device:
        for path, image in images.items():
            for task in tasks:
                _save(options.out / f"{path.stem}-{task}", image, device.run(image, task))
                done += 1
                track(done / total)
    return not isinstance(device, _Simulated) or device.report([path.name for path in images])


def _save(stem: Path, image: RGB, prediction: Prediction) -> None:
    np.save(stem.with_name(stem.name + ".npy"), prediction.raw)
    if prediction.model.task(prediction.task).is_dense:
        save_picture(stem.with_name(stem.name + ".png"), prediction.kind, image, prediction.values)


class _Simulated:
    """The verified simulation with an accelerator's ``run``; keeps what its report needs."""

    def __init__(self, bundle: Bundle, options: RunOptions) -> None:
        from edgemoe.runtime.verify import VerifiedRun, Waves, open_verified

        self._bundle, self._options = bundle, options
        self._graph = bundle.graph()
        self._runs: list[tuple[str, VerifiedRun]] = []
        self._verifier = open_verified(
            bundle,
            waves=None if options.waves is None else Waves(*options.waves),
            building=options.building,
        )

    def run(self, image: RGB, task: str) -> Prediction:
        expected: dict[str, Any] | None = None
        if self._options.trace:
            reference.run(self._graph, image, task, expected := {})
        result = self._verifier.run(image, task, expected=expected)
        self._runs.append((task, result))
        seconds = result.stats["seconds"]
        return interpret(self._bundle, task, result.outputs, Measured(seconds, seconds, result.stats["cycles"]), 0)

    def report(self, names: Sequence[str]) -> bool:
        """Write ``report.json`` of all runs, image by image; whether no tensor differed."""
        each = len(self._runs) // len(names)
        inferences = [
            Inference(task, names[number // each], run.stats) for number, (task, run) in enumerate(self._runs)
        ]
        comparisons = [run.comparison for _, run in self._runs if run.comparison is not None]
        save_report(build_report(self._bundle, inferences, {}, comparisons), self._options.out / "report.json")
        return all(comparison.mismatches == 0 for comparison in comparisons)

    def __enter__(self) -> _Simulated:
        return self

    def __exit__(self, *_: object) -> None:
        self._verifier.close()
