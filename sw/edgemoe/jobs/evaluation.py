"""How right a bundle is on pictures with labels, on any device; the float model beside it."""

from __future__ import annotations

import contextlib
import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgemoe.bundle import Bundle
from edgemoe.jobs.evaluation_state import EvaluationState
from edgemoe.runtime.opening import open as open_device
from edgemoe.runtime.predictions import Classification, Prediction
from edgemoe.version import __version__
from edgemoe_models import float_reference
from edgemoe_models.checkpoint import load_checkpoint
from edgemoe_models.config import TaskConfig
from edgemoe_models.datasets.arrays import IGNORE
from edgemoe_models.evaluation.classes import BEST, best_of
from edgemoe_models.evaluation.labelled import LabelError, Labelled
from edgemoe_models.evaluation.masks import read_mask
from edgemoe_models.integer.postprocess import arrange, postprocess
from edgemoe_models.pictures import Notes, PictureError, Resize, fit, read_picture
from edgemoe_models.pictures.fitting import PictureSizeError, middle
from edgemoe_models.storage.shards import shard_paths

__all__ = ["Evaluation", "EvaluationOptions", "FloatModel", "choose_task", "evaluation_key"]

KINDS = ("classification", "segmentation")
_NOTED = 5  # pictures that are skipped and named

Record = dict[str, Any]


@dataclass(frozen=True)
class EvaluationOptions:
    """How to evaluate.

    Attributes:
        device: as ``edgemoe.open`` takes it
        resize: ``crop`` or ``squeeze`` pictures of other sizes; None: refuse them
        crop_share: of ``crop`` the middle, this share of its width and height; of whole pictures' labels only
        void: what masks have where a pixel has no label
        device_options: further ones of ``edgemoe.open``
        note: told once for each kind of thing that was done to pictures, and the first pictures that were skipped
    """

    device: str = "reference"
    resize: Resize | None = None
    crop_share: float = 1.0
    void: int = IGNORE
    device_options: Mapping[str, Any] = field(default_factory=dict)
    note: Callable[[str], None] = lambda text: None

    def __post_init__(self) -> None:
        if not 0 < self.crop_share <= 1:
            raise ValueError(f"crop_share must be above 0 and at most 1, not {self.crop_share!r}")
        if self.crop_share < 1 and self.resize != "crop":
            raise ValueError("crop_share is a share of what resize='crop' takes (--resize crop)")


def choose_task(bundle: Bundle, name: str | None, kind: str) -> TaskConfig:
    """The named task, or the only one of a kind.

    Raises:
        BundleError: there is no such task
        LabelError: it is of another kind, or none or several are of this one
    """
    option = {"classification": "labels of whole pictures", "segmentation": "masks (--masks)"}
    if name is not None:
        task = bundle.model.task(bundle.task(name).name)
        if task.kind != kind:
            wanted = option.get(task.kind, "no labels that this command reads")
            raise LabelError(f"{name} is of the kind {task.kind}, which takes {wanted}, not {option[kind]}")
        return task
    found = [task for task in bundle.model.tasks if task.kind == kind]
    if not found:
        kinds = ", ".join(f"{task.name} ({task.kind})" for task in bundle.model.tasks)
        hint = "; --masks FOLDER has the masks of a segmentation" if "(segmentation)" in kinds else ""
        raise LabelError(f"the bundle has no {kind}, of which {option[kind]} are; it has {kinds}{hint}")
    if len(found) > 1:
        raise LabelError(f"choose one with --task: {', '.join(task.name for task in found)}")
    return found[0]


