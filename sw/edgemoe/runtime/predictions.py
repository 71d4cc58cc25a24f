"""What a task says about an image, typed, from the accelerator's raw integers. NumPy only."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from edgemoe.bundle import Bundle, Joined
from edgemoe.runtime.executor import Measured
from edgemoe_models.config import ModelConfig
from edgemoe_models.integer.postprocess import arrange, postprocess

__all__ = [
    "ClassScore",
    "Classification",
    "Depth",
    "Edges",
    "Features",
    "Normals",
    "Prediction",
    "Segmentation",
    "Stats",
    "interpret",
]

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Stats:
    """What one inference cost.

    One program may make several predictions: of several tasks of an image, or of several images. What the accelerator
    counts is then the whole program's, and the same in the ``stats`` of all ``shared`` of them: do not add it up.

    Attributes:
        cycles: of the accelerator, for the whole program; None on the reference
        device_seconds: seconds from the program's start to its end, on the device's clock (a simulation's is the
            assumed one)
        host_seconds: seconds of what the host did around it: packing, unpacking and making this prediction; not the
            wait
        expert_loads: tokens of each expert, by the number of the MoE block; of all ``shared`` predictions together
        attempts: 1, and 1 more for each retry
        tasks: of the program, which has computed all of them
        images: of the program, which has computed them for each
    """

    cycles: int | None
    device_seconds: float
    host_seconds: float
    expert_loads: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    attempts: int = 1
    tasks: tuple[str, ...] = ()
    images: int = 1

    @property
    def shared(self) -> int:
        """Predictions that the program has made: 1 unless several were computed together."""
        return max(len(self.tasks), 1) * self.images

    @property
    def cycles_each(self) -> float | None:
        """``cycles`` divided evenly among the predictions of the program: nothing counts each one's own."""
        return None if self.cycles is None else self.cycles / self.shared

    @property
    def device_seconds_each(self) -> float:
        """``device_seconds``, divided in the same way."""
        return self.device_seconds / self.shared

    @property
    def expert_tokens(self) -> tuple[int, ...]:
        """Tokens of each expert in the last MoE block, as ``expert_loads`` counts them; empty without experts."""
        return self.expert_loads[max(self.expert_loads)] if self.expert_loads else ()


@dataclass(frozen=True, eq=False)
class Prediction:
    """One task's prediction for one image; the classes below add what is particular to their kind.

    Attributes:
        task: its name
        raw: the head's outputs as the accelerator wrote them, int16 [rows, channels]
        scale: a unit of ``raw`` in the float model's outputs
        stats: what it cost
        model: which made it
    """

    task: str
    raw: npt.NDArray[np.int16]
    scale: float
    stats: Stats
    model: ModelConfig

    @property
    def kind(self) -> str:
        """``segmentation``, ``depth``, ``normals``, ``edges``, ``classification`` or ``features``."""
        return self.model.task(self.task).kind

    @functools.cached_property
    def decoded(self) -> Floats:
        """The float model's outputs at the head's own resolution: [channels, h, w], or [channels] of a class."""
        return arrange(self.model, self.task, self.raw).astype(np.float32) * np.float32(self.scale)

    @property
    def values(self) -> npt.NDArray[np.generic]:
        """The prediction as one array: ``labels``, ``metres``, ``vectors``, ``mask``, ``scores`` or ``vector``."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class Segmentation(Prediction):
    """The class of each pixel.

    Attributes:
        labels: numbers of classes, uint8 [H, W] (uint16 above 256 classes), H and W those of the model's picture
    """

    labels: npt.NDArray[Any]

    @property
    def values(self) -> npt.NDArray[np.generic]:
        return self.labels


@dataclass(frozen=True, eq=False)
class Depth(Prediction):
    """The distance of each pixel.

    Attributes:
        metres: along the optical axis, float32 [H, W]
    """

    metres: Floats

    @property
    def values(self) -> npt.NDArray[np.generic]:
        return self.metres


@dataclass(frozen=True, eq=False)
class Normals(Prediction):
    """The direction of the surface at each pixel.

    Attributes:
        vectors: of length 1, float32 [H, W, 3]; the packaged models give them in the camera's axes: x right, y down,
            z forward
    """

    vectors: Floats

    @property
    def values(self) -> npt.NDArray[np.generic]:
        return self.vectors


@dataclass(frozen=True, eq=False)
class Edges(Prediction):
    """Where edges of objects are.

    Attributes:
        mask: True on an edge, bool [H, W]
    """

    mask: npt.NDArray[np.bool_]

    @property
    def values(self) -> npt.NDArray[np.generic]:
        return self.mask

    @functools.cached_property
    def probability(self) -> Floats:
        """Of an edge in each of the head's cells, float32 [h, w]."""
        return np.asarray(1 / (1 + np.exp(-self.decoded[0])), np.float32)


