"""Sources of frames, and what a wrong one says."""

import sys
from pathlib import Path

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
            (tmp_path / "none", "there is no such file or folder"), (tmp_path / "empty", "no images in this folder"),
            (tmp_path / "x.npy", "not an array of frames"), (tmp_path / "objects.npy", "not an array of frames"),
            (tmp_path / "float.npy", "must be uint8.*not float64"), (pictures[..., :2], "must be uint8"),
            (3.5, "frames must be arrays, paths, a camera's number or an iterable, not 3.5"), (None, "not None")):
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
    for source in (987, "camera:987"):
        with pytest.raises(ValueError, match="camera 987: there is no such camera"):
            edgemoe.frames(source)


def test_without_opencv(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    (tmp_path / "clip.mp4").write_bytes(b"")
    for source in (tmp_path / "clip.mp4", 0):
        with pytest.raises(ValueError, match=r"need OpenCV; install it with: pip install 'edgemoe\[video\]'"):
            edgemoe.frames(source)
