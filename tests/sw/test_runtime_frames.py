"""Sources of frames, and what a wrong one says."""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import edgemoe


@pytest.fixture
def folder(pictures, tmp_path) -> Path:
    """Eight PNG files whose names sort in reverse of when they were written, and other files."""
    path = tmp_path / "frames"
    path.mkdir()
    for number in reversed(range(8)):
        Image.fromarray(pictures[number]).save(path / f"{number:03d}.PNG", "png")
    (path / "notes.txt").write_text("no picture")
    return path


def same(source, pictures) -> None:
    found = list(edgemoe.frames(source))
    assert len(found) == len(pictures)
    for one, other in zip(found, pictures, strict=True):
        np.testing.assert_array_equal(one, other)


def test_arrays_and_files(folder, pictures, tmp_path):
    same(pictures, pictures)
    same(pictures[0], pictures[:1])
    same(list(pictures), pictures)
    same((picture for picture in pictures), pictures)
    same(folder, pictures)
    same(str(folder), pictures)
    same(folder / "003.PNG", pictures[3:4])
    same([folder / "003.PNG", pictures[0], str(folder / "001.PNG")], pictures[[3, 0, 1]])
    np.save(tmp_path / "all.npy", pictures)
    same(tmp_path / "all.npy", pictures)


def test_streams_take_them(runtime_bundle, folder, pictures):
    with edgemoe.open("reference", runtime_bundle) as accelerator:
        for source in (folder, pictures, (path for path in sorted(folder.glob("*.PNG")))):
            images = [frame.image for frame in accelerator.stream(source, "edges")]
            np.testing.assert_array_equal(images, pictures)


def test_wrong_sources(tmp_path, pictures):
    (tmp_path / "x.npy").write_bytes(b"no array")
    np.save(tmp_path / "float.npy", np.zeros((2, 3, 4, 3)))
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    (tmp_path / "empty").mkdir()
    for source, message in (
        (tmp_path / "none", "there is no such file or folder"),
        (tmp_path / "empty", "no pictures in this folder"),
        (tmp_path / "x.npy", "not a readable array"),
        (tmp_path / "objects.npy", "not a readable array"),
        (tmp_path / "float.npy", "must be uint8.*not float64"),
        (pictures[..., :2], "must be uint8"),
        (3.5, "frames must be arrays, paths, a camera's number or an iterable, not 3.5"),
        (None, "not None"),
    ):
        with pytest.raises(ValueError, match=message):
            edgemoe.frames(source)


def test_video_and_camera(tmp_path):
    cv2 = pytest.importorskip("cv2", reason="needs the extra video")
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    for number in range(5):
        writer.write(np.full((48, 64, 3), (0, 0, 40 * number + 20), np.uint8))  # BGR: red grows
    writer.release()
    frames = list(edgemoe.frames(path))
    assert [frame.shape for frame in frames] == [(48, 64, 3)] * 5 and frames[0].dtype == np.uint8
    reds = [frame[..., 0].mean() for frame in frames]
    np.testing.assert_allclose(reds, [20, 60, 100, 140, 180], atol=8)
    assert all(frame[..., 2].mean() < 12 for frame in frames)
    reader = edgemoe.frames(path)
    next(reader)
    reader.close()
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    with pytest.raises(ValueError, match="broken.mp4: cannot be opened as a video"):
        edgemoe.frames(tmp_path / "broken.mp4")
    assert len(list(edgemoe.frames(f"file://{path}"))) == 5  # as any address that OpenCV takes
    for source in (987, "camera:987"):
        with pytest.raises(ValueError, match="camera 987: there is no such camera"):
            edgemoe.frames(source)


def test_camera_that_is_unplugged(monkeypatch, runtime_bundle, pictures):
    """A camera has no end of its own, so one that gives no more is an error, after the frames that it gave."""
    captures = []

    class Capture:
        def __init__(self, source):
            self.left, self.released = [picture[..., ::-1] for picture in pictures[:3]], False
            captures.append(self)

        def isOpened(self):
            return True

        def read(self):
            return (True, self.left.pop(0)) if self.left else (False, None)

        def get(self, what):
            return -1.0  # of a stream

        def release(self):
            self.released = True

    cv2 = SimpleNamespace(
        VideoCapture=Capture,
        cvtColor=lambda picture, code: picture[..., ::code],
        COLOR_BGR2RGB=-1,
        CAP_PROP_FRAME_COUNT=7,
    )
    monkeypatch.setitem(sys.modules, "cv2", cv2)
    with edgemoe.open("reference", runtime_bundle) as accelerator:
        for source, name in ((0, "camera 0"), ("camera:2", "camera 2")):
            found = []
            with pytest.raises(edgemoe.FrameError, match=f"frame 3: {name}: it gives no more frames"):
                for frame in accelerator.stream(source, "depth"):
                    found.append(frame.image)
            np.testing.assert_array_equal(found, pictures[:3])
            assert captures[-1].released
        assert len(list(accelerator.stream("rtsp://camera/1", "depth"))) == 3  # an address may be a file's: it ends


def test_without_pillow(tmp_path, monkeypatch, pictures, runtime_bundle):
    """A board may have none: arrays and .npy files are read, and the others say what they need."""
    np.save(tmp_path / "a.npy", pictures[0])
    np.save(tmp_path / "b.npy", pictures[0][..., 0])
    np.savez(tmp_path / "c.npz", pictures[0])
    (tmp_path / "c.npz").rename(tmp_path / "c.npy")
    (tmp_path / "x.png").write_bytes(b"\x89PNG")
    monkeypatch.setitem(sys.modules, "PIL", None)
    with edgemoe.open("reference", runtime_bundle, resize="crop") as accelerator:
        for source in (tmp_path / "a.npy", str(tmp_path / "a.npy"), pictures[0]):
            assert accelerator.run(source, "depth").task == "depth"
        for source, message in (
            (tmp_path / "x.png", r"reading .*x.png needs Pillow .*pip install pillow; arrays and"),
            (pictures[0][1:], "resizing images needs Pillow"),
            (tmp_path / "none.npy", "none.npy: there is no such file"),
            (tmp_path / "b.npy", r"must be uint8 \[height, width, 3\] .*, not uint8 \[12, 16\]"),
            (tmp_path / "c.npy", "c.npy: not a readable array"),
        ):
            with pytest.raises(ValueError, match=message):
                accelerator.run(source, "depth")


def test_without_opencv(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    (tmp_path / "clip.mp4").write_bytes(b"")
    for source in (tmp_path / "clip.mp4", 0):
        with pytest.raises(ValueError, match=r"need OpenCV; install it with: pip install .*\[video\]"):
            edgemoe.frames(source)
