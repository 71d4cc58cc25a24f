"""CamVid at a model's size in one file, for a lent machine with a GPU that can be sent only a little.

Usage: ``python tools/pack_photos.py --data-root FOLDER [--out FILE] [--height H] [--width W]``

The archive is a tree like the data set's own (``--data camvid`` reads it), of training and validation pictures:
lossless WebP, labels in PNG. The pictures are for research use: the file stays in ``build``, out of the repository.
"""

from __future__ import annotations

import argparse
import io
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "models"))

from edgemoe_models.datasets import find  # noqa: E402
from edgemoe_models.datasets.arrays import IGNORE  # noqa: E402
from edgemoe_models.storage.atomic import write_bytes  # noqa: E402

SPLITS = ("train", "val")


def _encoded(array: npt.NDArray[np.uint8], **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, **options)
    return file.getvalue()


def pack(root: str, cache: Path, size: tuple[int, int]) -> bytes:
    """The archive's content.

    Raises:
        ValueError, FileNotFoundError: the data set is not there or not readable
    """
    data = find("camvid")
    void = len(data.class_names)
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:

        def add(name: str, content: bytes) -> None:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))

        for split in SPLITS:
            arrays = data.load(root, cache, split, 1 << 30, size, ["segmentation"])
            lines = []
            for index, (image, label) in enumerate(zip(arrays["image"], arrays["segmentation"], strict=True)):
                classes = np.where(label == IGNORE, void, label).astype(np.uint8)
                add(f"{split}/{index:04d}.webp", _encoded(np.asarray(image), format="WEBP", lossless=True, method=4))
                add(f"{split}annot/{index:04d}.png", _encoded(classes, format="PNG", optimize=True))
                lines.append(f"{split}/{index:04d}.webp {split}annot/{index:04d}.png\n")
            add(f"{split}.txt", "".join(lines).encode())
    return file.getvalue()


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python tools/pack_photos.py", description=__doc__.splitlines()[0])
    parser.add_argument("--data-root", required=True)
    parser.add_argument("--out", type=Path, default=Path("build/carry/camvid.tar"))
    parser.add_argument("--height", type=int, default=128)
    parser.add_argument("--width", type=int, default=256)
    chosen = parser.parse_args(arguments)
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    content = pack(chosen.data_root, Path("build/cache/camvid"), (chosen.height, chosen.width))
    write_bytes(chosen.out, content)
    print(f"{chosen.out}: {len(content) / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
