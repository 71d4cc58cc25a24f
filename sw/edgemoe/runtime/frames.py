"""Where frames come from: arrays, image files, folders, ``.npy`` files, video files and cameras."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from edgemoe.extras import install_command
from edgemoe.runtime.images import ImageLike
from edgemoe_models.pictures import PICTURE_SUFFIXES, Notes, kind_of, picture_files, read_picture, shown
from edgemoe_models.storage.array_file import read_array

__all__ = ["FrameSource", "frame_rate", "frames", "items", "names_camera"]

RGB = npt.NDArray[np.uint8]
FrameSource: TypeAlias = "ImageLike | int | Iterable[ImageLike]"

_CAMERA = re.compile(r"camera:(\d+)")
_URL = re.compile(r"[a-z]+://.+")
#: Of OpenCV, and of FFmpeg in it, which print a line for each damaged block of a picture.
_SILENCE = {"OPENCV_LOG_LEVEL": "SILENT", "OPENCV_FFMPEG_LOGLEVEL": "-8"}
_MOST_LOST = 0.05  # of a video's frames: some kinds of files only estimate how many they have


def frames(source: FrameSource, notes: Notes | None = None) -> Iterator[RGB]:
    """Frames uint8 [H, W, 3], RGB, one after the other.

    Args:
        source: an array [H, W, 3] or [N, H, W, 3]; the path of an image, of a ``.npy`` file with such an array (read as
            it is needed), of a folder of images (in the order of their names) or of a video; a camera's number,
            ``"camera:0"`` or its address (``"rtsp://..."``); or any iterable of arrays and image paths. Videos and
            cameras need OpenCV (the extra ``video``). Closing the iterator closes the file or the camera.
        notes: told how files of pictures were converted; default: a warning for each kind of thing

    Raises:
        ValueError: there is no such source, or it cannot be opened, at once; later, an image of it cannot be read, a
            video ends long before its last frame, or the camera gives no more
    """
    return _read_each(items(source), notes or Notes())


def items(source: FrameSource) -> Iterator[Any]:
    """As ``frames``, but image files are paths, not read yet, so that one that cannot be read does not end the rest."""
    if isinstance(source, np.ndarray):
        return _arrays(source, "frames")
    if isinstance(source, int) and not isinstance(source, bool):
        return _captured(source, f"camera {source}")
    if isinstance(source, (str, Path)):
        if match := _CAMERA.fullmatch(str(source)):
            return _captured(int(match[1]), f"camera {match[1]}")
        if _URL.fullmatch(str(source)):
            return _captured(str(source), str(source))
        return _path(Path(source))
    if not isinstance(source, Iterable):
        raise ValueError(f"frames must be arrays, paths, a camera's number or an iterable, not {source!r}")
    return iter(source)


def _read_each(iterator: Iterator[Any], notes: Notes) -> Iterator[Any]:
    """Files are read here; arrays are checked by whoever takes them."""
    try:
        for item in iterator:
            yield read_picture(item, notes=notes) if isinstance(item, (str, Path)) else item
    finally:
        if hasattr(iterator, "close"):
            iterator.close()


def _arrays(values: npt.NDArray[Any], what: str) -> Iterator[RGB]:
    if values.dtype != np.uint8 or values.ndim not in (3, 4) or values.shape[-1] != 3:
        raise ValueError(
            f"{what} must be uint8 [N, height, width, 3] or [height, width, 3], not {values.dtype.name} "
            f"{list(values.shape)}"
        )
    return iter(values if values.ndim == 4 else values[None])


def _path(path: Path) -> Iterator[Any]:
    if path.is_dir():
        return iter(picture_files(path))
    if not os.path.exists(path):
        raise ValueError(f"{shown(path)}: there is no such file or folder")
    kind, suffix = kind_of(path), path.suffix.lower()
    if kind == "picture" or (kind is None and suffix in PICTURE_SUFFIXES):
        return iter([path])
    if kind == "array" or suffix == ".npy":
        return _arrays(read_array(path, mapped=True), shown(path))
    return _captured(str(path), str(path))


def _captured(source: str | int, name: str) -> Iterator[RGB]:
    """Frames of a video or camera through OpenCV."""
    cv2 = _opencv(name)
    capture = _opened(cv2, source, name)
    if isinstance(source, int):
        return _camera_pictures(cv2, capture, name)
    return _video_pictures(cv2, capture, name)


def _opencv(name: str) -> Any:
    for variable, nothing in _SILENCE.items():  # what is wrong with a file is said here, in one line
        os.environ.setdefault(variable, nothing)
    try:
        import cv2
    except ImportError:
        raise ValueError(
            f"{name}: videos and cameras need OpenCV; install it with: {install_command('video')}"
        ) from None
    return cv2


def _opened(cv2: Any, source: str | int, name: str) -> Any:
    capture = cv2.VideoCapture(source)
    if not capture.isOpened():
        capture.release()
        raise ValueError(
            f"{name}: cannot be opened as a video"
            if isinstance(source, str)
            else f"{name}: there is no such camera, or another program uses it"
        )
    return capture


def names_camera(source: str) -> bool:
    """Whether a source is a camera of this machine or of the network."""
    return bool(_CAMERA.fullmatch(source) or _URL.fullmatch(source))


def frame_rate(source: str | Path) -> float | None:
    """Frames a second of a video file, as it says itself; None of what is no video, or does not say it.

    Raises:
        ValueError: it is a video, and OpenCV is missing
    """
    path = Path(source)
    if not path.is_file() or kind_of(path) is not None or path.suffix.lower() in (*PICTURE_SUFFIXES, ".npy"):
        return None
    cv2 = _opencv(shown(path))
    capture = _opened(cv2, str(path), shown(path))
    try:
        rate = float(capture.get(cv2.CAP_PROP_FPS))
    finally:
        capture.release()
    return rate if 0 < rate < float("inf") else None


def _camera_pictures(cv2: Any, capture: Any, name: str) -> Iterator[RGB]:
    try:
        while True:
            found, picture = capture.read()
            if not found:  # it has no end of its own
                raise ValueError(f"{name}: it gives no more frames; was it unplugged?")
            yield cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
    finally:
        capture.release()


def _video_pictures(cv2: Any, capture: Any, name: str) -> Iterator[RGB]:
    """OpenCV ends at the first frame that it cannot read as it does at the last one."""
    try:
        count, stated = 0, capture.get(cv2.CAP_PROP_FRAME_COUNT)  # of a stream none, or nonsense
        while True:
            found, picture = capture.read()
            if not found:
                break
            count += 1
            yield cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
        if count < stated * (1 - _MOST_LOST) - 2:
            raise ValueError(f"{name}: it is damaged or cut off: only {count} of its {stated:.0f} frames can be read")
    finally:
        capture.release()
