"""A miniature of CamVid in the layout of SegNet's tutorial."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

__all__ = ["make_camvid"]


def make_camvid(root: Path, height: int, width: int) -> None:
    """3 pictures to train on, 2 to validate, 1 to test: class 0 left, 10 right, void (11) in the first row."""
    y, x = np.mgrid[:height, :width]
    labels = np.where(x < width // 2, 0, 10).astype(np.uint8)
    labels[0] = 11
    for split, count in (("train", 3), ("val", 2), ("test", 1)):
        for folder in (split, f"{split}annot"):
            (root / folder).mkdir(parents=True)
        lines = []
        for i in range(count):
            image = np.stack([6 * x, 10 * y, np.full_like(x, 40 * i)], -1).astype(np.uint8)
            Image.fromarray(image).save(root / split / f"{i}.png")
            Image.fromarray(labels).save(root / f"{split}annot" / f"{i}.png")
            lines.append(f"/SegNet/CamVid/{split}/{i}.png /SegNet/CamVid/{split}annot/{i}.png")
        (root / f"{split}.txt").write_text("\n".join(lines) + "\n\n")