class FloatModel:
    """A float checkpoint of the bundle's model.

    Raises:
        CheckpointError: it cannot be read
        LabelError: it is of another model
    """

    def __init__(self, path: Path, bundle: Bundle, task: TaskConfig) -> None:
        self.state, self.config = load_checkpoint(path)
        own, theirs = bundle.model, self.config
        same = any(one.name == task.name for one in theirs.tasks)
        if same:
            other = theirs.task(task.name)
            same = (other.kind, other.channels, other.cells) == (task.kind, task.channels, task.cells)
        if not same or (own.image_height, own.image_width) != (theirs.image_height, theirs.image_width):
            raise LabelError(
                f"{path}: it is another model than the bundle's: {theirs.name} for {theirs.image_width} x "
                f"{theirs.image_height} pixels, not {own.name} for {own.image_width} x {own.image_height} with the "
                f"task {task.name}"
            )
        digest = hashlib.sha256()
        for part in shard_paths(path):
            digest.update(part.read_bytes())
        self.digest = digest.hexdigest()

    def output(self, image: npt.NDArray[np.uint8], task: str) -> npt.NDArray[Any]:
        """The head's outputs: [channels], or [channels, h, w]."""
        rows = np.asarray(float_reference.forward(self.state, self.config, image[None], task))[0]
        return arrange(self.config, task, rows)


def bundle_digest(bundle: Bundle) -> str:
    """A hash of all that a device computes with."""
    digest = hashlib.sha256(bundle.config.content_hash.encode() + bundle.data.tobytes() + bundle.graph_file.tobytes())
    for name, task in bundle.tasks.items():
        digest.update(name.encode() + task.program)
    return digest.hexdigest()


def evaluation_key(
    bundle: Bundle, task: TaskConfig, options: EvaluationOptions, floats: FloatModel | None
) -> dict[str, str]:
    """What makes results comparable: those of another key are another evaluation's."""
    return {
        "edgemoe": __version__,
        "bundle": bundle_digest(bundle)[:16],
        "task": task.name,
        "device": options.device,
        "resize": (options.resize or "none") + (f" {options.crop_share:g}" if options.crop_share < 1 else ""),
        "float_checkpoint": floats.digest[:16] if floats else "none",
        **({} if task.kind == "classification" else {"void": str(options.void)}),
    }


