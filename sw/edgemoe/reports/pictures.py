"""Pictures of inputs, predictions and labels, each with a legend and a caption."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from edgemoe.reports.legends import Predicted, Rgb, colour, colours, legend, ramp, unlabelled
from edgemoe_models.config import ModelConfig
from edgemoe_models.datasets.scenes import CLASS_NAMES, MAX_DEPTH
from edgemoe_models.storage.atomic import write_bytes

__all__ = ["caption_of", "colour", "colours", "save_picture", "save_predictions", "save_scores"]

RGB = npt.NDArray[np.uint8]
_MINIMUM_HEIGHT, _MAXIMUM_WIDTH, _MINIMUM_SHEET = 192, 1024, 320
_MARGIN, _LINE = 6, 14
_BAR, _BEST = 300, 5  # pixels, classes: at most
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
    scale = _scale(image)
    height, width = image.shape[0] * scale, image.shape[1] * scale
    sheet = _Sheet(len(panels) * (width + _MARGIN) + _MARGIN)
    for number, (title, pixels) in enumerate(panels):
        left = _MARGIN + number * (width + _MARGIN)
        sheet.text(left, 2, title)
        sheet.paste(left, _LINE + 4, Image.fromarray(pixels).resize((width, height), Image.Resampling.NEAREST))
    top = sheet.legend(kind, legend(kind, channels, classes), _LINE + height + 2 * _MARGIN)
    if caption:
        sheet.text(_MARGIN, top + 2, caption, _GREY)
        top += _LINE
    sheet.save(path, top + _MARGIN)


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
    scale = _scale(image)
    height, width = image.shape[0] * scale, image.shape[1] * scale
    left = width + 3 * _MARGIN
    names = max((round(_length(name)) for name, _ in best), default=0)
    sheet = _Sheet(left + names + _BAR // 2 + 60)
    sheet.text(_MARGIN, 2, "input")
    sheet.paste(_MARGIN, _LINE + 4, Image.fromarray(image).resize((width, height), Image.Resampling.NEAREST))
    for number, (name, share) in enumerate(best):
        top, start = _LINE + 6 + number * (_LINE + 6), left + names + _MARGIN
        sheet.text(left, top, name)
        sheet.box(start, top + 1, start + max(round(_BAR // 2 * share), 1), top + 11, (0, 114, 178))
        sheet.text(start + round(_BAR // 2 * share) + 4, top, f"{share:.1%}")
    top = _LINE + 2 * _MARGIN + max(height, len(best) * (_LINE + 6))
    if caption:
        sheet.text(_MARGIN, top, caption, _GREY)
        top += _LINE
    sheet.save(path, top + _MARGIN)


def _scale(image: RGB) -> int:
    """How many pixels one becomes, in each direction."""
    return max(min(-(-_MINIMUM_HEIGHT // image.shape[0]), _MAXIMUM_WIDTH // image.shape[1]), 1)


def _length(text: str) -> float:
    return ImageDraw.Draw(Image.new("RGB", (1, 1))).textlength(text)


class _Sheet:
    """A white picture that gets its height last; text runs on below where the width is too small."""

    def __init__(self, width: int) -> None:
        self._image = Image.new("RGB", (max(width, _MINIMUM_SHEET), 1), "white")
        self._draw = ImageDraw.Draw(self._image)

    def _reach(self, bottom: int) -> None:
        if bottom > self._image.height:
            taller = Image.new("RGB", (self._image.width, bottom), "white")
            taller.paste(self._image)
            self._image, self._draw = taller, ImageDraw.Draw(taller)

    def text(self, left: int, top: int, text: str, fill: Rgb = (0, 0, 0)) -> None:
        self._reach(top + _LINE)
        self._draw.text((left, top), text, fill)

    def box(self, left: int, top: int, right: int, bottom: int, fill: Rgb) -> None:
        self._reach(bottom + 1)
        self._draw.rectangle((left, top, right, bottom), fill, "black")

    def paste(self, left: int, top: int, image: Image.Image) -> None:
        self._reach(top + image.height)
        self._image.paste(image, (left, top))

    def legend(self, kind: str, entries: Sequence[tuple[str, Rgb]], top: int) -> int:
        """Draw it from ``top`` on, and return where it ends."""
        if kind == "depth":
            length = min(self._image.width - 2 * _MARGIN - 70, _BAR)
            self.paste(_MARGIN + 30, top, Image.fromarray(np.repeat(ramp(np.linspace(0, 1, length))[None], 10, 0)))
            self.text(_MARGIN, top - 1, "0 m")
            self.text(_MARGIN + 36 + length, top - 1, f"{MAX_DEPTH:.0f} m")
            return top + _LINE
        left = _MARGIN
        for name, rgb in entries:
            width = 26 + round(_length(name))
            if left > _MARGIN and left + width > self._image.width:
                left, top = _MARGIN, top + _LINE
            self.box(left, top, left + 10, top + 10, rgb)
            self.text(left + 14, top - 1, name)
            left += width
        return top + _LINE if entries else top

    def save(self, path: Path, height: int) -> None:
        """Write it with at least this height."""
        self._reach(height)
        file = io.BytesIO()
        self._image.save(file, "PNG")
        write_bytes(path, file.getvalue())
