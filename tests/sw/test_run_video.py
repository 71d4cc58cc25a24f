"""``edgemoe run --video``: what is in the video, where frames come from, and what is lost when it is broken off."""

import os
import re
import resource
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import edgemoe as package
from edgemoe.bundle import Bundle
from edgemoe.jobs.video_run import VideoOptions, VideoRun
from edgemoe.reports.legends import colour, legend
from edgemoe.reports.panels import panels
from edgemoe.reports.video_file import video_file
from edgemoe_models.datasets import camvid
from edgemoe_models.storage.atomic import SaveError
from support.small_bundle import picture

cv2 = pytest.importorskip("cv2", reason="the extra video is not installed")


def read(path):
    """Frames uint8 [N, H, W, 3] RGB of a video, and its frames a second."""
    capture = cv2.VideoCapture(str(path))
    rate, frames = capture.get(cv2.CAP_PROP_FPS), []
    while True:
        found, frame = capture.read()
        if not found:
            return np.array(frames)[..., ::-1], rate
        frames.append(frame)


def make_video(path, levels, size=(32, 24), fps=10):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), fps, size)
    for level in levels:
        writer.write(np.full((*size[::-1], 3), level, np.uint8))
    writer.release()
    return path


@pytest.fixture
def folder(tmp_path):
    for number in range(3):
        picture(tmp_path / "in" / f"{number}.png")
    return tmp_path / "in"


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".mkv", ".mov"])
def test_a_folder_becomes_a_video(edgemoe, bundle, folder, tmp_path, suffix):
    """Input and tasks side by side, as ``panels`` draws them, with the colours and the names of the legends."""
    path = tmp_path / "out" / f"x{suffix}"
    text = edgemoe.ok("run", bundle, folder, "--video", path, "--fps", 4)
    assert text == f"3 frames of segmentation, depth, scene are in {path}, 4 a second\n"
    frames, rate = read(path)
    assert len(frames) == 3 and rate == 4
    assert sorted(each.name for each in path.parent.iterdir()) == [path.name]  # nothing unfinished stays
    with package.open("reference", Bundle.load(bundle)) as accelerator:
        image = np.asarray(Image.open(folder / "0.png"))
        found = accelerator.run(image, list(accelerator.tasks))
        drawn = np.asarray(panels(image, found, f"{accelerator.bundle.model.name} on reference"))
    assert np.abs(frames[0][: drawn.shape[0], : drawn.shape[1]].astype(int) - drawn).mean() < 4  # the encoder's


def test_panels_have_everything(runtime_bundle, rng):
    """Every kind of task has a panel: its colours, its legend; a class its name."""
    model = runtime_bundle.model
    image = rng.integers(0, 256, (model.image_height, model.image_width, 3), np.uint8)
    with package.open("reference", runtime_bundle) as accelerator:
        found = accelerator.run(image, list(accelerator.tasks))
    drawn = np.asarray(panels(image, found, "a caption"))
    for prediction in found.values():
        about = model.task(prediction.task)
        if about.is_dense:
            for _, rgb in legend(about.kind, about.channels, about.labels):
                assert (drawn == rgb).all(-1).sum() >= 81, (about.kind, rgb)
            assert (drawn == colour(about.kind, prediction.values)[0, 0]).all(-1).any()
    without = np.asarray(panels(image, {name: one for name, one in found.items() if one.kind != "classification"}))
    assert drawn.shape[1] > without.shape[1] and drawn.shape[0] == without.shape[0] + 14
    assert np.array_equal(drawn, np.asarray(panels(image, found, "a caption")))


def test_the_sky_has_no_normals_in_a_video():
    """Where the segmentation sees sky the normals' panel is grey, as in every other picture."""
    from types import SimpleNamespace

    from edgemoe_models.config import PRESETS

    model = PRESETS["m3vit-micro"]
    size = (model.image_height, model.image_width)
    sky = np.zeros(size, np.uint8)
    normals = np.broadcast_to(np.array([0.0, 0.0, -1.0], np.float32), (*size, 3))
    both = {
        "segmentation": SimpleNamespace(task="segmentation", kind="segmentation", model=model, values=sky),
        "normals": SimpleNamespace(task="normals", kind="normals", model=model, values=normals),
    }
    image = np.zeros((*size, 3), np.uint8)
    drawn, plain = np.asarray(panels(image, both)), np.asarray(panels(image, {"normals": both["normals"]}))
    facing = (128, 128, 0)
    assert (drawn == facing).all(-1).sum() < 200 < size[0] * size[1] <= (plain == facing).all(-1).sum()


def test_a_video_keeps_its_rate_and_may_be_cut(edgemoe, bundle, tmp_path):
    source, path = make_video(tmp_path / "in.avi", range(0, 200, 20), fps=12), tmp_path / "out.mp4"
    edgemoe.ok("run", bundle, source, "--resize", "squeeze", "--video", path, "--task", "segmentation")
    frames, rate = read(path)
    assert len(frames) == 10 and rate == 12
    edgemoe.ok("run", bundle, source, "--resize", "crop", "--video", path, "--frames", 4, "--fps", 2.5)
    frames, rate = read(path)
    assert len(frames) == 4 and rate == 2.5
    assert [round(frame[30:90, 30:90].mean() / 20) for frame in frames] == [0, 1, 2, 3]


