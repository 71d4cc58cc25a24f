"""Where a model of photographs fails: the worst pictures by class, and what its classes are mistaken for.

Usage: ``python tools/photo_failures.py WEIGHTS --data-root FOLDER [--data camvid] [--split test] [--label-size 192x256]
[--json FILE]``

The float model's predictions, upsampled to the labels' size. File names and numbers only: no photograph is written.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "models"))

from edgemoe_models.datasets import Folder, find  # noqa: E402
from edgemoe_models.datasets.arrays import IGNORE  # noqa: E402
from edgemoe_models.datasets.files import size_of  # noqa: E402
from edgemoe_models.storage.atomic import write_text  # noqa: E402
from edgemoe_models.storage.cache import cache_root  # noqa: E402

__all__ = ["confusion", "main", "worst"]

_LEAST = 0.005  # share of a picture's labelled pixels that a class must have to be judged there
Counts = npt.NDArray[np.int64]


def confusion(predicted: npt.NDArray[Any], label: npt.NDArray[Any], classes: int) -> Counts:
    """Labelled pixels by true class (rows) and predicted class (columns), [classes, classes].

    Args:
        predicted: class of each pixel
        label: of any equal shape, ``IGNORE`` where there is none
        classes: how many there are
    """
    known = label != IGNORE
    pairs = label[known].astype(np.int64) * classes + predicted[known].astype(np.int64)
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def worst(counts: Counts, files: list[str], names: tuple[str, ...], most: int = 3) -> dict[str, Any]:
    """The worst pictures of each class and of all.

    Args:
        counts: ``confusion`` of each picture, [pictures, classes, classes]
        files: the pictures' names
        names: of the classes
        most: pictures of each class

    Returns:
        ``classes``: by name ``iou`` over all pictures, ``judged`` (pictures where it has 0.5 % of the labelled pixels
        or more), ``mistaken_for`` (the wrong classes that its pixels most often get, with their share of its pixels)
        and ``worst``, the ``most`` pictures of lowest IoU with ``file``, ``share`` of the pixels, ``iou`` and
        ``seen_as``, the class that most of its pixels get; ``pictures`` and ``best``: those of lowest and highest mean
        IoU over the classes judged in them; ``median_miou``
    """
    hits = np.einsum("ncc->nc", counts).astype(float)
    actual, predicted = counts.sum(2).astype(float), counts.sum(1).astype(float)
    union = actual + predicted - hits
    iou = np.divide(hits, union, out=np.full_like(hits, np.nan), where=union > 0)
    share = actual / np.maximum(actual.sum(1, keepdims=True), 1)
    judged = share >= _LEAST
    total = counts.sum(0)
    classes = {}
    for index, name in enumerate(names):
        rows = np.flatnonzero(judged[:, index])
        order = rows[np.argsort(iou[rows, index], kind="stable")][:most]
        wrong = np.where(np.arange(len(names)) == index, 0, total[index])
        classes[name] = {
            "iou": float(hits[:, index].sum() / max(union[:, index].sum(), 1)),
            "judged": len(rows),
            "mistaken_for": [
                [names[other], float(wrong[other] / max(total[index].sum(), 1))]
                for other in np.argsort(-wrong, kind="stable")[:2]
                if wrong[other]
            ],
            "worst": [
                {
                    "file": files[row],
                    "share": float(share[row, index]),
                    "iou": float(iou[row, index]),
                    "seen_as": names[int(counts[row, index].argmax())],
                }
                for row in order
            ],
        }
    means = np.nanmean(np.where(judged, iou, np.nan), 1)
    order = np.argsort(means, kind="stable")
    return {
        "classes": classes,
        "pictures": [{"file": files[row], "miou": float(means[row])} for row in order[: 2 * most]],
        "best": [{"file": files[row], "miou": float(means[row])} for row in order[::-1][:most]],
        "median_miou": float(np.nanmedian(means)),
    }


def _confusions(options: argparse.Namespace) -> tuple[Counts, list[str], tuple[str, ...]]:
    import torch

    from edgemoe_models.integer.postprocess import upsample
    from edgemoe_models.train.data import pixels
    from edgemoe_models.train.trainer import load_weights

    model = load_weights(options.weights)
    data = find(options.data)
    if not isinstance(data, Folder):
        raise ValueError(f"--data must be photographs, not {options.data!r}")
    files = data.list_names(Path(options.data_root), options.split)
    size = model.config.image_height, model.config.image_width
    load = (options.data_root, cache_root() / "scenes", options.split, len(files))
    images = data.load(*load, size, [])["image"]
    labels = data.load(*load, size_of(options.label_size) or size, ["segmentation"])["segmentation"]
    result = []
    for start in range(0, len(files), 16):
        with torch.no_grad():
            outputs = model.raw(pixels(images[start : start + 16]), "segmentation").numpy()
        for output, label in zip(outputs, labels[start : start + 16], strict=True):
            found = upsample(output, *label.shape).argmax(0)
            result.append(confusion(found, np.asarray(label), len(data.class_names)))
    return np.stack(result), files, tuple(data.class_names)


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python tools/photo_failures.py", description="The worst pictures by class.")
    parser.add_argument("weights", type=Path, help="float checkpoint, or the first of its parts")
    parser.add_argument("--data", default="camvid", help="data set of photographs")
    parser.add_argument("--data-root", required=True, help="its folder")
    parser.add_argument("--split", default="test", help="of the data set")
    parser.add_argument("--label-size", default="", help="HEIGHTxWIDTH of the labels; default: the model's")
    parser.add_argument("--json", type=Path, default=Path("build/failures.json"), help="file for the figures")
    options = parser.parse_args(arguments)
    found = worst(*_confusions(options))
    write_text(options.json, json.dumps(found, indent=1) + "\n")
    print(f"{options.json}: median mIoU of a picture {100 * found['median_miou']:.1f} %")
    return 0


if __name__ == "__main__":
    sys.exit(main())
