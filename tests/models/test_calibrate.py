"""Calibration on a folder of pictures, the error report, and the command that has both."""

import json
import math
import re

import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

from edgemoe_models.config import TaskConfig
from edgemoe_models.graph.file import graph_bytes, read_graph
from edgemoe_models.pictures import Notes
from edgemoe_models.ptq.quantize import (
    QuantizeError,
    QuantizeOptions,
    calibration_folder,
    calibration_images,
    quantize,
)
from edgemoe_models.ptq.report import clipping_note, layer_errors
from edgemoe_models.random_weights import random_images, random_state
from support.small_models import to_quantize

CONFIG = to_quantize(TaskConfig("segmentation", "segmentation", 7, head_hidden=30), TaskConfig("depth", "depth", 1))


@pytest.fixture
def folder(tmp_path):
    """Scenes of two sizes, in a subfolder too, beside a file that is no picture."""
    pictures = tmp_path / "pictures"
    (pictures / "more").mkdir(parents=True)
    for i, image in enumerate(random_images(CONFIG, 5)):
        picture = Image.fromarray(image)
        if i == 3:
            picture = picture.resize((100, 50)).convert("L")
        picture.save(pictures / ("more" if i > 2 else ".") / f"{i}.png")
    (pictures / "notes.txt").write_text("no picture")
    return pictures


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "small.safetensors"
    safetensors.numpy.save_file(random_state(CONFIG), path, {"config": CONFIG.to_json()})
    return path


def test_folder(folder):
    said = []
    images = calibration_folder(folder, CONFIG, notes=Notes(said.append))
    assert len(said) == 1 and "grey" in said[0] and "3.png" in said[0]
    assert images.shape == (5, 24, 32, 3) and images.dtype == np.uint8
    np.testing.assert_array_equal(images[:3], random_images(CONFIG, 3))  # of the model's size: as they are
    assert (images[3, ..., 0] == images[3, ..., 1]).all()  # grey
    np.testing.assert_array_equal(calibration_folder(folder, CONFIG, 2), images[[0, 2]])


@pytest.mark.parametrize("case", ["none", "empty", "broken", "count"])
def test_folder_refusals(folder, tmp_path, case):
    path = {"none": tmp_path / "nothing", "empty": tmp_path / "empty"}.get(case, folder)
    (tmp_path / "empty").mkdir()
    (folder / "9.jpg").write_bytes(b"no picture")
    expected = {
        "none": "nothing: no such folder",
        "empty": "empty: no pictures in this folder",
        "broken": "9.jpg: not a readable image .* remove it",
        "count": "at least 1",
    }
    with pytest.raises(QuantizeError, match=expected[case]):
        calibration_folder(path, CONFIG, 0 if case == "count" else 16)


def test_layer_errors():
    """All layers have a ratio; what is quantized more coarsely has a smaller one."""
    state, images = random_state(CONFIG), calibration_images(CONFIG, 4)
    errors = layer_errors(state, quantize(state, CONFIG, images), images)
    fine, routing = errors.ratios, errors.same_expert
    coarse = layer_errors(state, quantize(state, CONFIG, images, QuantizeOptions(expert_bits=4)), images).ratios
    assert fine.keys() >= {"embed", "blocks.0.q", "blocks.0.hidden", "blocks.1.hidden", "norm", "heads.depth"}
    assert not any(".experts." in name for name in fine)
    assert all(15 < ratio < 70 for ratio in fine.values())
    assert coarse["blocks.0.residual2"] == pytest.approx(fine["blocks.0.residual2"])
    assert coarse["blocks.1.residual2"] < fine["blocks.1.residual2"] - 3
    assert routing.keys() == {"blocks.1"} and 0.9 < routing["blocks.1"] <= 1
    assert errors.clipped.keys() == fine.keys() and all(0 <= share < 0.1 for share in errors.clipped.values())
    worst = errors.worst(3)
    assert len(worst) == 3 and all(fine[worst[-1]] <= fine[name] for name in fine.keys() - set(worst))


def test_layer_errors_are_ratios_of_powers():
    """An error added to the integer graph's head bias alone shows as what it is."""
    state, images = random_state(CONFIG), calibration_images(CONFIG, 2)
    graph = quantize(state, CONFIG, images)
    head = graph.heads["depth"]
    added = round(2000 * (2.0 ** head.out.shift[0]) / head.out.multiplier[0])

    def noise(bias):
        """Power of the head's error, in units of the signal's variance, with ``bias`` added."""
        head.out.bias[:] += bias
        ratio = layer_errors(state, graph, images).ratios["heads.depth"]
        head.out.bias[:] -= bias
        return 10 ** (-ratio / 10)

    # Added and subtracted, so that the part that goes with the error that is there already cancels.
    extra = (noise(added) + noise(-added)) / 2 - noise(0)
    outputs = 2000 * head.output_scale
    assert math.sqrt(outputs**2 / extra) == pytest.approx(_deviation(state, images), rel=0.01)