def test_a_video_that_is_cut_off_is_told_so(edgemoe, bundle, tmp_path):
    """OpenCV ends there as at the last frame, and FFmpeg prints a line for each damaged block."""
    source, path = make_video(tmp_path / "in.avi", range(0, 240, 8), (16, 12)), tmp_path / "out.mp4"
    source.write_bytes(source.read_bytes()[: source.stat().st_size // 2])
    done = edgemoe("run", bundle, source, "--video", path, "--task", "segmentation")
    assert done.code == 1 and "Traceback" not in done.err
    message = re.search(r"in\.avi: it is damaged or cut off: only (\d+) of its 30 frames can be read", done.err)
    assert 0 < int(message[1]) == len(read(path)[0]) < 30
    (tmp_path / "bad.mp4").write_bytes(bytes(5000))
    command = [sys.executable, "-m", "edgemoe.cli", "run", bundle, tmp_path / "bad.mp4", "--video", path]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 1
    assert done.stderr == f"edgemoe: {tmp_path / 'bad.mp4'}: cannot be opened as a video\n"


def test_pictures_and_videos_together(edgemoe, bundle, folder, tmp_path):
    source, path = make_video(tmp_path / "in.avi", (0, 50), (16, 12)), tmp_path / "out.mp4"
    assert "6 frames" in edgemoe.ok("run", bundle, folder / "0.png", folder, source, "--video", path)
    assert len(read(path)[0]) == 6 and read(path)[1] == 10


def test_pictures_that_cannot_be_read_are_skipped(edgemoe, bundle, folder, tmp_path):
    (folder / "1.png").write_bytes(b"no picture")
    done = edgemoe("run", bundle, folder, "--video", tmp_path / "out.mp4")
    done.failed("note: skipped: ", "1.png: not a readable image", "1 pictures could not be read")
    assert len(read(tmp_path / "out.mp4")[0]) == 2
    for path in folder.iterdir():
        path.write_bytes(b"no picture")
    (tmp_path / "out.mp4").write_bytes(b"before")
    edgemoe("run", bundle, folder, "--video", tmp_path / "out.mp4").refused("0.png: not a readable image")
    assert (tmp_path / "out.mp4").read_bytes() == b"before"


def test_a_video_of_another_size_is_refused_at_its_first_frame(edgemoe, bundle, tmp_path):
    source = make_video(tmp_path / "in.avi", range(5))
    done = edgemoe("run", bundle, source, "--video", tmp_path / "out.mp4")
    done.refused("it is 32x24 pixels, but the model takes 16x12")
    assert not (tmp_path / "out.mp4").exists()


def test_what_is_no_video_is_refused(edgemoe, bundle, folder, image, tmp_path, monkeypatch):
    for name in ("x.gif", "x", "x.mp4.png"):
        message = "a video's name must end in one of .mp4, .mkv, .mov, .avi, not"
        edgemoe("run", bundle, folder, "--video", tmp_path / name).refused(message)
    edgemoe("run", bundle, folder, "--video", tmp_path / "x.mp4", "--fps", 0).refused("fps must be in 0.1..240 frames")
    edgemoe("run", bundle, folder, "--fps", 3).refused("--fps and --frames are of --video FILE, which is missing")
    edgemoe("run", bundle, folder, "--video", tmp_path / "in").refused("is a folder; give the name of a file")
    edgemoe("run", bundle, tmp_path / "none.mp4", "--video", tmp_path / "x.mp4").refused("there is no such file")
    source = make_video(tmp_path / "x.avi", (1, 2), (16, 12))
    before = source.read_bytes()
    edgemoe("run", bundle, source, "--video", source).refused("x.avi is read and would be replaced by the video")
    for source in ("camera:0", "rtsp://camera/1", tmp_path / "x.avi"):
        edgemoe("run", bundle, source).refused(f"{source}: of a video or camera only a video can be made: --video FILE")
    source = tmp_path / "x.avi"
    waves = ("--device", "sim", "--waves", tmp_path / "x.vcd")
    edgemoe("run", bundle, folder, "--video", tmp_path / "x.mp4", *waves).refused("--waves and --video exclude each o")
    assert source.read_bytes() == before and not (tmp_path / "x.mp4").exists()
    monkeypatch.setitem(sys.modules, "cv2", None)
    monkeypatch.setattr("edgemoe.extras.is_installed", lambda module: module != "cv2")
    done = edgemoe("run", bundle, folder, "--video", tmp_path / "x.mp4")
    done.refused("edgemoe run --video needs OpenCV: pip install", "[video]")


def test_features_have_nothing_to_see(bundle, tmp_path):
    from edgemoe_models.config import TaskConfig
    from edgemoe_models.random_weights import random_state
    from support.small_models import to_train

    model = to_train(TaskConfig("backbone", "features", 8))
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 32, 3), np.uint8)
    from edgemoe_models.ptq.quantize import quantize

    compiled = package.compile(quantize(random_state(model, 0), model, images), "tiny")
    with pytest.raises(ValueError, match="backbone: features have no picture, so there is nothing for a video"):
        VideoRun(compiled, [str(tmp_path)], VideoOptions(tmp_path / "x.mp4", "reference"))


