"""A file of a video, written by OpenCV; it appears whole (``storage.atomic.new_file``)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgemoe.extras import require
from edgemoe_models.storage.atomic import SaveError, new_file

__all__ = ["RATES", "SUFFIXES", "check_video", "video_file"]

RGB = npt.NDArray[np.uint8]
#: How each kind of file is encoded: MPEG-4 part 2, or a JPEG a frame. Both are in OpenCV's own packages.
SUFFIXES = {".mp4": "mp4v", ".mkv": "mp4v", ".mov": "mp4v", ".avi": "MJPG"}
#: Frames a second, from and to.
RATES = (0.1, 240.0)


def check_video(path: Path, fps: float | None) -> None:
    """Refuse what can be no video before any work is done.

    Raises:
        ValueError: the name's suffix is none of a video's, or the frame rate is out of range
        MissingExtraError: OpenCV is missing
    """
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path}: a video's name must end in one of {', '.join(SUFFIXES)}, not {path.suffix!r}")
    if fps is not None and not RATES[0] <= fps <= RATES[1]:
        raise ValueError(f"fps must be in {RATES[0]:g}..{RATES[1]:g} frames a second, not {fps!r}")
    require("edgemoe run --video", "video")


@contextlib.contextmanager
def video_file(path: Path, fps: float) -> Iterator[Callable[[RGB], None]]:
    """What is yielded takes frames uint8 [H, W, 3], all of one size; at the end of the block the file is there.

    An odd last row or column gets a white one beside it: encoders want even sizes. Where the block raises, a file that
    was there before is unchanged.

    Raises:
        ValueError, MissingExtraError: as ``check_video``
        SaveError: it cannot be written, or OpenCV has no encoder for it
    """
    check_video(path, fps)
    with new_file(path) as partial:
        writer = _Writer(path, partial, fps)
        try:
            yield writer.write
        finally:
            writer.release()
        writer.check()


class _Writer:
    """Frames into an unfinished file."""

    def __init__(self, path: Path, partial: Path, fps: float) -> None:
        self._path, self._partial, self._fps = path, partial, fps
        self._opened: Any = None
        self._size, self._count = (0, 0), 0

    def write(self, frame: RGB) -> None:
        import cv2

        height, width = frame.shape[:2]
        odd = ((0, height % 2), (0, width % 2), (0, 0))
        pixels = np.pad(frame, odd, constant_values=255) if height % 2 or width % 2 else frame
        size = (pixels.shape[1], pixels.shape[0])
        if self._opened is None:
            code = cv2.VideoWriter.fourcc(*SUFFIXES[self._path.suffix.lower()])
            self._opened, self._size = cv2.VideoWriter(str(self._partial), code, self._fps, size), size
            if not self._opened.isOpened():
                others = ", ".join(suffix for suffix in SUFFIXES if suffix != self._path.suffix.lower())
                raise SaveError(f"{self._path} cannot be written: OpenCV has no encoder for it here; try {others}")
        if size != self._size:
            raise ValueError(f"frames of a video must have one size, {self._size}, not {size}")
        self._opened.write(np.ascontiguousarray(pixels[..., ::-1]))  # OpenCV has blue first
        self._count += 1

    def release(self) -> None:
        """Finish the file."""
        if self._opened is not None:
            self._opened.release()

    def check(self) -> None:
        """OpenCV says nothing of a full disk, so the file is read."""
        import cv2

        if not self._count:
            raise SaveError(f"{self._path} cannot be written: there are no frames")
        capture = cv2.VideoCapture(str(self._partial))
        try:
            found = 0
            while found < self._count and capture.grab():
                found += 1
        finally:
            capture.release()
        if found < self._count:
            raise SaveError(
                f"{self._path} cannot be written: only {found} of {self._count} frames are in it; is the disk full?"
            )
