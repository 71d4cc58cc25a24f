"""A picture and all that was found in it, side by side, each with its legend: a frame of a video, a notebook's view."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from edgemoe.reports.legends import Predicted, colours, legend
from edgemoe.reports.sheet import LINE, MARGIN, Sheet, scale_of, text_length

__all__ = ["has_panel", "panels"]

RGB = npt.NDArray[np.uint8]
_NARROWEST = 240  # pixels of a panel: room for a legend and for names of classes
_BEST = 5
_GREY = (96, 96, 96)


def has_panel(kind: str) -> bool:
    """Whether there is something to see of a task of this kind; features are numbers without a picture."""
    return kind != "features"


def panels(image: RGB, predictions: Mapping[str, Predicted], caption: str = "") -> Image.Image:
    """The input, then each prediction in colours with its legend; of a classification the best five with names.

    Normals are grey where a segmentation sees sky. The size depends on the model, the tasks and the caption alone.

    Args:
        image: uint8 [H, W, 3]
        predictions: of this image, by task
        caption: below, if any
    """
    scale, dense = scale_of(image), colours(predictions)
    height, width = image.shape[0] * scale, image.shape[1] * scale
    shown = {task: found for task, found in predictions.items() if has_panel(found.kind)}
    column = max(width, _NARROWEST) + MARGIN
    sheet = Sheet((1 + len(shown)) * column + MARGIN)
    top, bottom = LINE + 4, LINE + 4 + max(height, _BEST * LINE) + MARGIN
    end = bottom
    for number, task in enumerate(["input", *shown]):
        left = MARGIN + number * column
        sheet.text(left, 2, task)
        if task == "input" and number == 0:
            sheet.paste(left, top, _enlarged(image, scale))
        elif task in dense:
            about = shown[task].model.task(shown[task].task)
            sheet.paste(left, top, _enlarged(dense[task], scale))
            entries = legend(about.kind, about.channels, about.labels)
            end = max(end, sheet.legend(about.kind, entries, bottom, left, left + column - MARGIN))
        else:
            for line, (name, share) in enumerate(_best(shown[task])):
                sheet.text(left, top + line * LINE, f"{share:6.1%}  {_cut(name, column - 60)}")
    if caption:
        sheet.text(MARGIN, end + 2, caption, _GREY)
        end += LINE
    return sheet.image(end + MARGIN)


def _enlarged(pixels: RGB, scale: int) -> Image.Image:
    picture = Image.fromarray(pixels)
    return picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)


def _best(found: Predicted) -> Sequence[tuple[str, float]]:
    """Names and probabilities of the best classes, the best first."""
    about, scores = found.model.task(found.task), np.asarray(found.values, float)
    return [(about.class_name(n), float(scores[n])) for n in np.argsort(-scores, kind="stable")[:_BEST].tolist()]


def _cut(name: str, width: int) -> str:
    """As much of a name as has room."""
    while name and text_length(name) > width:
        name = f"{name[:-4]}..." if name.endswith("...") else f"{name[:-3]}..."
    return name
