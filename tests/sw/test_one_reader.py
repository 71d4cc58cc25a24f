"""Runs, streams, frames, the demo, calibration and data sets see one picture in one way."""

import ast
import warnings
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import edgemoe
from edgemoe.demo.sources import endless
from edgemoe.runtime.images import prepare
from edgemoe_models.datasets import files
from edgemoe_models.pictures import Notes, PictureWarning, read_picture
from edgemoe_models.ptq.calibrate import calibration_folder

ROOT = Path(__file__).parents[2]
OPENING = "models/edgemoe_models/pictures/opening.py"
OWN_MESSAGES = "sw/edgemoe/demo/view.py"  # decodes what it has encoded itself


@pytest.fixture
def photos(tmp_path):
    """A turned JPEG, a picture with alpha, a grey one of 16 bits and a palette's, none of the model's size."""
    random = np.random.default_rng(2)
    data = Image.Exif()
    data[0x112] = 6
    noise = Image.fromarray(random.integers(0, 256, (40, 60, 4), np.uint8).astype(np.uint8), "RGBA")
    noise.convert("RGB").save(tmp_path / "a.jpg", exif=data)
    noise.save(tmp_path / "b.png")
    Image.fromarray(random.integers(0, 65536, (30, 25)).astype(np.uint16)).save(tmp_path / "c.tif")
    noise.convert("P").save(tmp_path / "d.gif")
    return tmp_path


@pytest.mark.parametrize("resize", ["crop", "squeeze"])
def test_all_see_the_same(runtime_bundle, photos, resize):
    model, paths = runtime_bundle.model, sorted(photos.iterdir())
    size = (model.image_height, model.image_width)
    wanted = [read_picture(path, size, resize, notes=Notes(len)) for path in paths]
    assert len({picture.tobytes() for picture in wanted}) == 4

    def same(pictures):
        np.testing.assert_array_equal(np.stack(list(pictures)), wanted)

    same(prepare(path, model, resize, Notes(len)) for path in paths)
    said = []
    with edgemoe.open("reference", runtime_bundle, resize=resize, notes=said.append) as accelerator:
        same(frame.image for frame in accelerator.stream(photos, "depth"))
        same(frame.image for frame in accelerator.stream(edgemoe.frames(photos, Notes(len)), "depth"))
        for path, picture in zip(paths, wanted, strict=True):
            raw = accelerator.run(picture, "depth").raw
            np.testing.assert_array_equal(accelerator.run(str(path), "depth").raw, raw)
    assert len(said) == 4  # turned, transparent, 16 bits, palette: each once
    same(islice(endless(str(photos), model, resize, Notes(len)), 4))
    same(calibration_folder(photos, model, 4, resize, Notes(len)))
    if resize == "squeeze":
        warnings.simplefilter("ignore", PictureWarning)  # once a process, so perhaps not here
        same([wanted[0], *(files.read_picture(path, size) for path in paths[1:])])


def test_a_stream_says_a_thing_once(runtime_bundle, tmp_path):
    """Also as Python's warnings, which are errors here."""
    Image.new("L", (16, 12), 7).save(tmp_path / "grey.png")
    many = [tmp_path / "grey.png"] * 300
    said = []
    with edgemoe.open("reference", runtime_bundle, notes=said.append) as accelerator:
        assert sum(frame.image is not None for frame in accelerator.stream(many, "scene")) == 300
        accelerator.run(many[0], "scene")
    assert len(said) == 1 and said[0].startswith("grey pictures get equal red, green and blue (")
    with edgemoe.open("reference", runtime_bundle) as accelerator, pytest.warns(PictureWarning, match="grey") as caught:
        for _ in range(3):
            accelerator.run(many[0], "scene")
    assert len(caught) == 1


def test_the_command_converts_and_says_so(edgemoe, runtime_bundle, tmp_path):
    """A photo that lies on its side fits where it is shown in the model's size."""
    runtime_bundle.save(tmp_path / "x.emoe")
    data = Image.Exif()
    data[0x112] = 6
    Image.new("L", (12, 16), 90).save(tmp_path / "turned.jpg", exif=data)
    Image.new("RGBA", (16, 12), (9, 9, 9, 0)).save(tmp_path / "clear.png")
    done = edgemoe("run", tmp_path / "x.emoe", tmp_path / "turned.jpg", tmp_path / "clear.png", "--out", tmp_path / "o")
    assert done.code == 0
    for text in ("pictures are turned upright", "grey pictures get equal", "what is transparent lies on white"):
        assert (done.out + done.err).count(text) == 1


def test_nothing_else_opens_pictures():
    """No second reader: Pillow decodes files in one place."""
    found = set()
    for folder in ("hw", "models", "sim", "sw"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                is_call = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
                if is_call and node.func.attr in ("open", "imread") and isinstance(node.func.value, ast.Name):
                    if node.func.value.id.lower() in ("image", "pillow", "pil", "cv2", "imageio", "plt"):
                        found.add(str(path.relative_to(ROOT)))
    assert found == {OPENING, OWN_MESSAGES}
