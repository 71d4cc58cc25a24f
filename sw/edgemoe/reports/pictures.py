"""Pictures of inputs, predictions and labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from edgemoe_models.datasets.scenes import CLASS_NAMES, MAX_DEPTH, PALETTE

__all__ = ["colour", "save_picture"]

RGB = npt.NDArray[np.uint8]
_MINIMUM_HEIGHT, _MARGIN, _LINE = 192, 6, 14
#: Depth colours from near to far (a dark-to-bright ramp that is monotonic in lightness).
_RAMP = np.array([(253, 231, 37), (94, 201, 98), (33, 145, 140), (59, 82, 139), (68, 1, 84)], float)


def _ramp(values: npt.NDArray[np.float64]) -> RGB:
    """Colours of values 0..1."""
    position = np.clip(values, 0, 1) * (len(_RAMP) - 1)
    low = np.minimum(position.astype(int), len(_RAMP) - 2)
    share = (position - low)[..., None]
    return np.rint(_RAMP[low] * (1 - share) + _RAMP[low + 1] * share).astype(np.uint8)


def colour(kind: str, values: npt.NDArray[np.generic]) -> RGB:
    """A prediction or label as colours [H, W, 3]."""
    if kind == "segmentation":
        colours: RGB = PALETTE[np.asarray(values, int) % len(PALETTE)].astype(np.uint8)
        return colours
    if kind == "depth":
        return _ramp(np.asarray(values, float) / MAX_DEPTH)
    if kind == "normals":
        return np.rint((np.asarray(values, float) + 1) * 127.5).clip(0, 255).astype(np.uint8)
    return np.repeat(np.where(np.asarray(values, bool), 255, 0).astype(np.uint8)[..., None], 3, -1)


def save_picture(
    path: Path, kind: str, image: RGB, prediction: npt.NDArray[np.generic], label: npt.NDArray[np.generic] | None = None
) -> None:
    """Write input | prediction | label side by side, with a legend or colour bar below."""
    panels = [("input", image), ("prediction", colour(kind, prediction))]
    if label is not None:
        panels.append(("label", colour(kind, label)))
    scale = max(-(-_MINIMUM_HEIGHT // image.shape[0]), 1)
    height, width = image.shape[0] * scale, image.shape[1] * scale
    full = Image.new("RGB", (len(panels) * (width + _MARGIN) + _MARGIN, height + 3 * _LINE + 3 * _MARGIN), "white")
    draw = ImageDraw.Draw(full)
    for number, (title, pixels) in enumerate(panels):
        left = _MARGIN + number * (width + _MARGIN)
        draw.text((left, 2), title, "black")
        full.paste(Image.fromarray(pixels).resize((width, height), Image.Resampling.NEAREST), (left, _LINE + 4))
    _legend(full, draw, kind, _LINE + height + 2 * _MARGIN)
    path.parent.mkdir(parents=True, exist_ok=True)
    full.save(path)


def _legend(full: Image.Image, draw: ImageDraw.ImageDraw, kind: str, top: int) -> None:
    if kind == "segmentation":
        left = _MARGIN
        for name, rgb in zip(CLASS_NAMES, PALETTE, strict=True):
            draw.rectangle((left, top, left + 10, top + 10), tuple(int(v) for v in rgb), "black")
            draw.text((left + 14, top - 1), name, "black")
            left += 26 + int(draw.textlength(name))
    elif kind == "depth":
        length = min(full.width - 2 * _MARGIN - 120, 300)
        bar = np.repeat(_ramp(np.linspace(0, 1, length))[None], 10, 0)
        full.paste(Image.fromarray(bar), (_MARGIN + 30, top))
        draw.text((_MARGIN, top - 1), "0 m", "black")
        draw.text((_MARGIN + 36 + length, top - 1), f"{MAX_DEPTH:.0f} m", "black")
