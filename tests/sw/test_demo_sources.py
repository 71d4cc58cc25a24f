"""What the demo plays."""

import os
import shutil
from itertools import islice

import numpy as np
import pytest
from PIL import Image

from edgemoe.demo.sources import endless
from edgemoe_models.pictures import Notes


def test_scenes_drift_and_repeat(runtime_bundle):
    model = runtime_bundle.model
    first, again = (list(islice(endless("scenes", model), 80)) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert {frame.shape for frame in first} == {(12, 16, 3)} and first[0].dtype == np.uint8
    steps = np.abs(np.diff(np.array(first, int), axis=0)).mean((1, 2, 3))
    assert 0 < steps[:74].max() < 30 < steps[74]  # a small step within a scene, another scene after 75 frames


def test_folders_of_any_images_begin_again(runtime_bundle, tmp_path):
    Image.new("RGBA", (40, 15), (10, 20, 30, 255)).save(tmp_path / "b.png")
    Image.new("L", (16, 24), 7).save(tmp_path / "a.png")
    (tmp_path / "notes.txt").write_text("no image")
    said = []
    source = endless(str(tmp_path), runtime_bundle.model, notes=Notes(said.append))
    shapes = [(frame.shape, tuple(frame[0, 0])) for frame in islice(source, 4)]
    assert shapes == 2 * [((12, 16, 3), (7, 7, 7)), ((12, 16, 3), (10, 20, 30))]
    assert len(said) == 2 and "grey" in said[0] and "a.png" in said[0] and "transparent" in said[1]


def test_videos_begin_again(runtime_bundle, tmp_path):
    cv2 = pytest.importorskip("cv2")
    writer = cv2.VideoWriter(str(tmp_path / "x.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10, (32, 24))
    for level in (0, 120, 240):
        writer.write(np.full((24, 32, 3), level, np.uint8))
    writer.release()
    means = [frame.mean() for frame in islice(endless(str(tmp_path / "x.avi"), runtime_bundle.model), 5)]
    np.testing.assert_allclose(means, [0, 120, 240, 0, 120], atol=4)


def test_bad_sources(runtime_bundle, tmp_path):
    for source, message in ((tmp_path / "nothing.mp4", "there is no such file or folder"), (tmp_path, "no pictures")):
        with pytest.raises(ValueError, match=message):
            endless(str(source), runtime_bundle.model)
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"not a picture")
    with pytest.raises(ValueError, match="broken.png: not a readable image"):
        endless(str(broken), runtime_bundle.model)


def test_an_unreadable_image_does_not_end_its_folder(runtime_bundle, tmp_path):
    for name, level in (("a.png", 10), ("c.png", 20)):
        Image.new("RGB", (16, 12), (level, 0, 0)).save(tmp_path / name)
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:40])
    one, error, two, again, _ = islice(endless(str(tmp_path), runtime_bundle.model), 5)
    assert [picture[0, 0, 0] for picture in (one, two, again)] == [10, 20, 10]
    assert isinstance(error, ValueError) and "b.png: not a readable image" in str(error)


def test_nothing_in_a_folder_ends_it(runtime_bundle, tmp_path):
    """Files that vanish, that are no files, that may not be read; and a folder that is empty for a while."""
    good, bad, gone = tmp_path / "d.png", tmp_path / "b.png", tmp_path / "c.png"
    Image.new("RGB", (16, 12), (10, 0, 0)).save(good)
    gone.write_bytes(good.read_bytes())
    bad.write_bytes(b"no picture")
    os.mkfifo(tmp_path / "a.png")
    (tmp_path / "e.png").symlink_to("f.png")
    (tmp_path / "f.png").symlink_to("e.png")
    (tmp_path / "g.png").mkdir()
    source = endless(str(tmp_path), runtime_bundle.model)
    assert "b.png: not a readable image" in str(next(source))
    gone.unlink()
    assert "c.png: there is no such file" in str(next(source)) and next(source)[0, 0, 0] == 10
    os.mkfifo(gone)  # no longer a regular file when it is its turn, below
    bad.unlink()
    assert next(source)[0, 0, 0] == 10
    held = good.rename(tmp_path / "d.held")
    assert all("no pictures in this folder" in str(next(source)) for _ in range(3))
    shutil.rmtree(tmp_path / "g.png")
    folder = tmp_path.rename(tmp_path.with_name("moved"))
    assert "No such file or directory" in str(next(source))
    folder.rename(tmp_path)
    held.rename(good)
    assert next(source)[0, 0, 0] == 10


def test_a_picture_that_vanishes_may_come_back(runtime_bundle, tmp_path):
    Image.new("RGB", (16, 12), (10, 0, 0)).save(tmp_path / "a.png")
    source = endless(str(tmp_path / "a.png"), runtime_bundle.model)
    assert next(source)[0, 0, 0] == 10
    held = (tmp_path / "a.png").rename(tmp_path / "b.png")
    assert "a.png: there is no such file" in str(next(source))
    held.rename(tmp_path / "a.png")
    assert next(source)[0, 0, 0] == 10
