"""Text and boxes on a white picture, for the plots."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from edgemoe_models.storage.atomic import write_bytes

__all__ = ["COLOURS", "GREY", "INK", "RULE", "Canvas", "text_width"]

#: Told apart by people with any colour vision: Okabe and Ito's palette, without yellow and black.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
INK, GREY, RULE = "#1b1b1b", "#6b6b6b", "#d9d9d9"


class Canvas:
    """``anchor`` is as Pillow has it: horizontal l, m, r and vertical a (ascender), m."""

    def __init__(self, width: int, height: int) -> None:
        self.image = Image.new("RGB", (width, height), "white")
        self.draw = ImageDraw.Draw(self.image)

    def text(self, x: float, y: float, text: str, size: int = 22, colour: str = INK, anchor: str = "la") -> None:
        self.draw.text((x, y), text, colour, ImageFont.load_default(size), anchor)

    def box(self, left: float, top: float, right: float, bottom: float, colour: str | tuple[int, int, int]) -> None:
        """Filled; right and bottom are outside it. Nothing where it has no area."""
        if round(right) > round(left) and round(bottom) > round(top):
            self.draw.rectangle((round(left), round(top), round(right) - 1, round(bottom) - 1), colour)

    def dashes(self, left: int, right: int, y: float) -> None:
        """A dashed horizontal line."""
        for x in range(left, right, 14):
            self.box(x, y - 1, min(x + 8, right), y + 1, GREY)

    def save(self, path: Path) -> None:
        """Write it as PNG, whole or not at all; raises SaveError."""
        file = io.BytesIO()
        self.image.save(file, "PNG", optimize=True)
        write_bytes(path, file.getvalue())


def text_width(text: str, size: int) -> int:
    """Pixels."""
    return round(ImageFont.load_default(size).getlength(text))
