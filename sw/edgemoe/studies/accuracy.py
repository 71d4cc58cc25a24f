"""``edgemoe accuracy``: a model in every precision and on every executor, on the same held-out pictures.

Every row that claims to compute what the integer reference computes (Brevitas, RTL) is compared with it value by value.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.util
import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgemoe.compiler import build_bundle
from edgemoe.extras import install_command
from edgemoe.reports.tables import TextTable, loss_text
from edgemoe.runtime.verify import open_verified
from edgemoe.workloads import QAT_PRECISIONS, QatFiles, ptq_file, qat_files
from edgemoe_hw.spec.config import AcceleratorConfig
from edgemoe_models.checkpoint import load_checkpoint
from edgemoe_models.datasets import find
from edgemoe_models.evaluation.evaluate import evaluate, float_outputs, integer_outputs
from edgemoe_models.graph.file import read_graph
from edgemoe_models.graph.integer_graph import IntegerGraph
from edgemoe_models.integer import reference
from edgemoe_models.integer.postprocess import decode_output
from edgemoe_models.ptq.quantize import QuantizeOptions, data_set_pictures, quantize
from edgemoe_models.storage.cache import cache_root
from edgemoe_models.storage.shards import shard_paths
from edgemoe_models.studies.compare_ptq import COLUMNS
from edgemoe_sim.trace import Comparison

__all__ = [
    "DROPS",
    "AccuracyOptions",
    "Study",
    "accuracy_table",
    "brevitas_outputs",
    "differing",
    "drop",
    "run_accuracy",
    "summary",
]

_CALIBRATION = 16  # photographs

Images = npt.NDArray[np.uint8]
Metrics = dict[str, dict[str, float]]
Row = dict[str, Any]
Outputs = Callable[[str, Images], Iterable[npt.NDArray[Any]]]


@dataclasses.dataclass(frozen=True)
class Drop:
    """How a task's headline metric is compared with float's: ``loss(float, value)`` in ``unit``, positive is worse."""

    metric: str
    heading: str
    unit: str
    loss: Callable[[float, float], float]


#: By kind of task; metric and loss are those of the comparison of post-training quantization.
DROPS = {
    kind: Drop(COLUMNS[kind].metric, heading, unit, COLUMNS[kind].loss)
    for kind, heading, unit in (
        ("segmentation", "mIoU", "points"),
        ("depth", "RMSE, m", "%"),
        ("normals", "angle", "degrees"),
        ("edges", "F1", "points"),
    )
}


@dataclasses.dataclass(frozen=True)
class AccuracyOptions:
    """How many of the first held-out pictures each kind of row takes, and on which accelerator the RTL is built.

    Attributes:
        accelerator: what is simulated
        scenes: pictures of most rows; fewer where the split has fewer
        brevitas_images: of these through the Brevitas model
        rtl_images: of these through the RTL
        cache: folder that keeps pictures as arrays
        data: name of the data set
        data_root: its folder, of photographs
        split: ``val`` or, where there is one, ``test``
        label_shape: height and width of the labels, to which outputs are upsampled; None: the model's
    """

    accelerator: AcceleratorConfig
    scenes: int = 512
    brevitas_images: int = 16
    rtl_images: int = 8
    cache: Path = dataclasses.field(default_factory=lambda: cache_root() / "scenes")
    data: str = "scenes"
    data_root: str = ""
    split: str = "val"
    label_shape: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        for field in ("scenes", "brevitas_images", "rtl_images"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field} must be at least 1, not {getattr(self, field)!r}")


class Study:
    """The float model, its scenes, and the rows measured so far.

    Args:
        weights: float checkpoint
        options: what is measured
        track: told what is measured and its share, 0..1
        brevitas: reads a QAT model's latent weights
    """

    def __init__(
        self,
        weights: Path,
        options: AccuracyOptions,
        track: Callable[[str, float], None],
        brevitas: Callable[[Path], Outputs] | None = None,
    ) -> None:
        self.brevitas = brevitas or brevitas_outputs
        self.state, self.config = load_checkpoint(weights)
        self.weights, self.options, self.track = weights, options, track
        self.data_set = find(options.data)
        self._check_labels()
        self.data = self._held_out(max(options.scenes, options.brevitas_images, options.rtl_images))
        self.count = min(options.scenes, len(self.data["image"]))
        self.float_metrics: dict[int, Metrics] = {}  # by number of images

    def _check_labels(self) -> None:
        what, known = f"{self.weights}: {self.data_set.name}", self.data_set.class_names
        kinds = [kind for kind in self.data_set.kinds if kind in DROPS]
        if strange := [task.name for task in self.config.tasks if task.kind not in kinds]:
            raise ValueError(f"{what} has no labels for {', '.join(strange)}")
        for task in self.config.tasks:
            if task.kind == "segmentation" and (task.channels != len(known) or task.labels not in ((), known)):
                raise ValueError(
                    f"{what} has {len(known)} classes ({known[0]}, ...), not those of {task.name}; see --data"
                )

    def _held_out(self, count: int) -> dict[str, npt.NDArray[Any]]:
        """Pictures of the model's size, and labels of theirs or of ``label_shape``."""
        size, labels = (self.config.image_height, self.config.image_width), [task.kind for task in self.config.tasks]
        shape = self.options.label_shape or size
        if shape == size:
            return self._load(self.options.split, count, size, labels)
        pictures = self._load(self.options.split, count, size, [])
        return self._load(self.options.split, count, shape, labels) | {"image": pictures["image"]}

    def _load(self, split: str, count: int, size: tuple[int, int], labels: list[str]) -> dict[str, npt.NDArray[Any]]:
        options = self.options
        return self.data_set.load(options.data_root, options.cache, split, count, size, labels, self._preparing)

    def _preparing(self, indices: range) -> Iterator[int]:
        for index in indices:
            self.track(f"preparing {self.data_set.name}", index / len(indices))
            yield index

    def calibration(self) -> Images:
        """Pictures to quantize with, of the training split: the first scenes, or photographs evenly spaced."""
        options = self.options
        return data_set_pictures(
            self.data_set, options.data_root, options.cache, self.config, _CALIBRATION, self._preparing
        )

    def ptq(self, expert_bits: int) -> tuple[IntegerGraph, list[Path]]:
        """The graph of post-training quantization and its files: of 8 bits the one that is kept beside the weights."""
        path = ptq_file(self.weights)
        if expert_bits == 8 and path.is_file():
            graph = read_graph(path)
            if graph.config != self.config:
                raise ValueError(
                    f"{path} is of another model than {self.weights.name}; make it again: edgemoe quantize"
                )
            return graph, [path]
        options = QuantizeOptions(expert_bits=expert_bits)
        return quantize(self.state, self.config, self.calibration(), options), []

    def _measure(self, what: str, outputs: Outputs, count: int) -> Metrics:
        total, done = count * len(self.config.tasks), 0

        def counted(task: str, images: Images) -> Iterator[npt.NDArray[Any]]:
            nonlocal done
            for output in outputs(task, images):
                done += 1
                self.track(what, done / total)
                yield output

        return evaluate(self.config, counted, self.data, count, self.data_set.far, self.options.data != "scenes")

    def row(
        self, precision: str, executor: str, count: int, outputs: Outputs | None = None, files: Iterable[Path] = ()
    ) -> Row:
        """Measure ``outputs`` (default: the float model's) on the first ``count`` pictures."""
        count = min(count, len(self.data["image"]))
        if count not in self.float_metrics:
            outputs_of = functools.partial(float_outputs, self.state, self.config)
            self.float_metrics[count] = self._measure(f"float32 on {count} pictures", outputs_of, count)
        base = self.float_metrics[count]
        metrics = base if outputs is None else self._measure(f"{precision}, {executor}", outputs, count)
        losses = {task.name: drop(task.kind, base[task.name], metrics[task.name]) for task in self.config.tasks}
        own = {} if self.options.data == "scenes" else {"data": self.options.data, "split": self.options.split}
        return own | {
            "model": self.config.name,
            "precision": precision,
            "executor": executor,
            "images": count,
            "metrics": _finite(metrics),
            "drop": losses,
            "files": {path.name: file_hash(path) for path in files or shard_paths(self.weights)},
        }

    def integer_row(self, precision: str, graph: IntegerGraph, files: Iterable[Path] = ()) -> Row:
        """The integer reference on all pictures."""
        outputs = functools.partial(integer_outputs, graph)
        return self.row(precision, "integer reference", self.count, outputs, files)

    def brevitas_row(self, qat: QatFiles, graph: IntegerGraph) -> Row:
        """The Brevitas model on some scenes, its outputs in units of the graph's."""
        run, differences = self.brevitas(qat.latent), 0

        def outputs(task: str, images: Images) -> Iterator[npt.NDArray[Any]]:
            nonlocal differences
            for raw, expected in zip(run(task, images), reference.run_batch(graph, images, task), strict=True):
                differences += int((raw != expected).sum())
                yield decode_output(graph, task, raw)

        row = self.row(qat.precision, "Brevitas", self.options.brevitas_images, outputs, [qat.latent, qat.graph])
        return row | {"equal": differences == 0, "differences": differences}

    def rtl_row(self, precision: str, graph: IntegerGraph, files: Iterable[Path] = ()) -> Row:
        """The Verilated accelerator on some scenes: outputs and every traced tensor compared."""
        comparisons: list[Comparison] = []

        def outputs(task: str, images: Images) -> Iterator[npt.NDArray[Any]]:
            for image in images:
                trace: dict[str, Any] = {}
                reference.run(graph, image, task, trace)
                result = verifier.run(image, task, expected=trace)
                if result.comparison is not None:
                    comparisons.append(result.comparison)
                yield decode_output(graph, task, result.outputs)

        with open_verified(build_bundle(graph, self.options.accelerator)) as verifier:
            row = self.row(precision, "RTL (Verilated)", self.options.rtl_images, outputs, files)
        differences = sum(comparison.mismatches for comparison in comparisons)
        return row | {
            "equal": differences == 0,
            "differences": differences,
            "config": self.options.accelerator.name,
            "tensors": sum(len(comparison.tensors) for comparison in comparisons),
        }