class Evaluation:
    """All pictures through one task; each that is in ``state`` already is not run again.

    Args:
        bundle: what to run
        task: a classification or a segmentation of its
        pictures: with labels, or with masks
        state: what was found before
        options: how
        floats: the float model, to run beside it

    Attributes:
        records: what was found, by the pictures' names, after ``run``
        skipped: pictures that cannot be read, and why
        before: how many were in ``state``
    """

    def __init__(
        self,
        bundle: Bundle,
        task: TaskConfig,
        pictures: Sequence[Labelled],
        state: EvaluationState,
        options: EvaluationOptions,
        floats: FloatModel | None = None,
    ) -> None:
        self.bundle, self.task, self.pictures = bundle, task, pictures
        self._state, self._options, self._floats = state, options, floats
        self._notes = Notes(options.note)
        self._size = (bundle.model.image_height, bundle.model.image_width)
        self.records: dict[str, Record] = {}
        self.skipped: dict[str, PictureError] = {}
        self._refused: PictureError | None = None
        self._stamps = {one.name: _stamp(one) for one in pictures}
        for one in pictures:
            if (found := state.get(one.name, self._stamps[one.name])) is not None:
                self.records[one.name] = self._checked(found)
        self.before = len(self.records)

    def _checked(self, record: Record) -> Record:
        """A record of a file, if it can be of this task."""
        channels, whole = self.task.channels, self.task.kind == "classification"
        for name in ("integer", "float") if self._floats else ("integer",):
            numbers: list[int] = record.get(name, [0])
            fits = max(numbers, default=channels) < channels if whole else len(numbers) % 2 == 0
            if not fits or (not whole and max(numbers[::2], default=0) >= channels**2) or name not in record:
                raise self._misfit()
        if self._floats and not whole and len(record.get("agreement", ())) != 2:
            raise self._misfit()
        return record

    def _misfit(self) -> ValueError:
        return ValueError(
            f"{self._state.path}: its records do not fit the task {self.task.name}; remove it, or give another --state"
        )

    def run(self, track: Callable[[int], None] = lambda done: None) -> None:
        """Run what is missing; ``track`` is told how many pictures are done. Whatever ends it, results are kept.

        Raises:
            DeviceError: the device is missing or failed
            PictureError: a picture has another size, a mask cannot be used, or none of the pictures could be read
            SaveError: results cannot be kept
        """
        missing = [one for one in self.pictures if one.name not in self.records]
        track(self.before)
        if not missing:
            return
        waiting: deque[tuple[Labelled, npt.NDArray[np.uint8]]] = deque()
        try:
            with open_device(self._options.device, self.bundle, **self._options.device_options) as accelerator:
                with accelerator.stream(self._images(missing, waiting), self.task.name) as stream:
                    for frame in stream:
                        one, image = waiting.popleft()
                        self._keep(one, self._record(one, image, frame[self.task.name]))
                        track(len(self.records) + len(self.skipped))
        finally:
            self._state.flush()
        if self._refused is not None:
            raise self._refused
        if len(self.skipped) == len(self.pictures):
            raise next(iter(self.skipped.values()))

    def _images(
        self, missing: Sequence[Labelled], waiting: deque[tuple[Labelled, npt.NDArray[np.uint8]]]
    ) -> Iterator[npt.NDArray[np.uint8]]:
        """Pictures of the model's size, in the stream's thread; one that cannot be read is skipped."""
        for one in missing:
            try:
                image = self._read(one)
            except PictureSizeError as error:
                self._refused = error
                return
            except PictureError as error:
                self.skipped[one.name] = error
                if len(self.skipped) <= _NOTED:
                    self._options.note(f"skipped: {error}")
                continue
            waiting.append((one, image))
            yield image

    def _read(self, one: Labelled) -> npt.NDArray[np.uint8]:
        options = self._options
        if options.crop_share == 1:
            return read_picture(one.path, self._size, options.resize, notes=self._notes, may_turn=one.mask is None)
        whole = read_picture(one.path, notes=self._notes)
        return fit(middle(whole, self._size, options.crop_share), self._size, "crop")

    def _keep(self, one: Labelled, found: Record) -> None:
        record = {"stamp": self._stamps[one.name], **found}
        self._state.add(one.name, record)
        self.records[one.name] = record

    def _record(self, one: Labelled, image: npt.NDArray[np.uint8], prediction: Prediction) -> Record:
        output = self._floats.output(image, self.task.name) if self._floats else None
        if isinstance(prediction, Classification):
            best = [found.label for found in prediction.topk(BEST)]
            return {"integer": best} | ({} if output is None else {"float": best_of(output)})
        assert one.mask is not None
        mask = read_mask(one.mask, self.task, self._size, self._options.resize, self._options.void)
        labelled = mask != IGNORE
        truth, found = mask[labelled].astype(np.int64), np.asarray(prediction.values)[labelled]
        record: Record = {"integer": self._pairs(truth, found)}
        if output is not None and self._floats is not None:
            floats = postprocess(self._floats.config, self.task.name, output)[labelled]
            record |= {"float": self._pairs(truth, floats)}
            record |= {"agreement": [int(np.count_nonzero(floats == found)), int(found.size)]}
        return record

    def _pairs(self, truth: npt.NDArray[np.int64], found: npt.NDArray[Any]) -> list[int]:
        """A confusion matrix [label, prediction] as place, pixels, place, pixels ... of what is not 0."""
        places, counts = np.unique(truth * self.task.channels + found, return_counts=True)
        return [int(number) for pair in zip(places, counts, strict=True) for number in pair]


def _stamp(one: Labelled) -> list[int]:
    """Changes when a picture or its mask does: sizes and times of the files; empty where there is none."""
    stamp: list[int] = []
    for path in filter(None, (one.path, one.mask)):
        with contextlib.suppress(OSError):
            about = path.stat()
            stamp += [about.st_size, max(about.st_mtime_ns, 0)]
    return stamp
