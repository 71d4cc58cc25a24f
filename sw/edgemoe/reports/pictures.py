"""Pictures of inputs, predictions and labels, each with a legend and a caption."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from edgemoe.reports.legends import Predicted, colour, colours, legend, unlabelled
from edgemoe.reports.sheet import LINE, MARGIN, Sheet, scale_of, text_length
from edgemoe_models.config import ModelConfig
from edgemoe_models.datasets.scenes import CLASS_NAMES

__all__ = ["caption_of", "colour", "colours", "save_picture", "save_predictions", "save_scores"]

RGB = npt.NDArray[np.uint8]
_BAR, _BEST = 150, 5  # pixels, classes: at most
_GREY = (96, 96, 96)
#: By kind of task its headline metric, and how people write it.
_METRICS = {
    "segmentation": ("miou", "mIoU {:.3f}"),
    "depth": ("rmse", "RMSE {:.2f} m"),
    "normals": ("mean_angle", "mean error {:.1f}°"),
    "edges": ("f1", "F1 {:.3f}"),
}


def caption_of(model: ModelConfig, task: str, metrics: Mapping[str, float] | None = None) -> str:
    """Model, task, and the metric of this picture where it is known."""
    text = f"{model.name}, {task}"
    name, form = _METRICS.get(model.task(task).kind, ("", ""))
    value = (metrics or {}).get(name, math.nan)
    return text if math.isnan(value) else f"{text}: {form.format(value)}"


def save_picture(
    path: Path,
    kind: str,
    image: RGB,
    prediction: npt.NDArray[np.generic],
    label: npt.NDArray[np.generic] | None = None,
    *,
    without: npt.NDArray[np.bool_] | None = None,
    channels: int = len(CLASS_NAMES),
    classes: Sequence[str] = (),
    caption: str = "",
) -> None:
    """Write input | prediction | label side by side, and below them a legend or colour bar and the caption.

    Args:
        without: pixels that have no label, grey in prediction and label; where there is a label of normals, those whose
            label is 0 are
        channels: how many classes a segmentation has
        classes: their names, as ``TaskConfig`` has them
    """
    if kind == "normals" and label is not None:
        without = ~np.any(label, -1)
    panels = [("input", image), ("prediction", colour(kind, prediction, without, classes))]
    if label is not None:
        panels.append(("label", colour(kind, label, without, classes)))
    scale = scale_of(image)
    height, width = image.shape[0] * scale, image.shape[1] * scale
    sheet = Sheet(len(panels) * (width + MARGIN) + MARGIN)
    for number, (title, pixels) in enumerate(panels):
        left = MARGIN + number * (width + MARGIN)
        sheet.text(left, 2, title)
        sheet.paste(left, LINE + 4, Image.fromarray(pixels).resize((width, height), Image.Resampling.NEAREST))
    top = sheet.legend(kind, legend(kind, channels, classes), LINE + height + 2 * MARGIN)
    if caption:
        sheet.text(MARGIN, top + 2, caption, _GREY)
        top += LINE
    sheet.save(path, top + MARGIN)


def save_predictions(stem: Path, image: RGB, predictions: Mapping[str, Predicted]) -> None:
    """Write ``STEM-TASK.png`` for each prediction of one image but features; normals are grey where a segmentation sees
    sky.
    """
    for task, found in predictions.items():
        path, caption = stem.with_name(f"{stem.name}-{task}.png"), caption_of(found.model, task)
        if found.kind == "classification":
            about, order = found.model.task(found.task), np.argsort(-np.asarray(found.values, float), kind="stable")
            scores = [(about.class_name(number), float(found.values[number])) for number in order[:_BEST].tolist()]
            save_scores(path, image, scores, caption)
        elif found.model.task(task).is_dense:
            about = found.model.task(task)
            save_picture(
                path,
                found.kind,
                image,
                found.values,
                without=unlabelled(found.kind, predictions),
                channels=about.channels,
                classes=about.labels,
                caption=caption,
            )


def save_scores(path: Path, image: RGB, best: Sequence[tuple[str, float]], caption: str = "") -> None:
    """Write the input and beside it the best classes with their probabilities as bars."""
    scale = scale_of(image)
    height, width = image.shape[0] * scale, image.shape[1] * scale
    left = width + 3 * MARGIN
    names = max((round(text_length(name)) for name, _ in best), default=0)
    sheet = Sheet(left + names + _BAR + 60)
    sheet.text(MARGIN, 2, "input")
    sheet.paste(MARGIN, LINE + 4, Image.fromarray(image).resize((width, height), Image.Resampling.NEAREST))
    for number, (name, share) in enumerate(best):
        top, start = LINE + 6 + number * (LINE + 6), left + names + MARGIN
        sheet.text(left, top, name)
        sheet.box(start, top + 1, start + max(round(_BAR * share), 1), top + 11, (0, 114, 178))
        sheet.text(start + round(_BAR * share) + 4, top, f"{share:.1%}")
    top = LINE + 2 * MARGIN + max(height, len(best) * (LINE + 6))
    if caption:
        sheet.text(MARGIN, top, caption, _GREY)
        top += LINE
    sheet.save(path, top + MARGIN)