def drop(kind: str, base: dict[str, float], metrics: dict[str, float]) -> float:
    """Loss of a task against float's metrics, in the unit of ``DROPS``; positive is worse."""
    rule = DROPS[kind]
    return rule.loss(base[rule.metric], metrics[rule.metric])


def headline(metrics: dict[str, float]) -> Drop:
    """What a task is judged by, from its metrics' names."""
    return next(rule for rule in DROPS.values() if rule.metric in metrics)


def file_hash(path: Path) -> str:
    """The first 16 digits of a file's sha256."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _finite(metrics: Metrics) -> dict[str, dict[str, float | None]]:
    """JSON has no NaN (a class that does not occur, no edge at all): None."""
    return {
        task: {name: value if math.isfinite(value) else None for name, value in values.items()}
        for task, values in metrics.items()
    }


def brevitas_outputs(latent: Path) -> Outputs:
    """A QAT model's raw head outputs [B, rows, outputs] of images [B, H, W, 3]."""
    import torch

    from edgemoe_models.qat.quantizers import integers
    from edgemoe_models.qat.storage import load

    model = load(latent)

    def run(task: str, images: Images) -> npt.NDArray[np.int64]:
        pixels = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).float() / 256
        with torch.no_grad():
            raw: npt.NDArray[np.int64] = integers(model.rows(pixels, task)).long().numpy()
        return raw

    return run