def _deviation(state, images):
    from edgemoe_models import float_reference

    return np.concatenate([float_reference.forward(state, CONFIG, image[None], "depth")[0] for image in images]).std()


def test_command(edgemoe, folder, checkpoint, tmp_path):
    out = tmp_path / "new" / "graph.safetensors"
    options = ["--images", folder, "--count", 4, "--expert-bits", 4, "--ranges", "min-max", "--power-of-two"]
    done = edgemoe("quantize", checkpoint, *options, "--out", out)
    assert done.code == 0 and "note: grey pictures get equal red, green and blue (" in done.err
    assert read_graph(out).expert_bits == 4
    lines = done.out.splitlines()
    layers = ["layer", "embed", "0", "1", "norm", "segmentation", "depth"]
    assert [line.split()[0] for line in lines[1:8]] == layers
    assert lines[4].endswith("%") and lines[-1].startswith(f"{out}: small from 4 images, ")
    assert max(map(len, lines[:-1])) <= 80
    assert "on 1 held-out picture" in lines[0] and lines[8].startswith("the worst tensors on 1 held-out picture")
    assert len(lines) == 1 + 7 + 2 + 10 + 1


@pytest.mark.parametrize("count", [3, 5])
def test_report(edgemoe, folder, checkpoint, tmp_path, count):
    """Pictures of the folder that calibration leaves measure what it did; without any, those of calibration."""
    out, path = tmp_path / "graph", tmp_path / "new" / "report.json"
    edgemoe.ok("quantize", checkpoint, "--images", folder, "--count", count, "--out", out, "--report", path)
    report = json.loads(path.read_text())
    others = 5 - count
    assert report["measured_on"] == {"pictures": others or 5, "held_out": others > 0}
    assert report["calibration_pictures"] == count and report["options"]["expert_bits"] == 8
    assert report["tensors"].keys() >= {"embed", "blocks.0.context", "blocks.1.hidden", "heads.depth"}
    ratios = {name: row["snr_db"] for name, row in report["tensors"].items()}
    assert report["worst"] == sorted(ratios, key=lambda name: (ratios[name], name))[:10]
    assert 0.8 < report["same_expert"]["blocks.1"] <= 1


def test_notes_name_clipped_tensors():
    """A picture unlike the others, in one half only, has ranges that the other half does not know."""
    state, images, options = random_state(CONFIG), random_images(CONFIG, 6), QuantizeOptions(ranges="min-max")
    told, strange = [], []
    quantize(state, CONFIG, images, options, told.append)
    images[:3] = images[:3] // 16 + 120  # grey on grey
    quantize(state, CONFIG, images, options, strange.append)
    assert len(strange) == 1 and strange[0].startswith("more than 1% clipped in one half of the pictures")
    assert re.search(r"other half: blocks\.\d\.\w+ \d+\.\d %", strange[0]) and told != strange
    assert clipping_note({"a": 0.01, "b": 0.0}, "here") is None
    assert "here: b 3.0 %, a 2.0 %;" in clipping_note({"a": 0.02, "b": 0.03, "c": 0.0}, "here")


def test_command_without_images(edgemoe, checkpoint, tmp_path):
    out = tmp_path / "graph"
    done = edgemoe("quantize", checkpoint, "--count", 3, "--out", out)
    assert done.code == 0 and "WARNING: " in done.err and "is calibrated on 3 generated scenes, not on" in done.err
    assert f"{out}: small from 3 generated scenes, " in done.out
    wanted = quantize(random_state(CONFIG), CONFIG, calibration_images(CONFIG, 3))
    assert out.read_bytes() == graph_bytes(wanted)


def test_command_refusals(edgemoe, checkpoint, tmp_path):
    out = ["--out", tmp_path / "g"]
    edgemoe("quantize", tmp_path / "none", *out).refused("none: there is no such file")
    edgemoe("quantize", checkpoint, "--images", tmp_path / "none", *out).refused(str(tmp_path / "none"))
    edgemoe("quantize", checkpoint, "--out", tmp_path).refused(f"{tmp_path} is a folder")
    edgemoe("quantize", checkpoint, "--out", checkpoint).refused("is read and would be replaced")
    edgemoe("quantize", checkpoint, "--count", 0, *out).refused("'--count'", code=2)
    edgemoe("quantize", checkpoint, "--expert-bits", 3, *out).refused("expert_bits must be 4 or 8, not 3")
    edgemoe("quantize", checkpoint, "--ranges", "all", *out).refused("ranges must be one of ", "not 'all'")