class ClassScore(NamedTuple):
    """One class of a classification.

    Attributes:
        label: its number
        name: the model's own, else ``class`` and the number
        probability: 0..1
    """

    label: int
    name: str
    probability: float


@dataclass(frozen=True, eq=False)
class Classification(Prediction):
    """The class of the whole picture.

    Attributes:
        label: number of the most probable class; of equal ones the lowest
        scores: probabilities of all classes (softmax), float32 [classes], which sum to 1
    """

    label: int
    scores: Floats

    def topk(self, k: int = 5) -> list[ClassScore]:
        """The ``k`` most probable classes with their names, the best first; of equal ones the lower number first.

        Raises:
            ValueError: ``k`` is below 1; of more classes than there are all are given
        """
        if k < 1:
            raise ValueError(f"k must be at least 1, not {k!r}")
        task = self.model.task(self.task)
        best = np.argsort(-self.scores, kind="stable")[:k].tolist()
        return [ClassScore(number, task.class_name(number), float(self.scores[number])) for number in best]

    @property
    def values(self) -> npt.NDArray[np.generic]:
        return self.scores


@dataclass(frozen=True, eq=False)
class Features(Prediction):
    """What a backbone without a head says of the whole picture.

    Attributes:
        vector: float32 [channels], in the float model's units
    """

    vector: Floats

    @property
    def values(self) -> npt.NDArray[np.generic]:
        return self.vector


def interpret(
    bundle: Bundle,
    task: str,
    raw: npt.NDArray[np.int16],
    measured: Measured,
    host_seconds: float,
    joined: Joined | None = None,
) -> Prediction:
    """The typed prediction of a task's raw outputs; ``host_seconds``: what the host spent before this, ``joined``: of
    what the program was that was measured, if not of the task alone."""
    begin = time.perf_counter()
    model, scale = bundle.model, bundle.task(task).output_scale
    kind = model.task(task).kind
    if kind == "segmentation" and scale > 0 and model.output_shape(task)[1:] == (model.image_height, model.image_width):
        values: npt.NDArray[Any] = _labels(model, task, raw)
    else:
        values = postprocess(model, task, arrange(model, task, raw).astype(np.float32) * np.float32(scale))
    host_seconds += time.perf_counter() - begin
    joined = joined or Joined((task,))
    stats = Stats(
        measured.cycles,
        measured.seconds,
        host_seconds,
        measured.expert_loads,
        measured.attempts,
        joined.tasks,
        joined.images,
    )
    common = (task, raw, scale, stats, model)
    if kind == "classification":
        return Classification(*common, int(values.argmax()), values)
    return _OTHERS[kind](*common, values)


_OTHERS: dict[str, Callable[..., Prediction]] = {
    "segmentation": Segmentation,
    "depth": Depth,
    "normals": Normals,
    "edges": Edges,
    "features": Features,
}


def _labels(model: ModelConfig, task: str, raw: npt.NDArray[np.int16]) -> npt.NDArray[Any]:
    """argmax of integers, which have the order of the floats; the lowest of equal classes, as argmax has it.

    Class by class over all pixels, then the labels are put in their place: several times faster than the other way.
    """
    head = model.task(task)
    classes = np.ascontiguousarray(raw.reshape(-1, head.channels).T)
    best = classes[0].copy()
    labels = np.zeros(best.shape, np.uint8 if head.channels <= 256 else np.uint16)
    for number in range(1, head.channels):
        wins = (classes[number] > best).astype(labels.dtype)
        wins *= labels.dtype.type(number)
        np.maximum(labels, wins, out=labels)  # a later win has the larger number
        np.maximum(best, classes[number], out=best)
    cells = labels.reshape(*model.grid, head.cells, head.cells)
    return cells.transpose(0, 2, 1, 3).reshape(model.image_height, model.image_width)