def run_accuracy(
    weights: Path, options: AccuracyOptions, track: Callable[[str, float], None], done: Callable[[Row], None]
) -> list[str]:
    """Measure every row that there are files for; each is given to ``done``.

    Returns:
        What could not be measured and the command that makes it, one line each

    Raises:
        ValueError: a file is unusable; DeviceError: the simulated accelerator failed
    """
    study = Study(weights, options, track)
    missing: list[str] = []
    done(study.row("float32", "float (NumPy)", study.count))
    for bits, precision in ((8, "PTQ W8A8"), (4, "PTQ W4A8 experts")):
        track(f"{precision}: quantizing", 0.0)
        graph, files = study.ptq(bits)
        done(study.integer_row(precision, graph, files))
        done(study.rtl_row(precision, graph, files))
    for name in QAT_PRECISIONS:
        qat = qat_files(weights, name, options.data)
        if not qat.graph.is_file():
            missing.append(f"{qat.precision}: {qat.graph.name} is missing; make it with: {qat.command}")
            continue
        graph = read_graph(qat.graph)
        if graph.config != study.config:
            raise ValueError(f"{qat.graph} is of another model than {weights.name}; make it again with: {qat.command}")
        done(study.integer_row(qat.precision, graph, [qat.graph]))
        if not qat.latent.is_file():
            # 13 MB that a wheel does without.
            where = "those of the packaged models are in the repository and the source distribution"
            missing.append(
                f"{qat.precision}, Brevitas: {qat.latent.name} is missing ({where}); make it with: {qat.command}"
            )
        elif importlib.util.find_spec("brevitas") is None:
            missing.append(f"{qat.precision}, Brevitas: it is not installed: {install_command('train')}")
        else:
            done(study.brevitas_row(qat, graph))
        done(study.rtl_row(qat.precision, graph, [qat.graph]))
    return missing


def differing(rows: Iterable[Row]) -> list[str]:
    """Rows that should equal the integer reference and do not."""
    return [
        f"{row['precision']} on {row['executor']}: {row['differences']:,} values"
        for row in rows
        if row.get("equal") is False
    ]


def accuracy_table(rows: list[Row]) -> TextTable:
    """Each task's headline metric, and in brackets the drop against float on the same images."""
    rules = [headline(metrics) for metrics in rows[0]["metrics"].values()]
    pictures = f"{rows[0]['split']} pictures of {rows[0]['data']}" if "data" in rows[0] else "scenes"
    view = TextTable(
        f"{rows[0]['model']}: metrics on held-out {pictures}",
        ["", ">images", *(f">{rule.heading}" for rule in rules), "exact"],
        caption=f"in brackets the drop against float on the same {pictures}, positive is worse:\n"
        + "; ".join(f"{rule.heading}: {rule.unit}" for rule in rules),
        gap=1,
    )
    precision = ""
    for row in rows:
        if precision != (precision := row["precision"]):
            view.heading(precision)
        cells = [
            f"{values[rule.metric]:.{2 if values[rule.metric] >= 10 else 3}f} ({loss_text(row['drop'][task])})"
            for rule, (task, values) in zip(rules, row["metrics"].items(), strict=True)
        ]
        equal = "" if "equal" not in row else "yes" if row["equal"] else "NO"
        view.add(f"  {row['executor'].split()[0]}", str(row["images"]), *cells, equal)
    return view


def summary(row: Row) -> str:
    """One line for a finished row."""
    figures = ", ".join(f"{task} {values[headline(values).metric]:.4f}" for task, values in row["metrics"].items())
    equal = "" if "equal" not in row else f", {'' if row['equal'] else 'NOT '}equal to the reference"
    return f"{row['precision']}, {row['executor']}, {row['images']} images: {figures}{equal}"
