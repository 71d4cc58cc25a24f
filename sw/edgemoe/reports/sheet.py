"""A white picture with text, boxes, pictures and legends, which gets its height last."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from edgemoe.reports.legends import Rgb, ramp
from edgemoe_models.datasets.scenes import MAX_DEPTH
from edgemoe_models.storage.atomic import write_bytes

__all__ = ["LINE", "MARGIN", "Sheet", "scale_of", "text_length"]

RGB = npt.NDArray[np.uint8]
#: Pixels around everything, and of a line of text.
MARGIN, LINE = 6, 14
_MINIMUM_HEIGHT, _MAXIMUM_WIDTH, _MINIMUM_SHEET = 192, 1024, 320
_BAR = 300  # pixels, at most
_SPACE = 5  # between words; Pillow's own font has 2 at this size, so that they run together


def scale_of(image: RGB) -> int:
    """How many pixels one becomes, in each direction."""
    return max(min(-(-_MINIMUM_HEIGHT // image.shape[0]), _MAXIMUM_WIDTH // image.shape[1]), 1)


def text_length(text: str) -> float:
    """Pixels that ``Sheet.text`` takes."""
    draw = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    return sum(draw.textlength(word) for word in text.split(" ")) + _SPACE * text.count(" ")


class Sheet:
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
        self._reach(top + LINE)
        for word in text.split(" "):
            self._draw.text((left, top), word, fill)
            left += round(self._draw.textlength(word)) + _SPACE

    def box(self, left: int, top: int, right: int, bottom: int, fill: Rgb) -> None:
        self._reach(bottom + 1)
        self._draw.rectangle((left, top, right, bottom), fill, "black")

    def paste(self, left: int, top: int, image: Image.Image) -> None:
        self._reach(top + image.height)
        self._image.paste(image, (left, top))

    def legend(
        self, kind: str, entries: Sequence[tuple[str, Rgb]], top: int, start: int = MARGIN, end: int | None = None
    ) -> int:
        """Draw it from ``top`` on, between the columns ``start`` and ``end``, and return where it ends."""
        end = self._image.width if end is None else end
        if kind == "depth":
            length = min(end - start - MARGIN - 70, _BAR)
            self.paste(start + 30, top, Image.fromarray(np.repeat(ramp(np.linspace(0, 1, length))[None], 10, 0)))
            self.text(start, top - 1, "0 m")
            self.text(start + 36 + length, top - 1, f"{MAX_DEPTH:.0f} m")
            return top + LINE
        left = start
        for name, rgb in entries:
            width = 26 + round(text_length(name))
            if left > start and left + width > end:
                left, top = start, top + LINE
            self.box(left, top, left + 10, top + 10, rgb)
            self.text(left + 14, top - 1, name)
            left += width
        return top + LINE if entries else top

    def image(self, height: int) -> Image.Image:
        """It with at least this height."""
        self._reach(height)
        return self._image

    def save(self, path: Path, height: int) -> None:
        """Write it with at least this height."""
        file = io.BytesIO()
        self.image(height).save(file, "PNG")
        write_bytes(path, file.getvalue())
