"""A video of what is found in pictures, videos or a camera: input and tasks side by side, with legends."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgemoe.bundle import Bundle
from edgemoe.reports.panels import has_panel, panels
from edgemoe.reports.video_file import check_video, video_file
from edgemoe.runtime.frames import frame_rate, items
from edgemoe.runtime.opening import open as open_device
from edgemoe.runtime.stream import Frame
from edgemoe_models.pictures import PictureError, Resize, picture_files
from edgemoe_models.storage.atomic import SaveError

__all__ = ["PICTURES_A_SECOND", "VideoOptions", "VideoRun"]

#: Frame rate of a video that is made of pictures, or of a camera.
PICTURES_A_SECOND = 5.0


@dataclass(frozen=True)
class VideoOptions:
    """How to make a video.

    Attributes:
        path: of the video
        device: as ``edgemoe.open`` takes it
        tasks: of the bundle; all where none is named
        resize: ``crop`` or ``squeeze`` frames of other sizes
        fps: frames a second of the video; None: those of the first source that is a video, else ``PICTURES_A_SECOND``
        frames: at most so many of the sources; None: all
        device_options: further ones of ``edgemoe.open``
        note: told once for each kind of thing that was done to pictures, each that was skipped, and of an early end
    """

    path: Path
    device: str
    tasks: Sequence[str] = ()
    resize: Resize | None = None
    fps: float | None = None
    frames: int | None = None
    device_options: Mapping[str, Any] = field(default_factory=dict)
    note: Callable[[str], None] = lambda text: None


class VideoRun:
    """All frames of all sources through all tasks, into one video.

    Args:
        bundle: what to run
        sources: pictures, folders of them, videos, cameras as ``edgemoe.frames`` takes them
        options: how

    Attributes:
        fps: frames a second of the video
        total: frames of the sources, where that is known
        skipped: what was wrong with pictures that could not be read

    Raises:
        BundleError: there is no such task, or nothing to see of it
        MissingExtraError: OpenCV is missing
        ValueError: the name is none of a video, a source cannot be opened, or the video would replace one
    """

    def __init__(self, bundle: Bundle, sources: Sequence[str], options: VideoOptions) -> None:
        check_video(options.path, options.fps)
        self.bundle, self._options = bundle, options
        wanted = [bundle.task(name).name for name in options.tasks] or list(bundle.tasks)
        self.tasks = [name for name in wanted if has_panel(bundle.model.task(name).kind)]
        if not self.tasks:
            raise ValueError(f"{', '.join(wanted)}: features have no picture, so there is nothing for a video")
        self._check_result(sources)
        rates = [frame_rate(source) for source in sources]
        self.fps = options.fps or next((rate for rate in rates if rate), PICTURES_A_SECOND)
        check_video(options.path, self.fps)
        self.total = options.frames if any(rates) else self._count(sources)
        self.skipped: list[Exception] = []
        self._files: dict[int, str] = {}  # by frame; what is no file ends everything where it fails
        self._sources = self._numbered([items(source) for source in sources])

    def _check_result(self, sources: Sequence[str]) -> None:
        path = self._options.path
        for source in map(Path, sources):
            if path.exists() and source.exists() and path.samefile(source):
                raise ValueError(f"{path} is read and would be replaced by the video; choose another name")

    def _count(self, sources: Sequence[str]) -> int | None:
        """Frames, where all sources are pictures or folders of them."""
        most = self._options.frames
        paths = [Path(source) for source in sources]
        if not all(path.exists() for path in paths):  # cameras
            return most
        count = sum(len(picture_files(path)) if path.is_dir() else 1 for path in paths)
        return count if most is None else min(count, most)

    def _numbered(self, opened: Sequence[Iterator[Any]]) -> Iterator[Any]:
        try:
            for number, item in enumerate(itertools.islice(itertools.chain(*opened), self._options.frames)):
                if isinstance(item, (str, Path)):
                    self._files[number] = str(item)
                yield item
        finally:
            for one in opened:
                if hasattr(one, "close"):
                    one.close()

    def run(self, done: Callable[[int], None] = lambda count: None) -> int:
        """All frames; the video is there when this ends, and its frames are counted.

        Where it is broken off after the first frame (by Ctrl-C, the device or a source) the video has the frames until
        then, and what broke it off is raised.

        Args:
            done: told after each frame how many there are

        Raises:
            DeviceError: the device is missing or failed
            PictureError: no picture could be read
            SaveError: the video cannot be written
            ValueError: a frame of a video or camera does not fit
        """
        options, count = self._options, 0
        ended: BaseException | None = None
        given = {"resize": options.resize, "notes": options.note, **options.device_options}
        caption = f"{self.bundle.model.name} on {options.device}"
        with (
            open_device(options.device, self.bundle, **given) as accelerator,
            video_file(options.path, self.fps) as write,
        ):
            try:
                with accelerator.stream(self._sources, self.tasks, on_error="report") as stream:
                    for frame in stream:
                        if not self._is_skipped(frame):
                            write(np.asarray(panels(np.asarray(frame.image), frame.predictions, caption)))
                            count += 1
                            done(count)
            except (KeyboardInterrupt, Exception) as error:
                if not count or isinstance(error, SaveError):
                    raise
                ended = error
            if not count and self.skipped:
                raise self.skipped[0]
        if ended is not None:
            options.note(f"{options.path} has the {count} frames until then")
            raise ended
        return count

    def _is_skipped(self, frame: Frame) -> bool:
        """Whether it is a picture that could not be read; any other failure is raised."""
        if frame.error is None:
            return False
        if frame.number not in self._files or not isinstance(frame.error, PictureError):
            raise frame.error
        self.skipped.append(frame.error)
        self._options.note(f"skipped: {frame.error}")
        return True