def interrupted_after(count, error):
    def done(made):
        if made == count:
            raise error

    return done


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("the device has gone")])
def test_what_is_broken_off_is_kept(bundle, folder, tmp_path, error):
    """The frames until then are a whole video; before the first frame an older file stays as it was."""
    said, path = [], tmp_path / "x.mp4"

    def run():
        return VideoRun(Bundle.load(bundle), [str(folder)], VideoOptions(path, "reference", note=said.append))

    with pytest.raises(type(error)):
        run().run(interrupted_after(2, error))
    assert len(read(path)[0]) == 2 and said == [f"{path} has the 2 frames until then"]
    before = path.read_bytes()
    broken = run()
    (folder / "0.png").write_bytes(b"")
    for name in ("1.png", "2.png"):
        (folder / name).unlink()
    with pytest.raises(ValueError, match=r"0\.png"):
        broken.run()
    assert path.read_bytes() == before and len(list(tmp_path.glob(".*"))) == 0


def test_ctrl_c_ends_with_its_code(edgemoe, bundle, folder, tmp_path, monkeypatch):
    from edgemoe.cli.output import Work

    def interrupt(self, text, share=0.0):
        if "1 frames" in text:
            raise KeyboardInterrupt

    monkeypatch.setattr(Work, "detail", interrupt)
    done = edgemoe("run", bundle, folder, "--video", tmp_path / "x.mp4")
    assert done.code == 130 and "has the 1 frames until then" in done.err
    assert len(read(tmp_path / "x.mp4")[0]) == 1


def test_a_full_disk_is_told(tmp_path):
    """OpenCV says nothing of what it could not write."""
    rng, path = np.random.default_rng(0), tmp_path / "x.avi"
    path.write_bytes(b"before")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(SaveError, match=r"only \d+ of 20 frames are in it; is the disk full\?"):
            with video_file(path, 5) as write:
                for _ in range(20):
                    write(rng.integers(0, 256, (48, 64, 3), np.uint8))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == b"before" and [each.name for each in tmp_path.iterdir()] == ["x.avi"]


def test_frames_of_another_size_and_no_frames(tmp_path):
    path = tmp_path / "x.mp4"
    with pytest.raises(ValueError, match="frames of a video must have one size"), video_file(path, 5) as write:
        write(np.zeros((10, 20, 3), np.uint8))
        write(np.zeros((10, 22, 3), np.uint8))
    with pytest.raises(SaveError, match="there are no frames"), video_file(path, 5):
        pass
    with video_file(path, 5) as write:
        write(np.zeros((31, 41, 3), np.uint8))
    assert read(path)[0].shape == (1, 32, 42, 3)  # encoders want even sizes
    with pytest.raises(SaveError, match="cannot be written"), video_file(tmp_path / "x.mp4" / "y.mp4", 5):
        pass


def test_a_folder_of_streets_has_camvids_colours(tmp_path):
    """Every class of CamVid is in the legend of its panel."""
    from types import SimpleNamespace

    from edgemoe_models.config import TaskConfig
    from support.small_models import to_train

    model = to_train(TaskConfig("segmentation", "segmentation", 11, cells=4, labels=camvid.CLASSES))
    found = SimpleNamespace(task="segmentation", kind="segmentation", model=model, values=np.zeros((16, 32), np.uint8))
    drawn = np.asarray(panels(np.zeros((16, 32, 3), np.uint8), {"segmentation": found}))
    for rgb in camvid.PALETTE:
        assert (drawn == rgb).all(-1).sum() >= 81


def test_a_camera_that_is_unplugged(edgemoe, bundle, tmp_path, monkeypatch):
    """What it gave until then is a whole video; ``--frames`` ends one that goes on."""
    real = cv2.VideoCapture

    class Camera:
        def __init__(self):
            self.left = 5

        def isOpened(self):
            return True

        def read(self):
            self.left -= 1
            return self.left >= 0, np.full((12, 16, 3), 90, np.uint8)

        def release(self):
            pass

    monkeypatch.setattr(cv2, "VideoCapture", lambda source: Camera() if isinstance(source, int) else real(source))
    path = tmp_path / "x.mp4"
    assert "3 frames" in edgemoe.ok("run", bundle, "camera:0", "--video", path, "--frames", 3)
    assert len(read(path)[0]) == 3
    done = edgemoe("run", bundle, "camera:0", "--video", path)
    done.failed("has the 5 frames until then", "camera 0: it gives no more frames; was it unplugged?")
    assert len(read(path)[0]) == 5
