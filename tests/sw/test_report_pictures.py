"""Colours, legends and captions of predictions and labels."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import edgemoe
from edgemoe import Classification
from edgemoe.reports import sheet
from edgemoe.reports.legends import NO_LABEL, colour, colours, legend, unlabelled
from edgemoe.reports.pictures import caption_of, save_picture, save_predictions, save_scores
from edgemoe_models.config import PRESETS, TaskConfig
from edgemoe_models.datasets import camvid, camvid_official
from edgemoe_models.datasets.scenes import CLASS_NAMES, PALETTE, SKY

HEIGHT, WIDTH = 64, 128
MODEL = PRESETS["m3vit-micro"]


@pytest.fixture
def scene():
    """An image whose upper quarter is sky, and its labels."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    classes = np.where(y < HEIGHT // 4, SKY, 1 + x // 16 % 7).astype(np.uint8)
    normals = np.where((classes == SKY)[..., None], 0, np.array([0, 0, -1.0])).astype(np.float32)
    image = np.stack([2 * x, 4 * y, x + y], -1).astype(np.uint8)
    return SimpleNamespace(image=image, segmentation=classes, normals=normals, edges=x % 16 == 0, depth=y / 8.0)


def noise(shape):
    return np.random.default_rng(3).normal(size=shape).astype(np.float32)


def saved(tmp_path, *arguments, **options):
    save_picture(tmp_path / "new" / "x.png", *arguments, **options)
    return np.asarray(Image.open(tmp_path / "new" / "x.png"))


def panel(picture, number):
    """A panel of a saved picture, one pixel for each of its own."""
    left, top = 6 + number * (3 * WIDTH + 6), 18
    return picture[top : top + 3 * HEIGHT : 3, left : left + 3 * WIDTH : 3]


def test_normals_without_a_label_are_grey_in_both(scene, tmp_path):
    prediction = noise((HEIGHT, WIDTH, 3))
    picture = saved(tmp_path, "normals", scene.image, prediction, scene.normals)
    sky = scene.segmentation == SKY
    for number, values in ((1, prediction), (2, scene.normals)):
        assert (panel(picture, number)[sky] == NO_LABEL).all()
        np.testing.assert_array_equal(panel(picture, number)[~sky], colour("normals", values)[~sky])
    np.testing.assert_array_equal(panel(picture, 0), scene.image)
    np.testing.assert_array_equal(
        panel(saved(tmp_path, "normals", scene.image, prediction), 1), colour("normals", prediction)
    )


def found(task, values, model=MODEL):
    return SimpleNamespace(task=task, kind=model.task(task).kind, model=model, values=values)


def test_the_segmentation_says_where_normals_have_none(scene):
    prediction, sky = noise((HEIGHT, WIDTH, 3)), scene.segmentation == SKY
    both = {"normals": found("normals", prediction), "segmentation": found("segmentation", scene.segmentation)}
    assert (colours(both)["normals"][sky] == NO_LABEL).all()
    np.testing.assert_array_equal(colours(both)["normals"][~sky], colour("normals", prediction)[~sky])
    np.testing.assert_array_equal(colours(both)["segmentation"], PALETTE[scene.segmentation])
    np.testing.assert_array_equal(unlabelled("normals", both), sky)
    assert unlabelled("depth", both) is None
    del both["segmentation"]
    np.testing.assert_array_equal(colours(both)["normals"], colour("normals", prediction))


def test_a_segmentation_of_other_classes_says_nothing(runtime_bundle, scene):
    """Class 0 is the sky of the generated scenes, and anything elsewhere."""
    model = runtime_bundle.model
    assert model.task("segmentation").channels != len(CLASS_NAMES)
    others = {"normals": found("normals", noise((12, 16, 3)), model)}
    others["segmentation"] = found("segmentation", np.zeros((12, 16), np.uint8), model)
    assert unlabelled("normals", others) is None


@pytest.mark.parametrize("kind", ["segmentation", "depth", "normals", "edges"])
def test_every_kind_has_a_legend_and_a_caption(scene, tmp_path, kind):
    values = getattr(scene, kind)
    plain = saved(tmp_path, kind, scene.image, values)
    below = plain[18 + 3 * HEIGHT :]
    boxes = [rgb for _, rgb in legend(kind)] or [tuple(colour("depth", np.array(metres))) for metres in (0, 10)]
    assert boxes and all((below == rgb).all(-1).sum() > 50 or kind == "depth" for rgb in boxes)
    assert all((below == rgb).all(-1).any() for rgb in boxes)
    named = saved(tmp_path, kind, scene.image, values, caption="a model")
    np.testing.assert_array_equal(named[: plain.shape[0] - 6], plain[:-6])
    assert named.shape[0] == plain.shape[0] + 14 and (named[plain.shape[0] - 4 :] < 160).any()


def test_legends_run_on_where_a_picture_is_narrow(scene, tmp_path):
    """Nothing is cut off: every entry's box is in the picture, whatever its form and the number of classes."""
    for rows, columns in ((192, 3), (8, 8), (3, 1000), (1, 1)):
        image = np.zeros((rows, columns, 3), np.uint8)
        for channels in (2, len(CLASS_NAMES), 200):
            labels = np.zeros((rows, columns), np.uint16)
            picture = saved(tmp_path, "segmentation", image, labels, channels=channels, caption="c")
            boxes = [rgb for _, rgb in legend("segmentation", channels)]
            assert all((picture == rgb).all(-1).sum() >= 81 for rgb in boxes) and len(boxes) == min(channels, 40)
            assert len({*boxes, NO_LABEL}) == len(boxes) + 1
            assert picture.shape[1] < 3000
        saved(tmp_path, "depth", image, np.zeros((rows, columns)))
    assert [name for name, _ in legend("segmentation")] == list(CLASS_NAMES)
    assert [name for name, _ in legend("segmentation", 3)] == ["class 0", "class 1", "class 2"]


def test_classes_have_their_own_names_and_colours(tmp_path):
    """CamVid's, or any others; eight classes with names of their own are not the scenes'."""
    found = legend("segmentation", len(camvid.CLASSES), camvid.CLASSES)
    assert [name for name, _ in found] == list(camvid.CLASSES)
    assert [rgb for _, rgb in found] == [tuple(rgb) for rgb in camvid.PALETTE.tolist()]
    assert len({rgb for _, rgb in found} | {NO_LABEL}) == len(camvid.CLASSES) + 1
    every = legend("segmentation", 31, camvid_official.CLASSES)
    assert [rgb for _, rgb in every][0] == (64, 128, 64) and len({rgb for _, rgb in every}) == len(every) == 31
    names = tuple("abcdefgh")
    assert [name for name, _ in legend("segmentation", 8, names)] == list(names)
    labels = np.arange(11, dtype=np.uint8).reshape(1, 11)
    np.testing.assert_array_equal(colour("segmentation", labels, None, camvid.CLASSES), camvid.PALETTE[None])
    image = np.zeros((1, 11, 3), np.uint8)
    picture = saved(tmp_path, "segmentation", image, labels, channels=11, classes=camvid.CLASSES)
    assert all((picture == rgb).all(-1).sum() >= 81 for rgb in camvid.PALETTE)


def test_captions():
    assert caption_of(MODEL, "depth") == "m3vit-micro, depth"
    for task, metrics, text in (
        ("segmentation", {"miou": 0.61149, "pixel_accuracy": 1.0}, "m3vit-micro, segmentation: mIoU 0.611"),
        ("depth", {"rmse": 0.539, "abs_rel": 0.1}, "m3vit-micro, depth: RMSE 0.54 m"),
        ("normals", {"mean_angle": 17.24}, "m3vit-micro, normals: mean error 17.2°"),
        ("edges", {"f1": float("nan")}, "m3vit-micro, edges"),
    ):
        assert caption_of(MODEL, task, metrics) == text


def test_all_predictions_of_an_image(runtime_bundle, pictures, tmp_path):
    with edgemoe.open("reference", runtime_bundle) as accelerator:
        predictions = {task: accelerator.run(pictures[0], task) for task in accelerator.tasks}
    save_predictions(tmp_path / "a" / "x", pictures[0], predictions)
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == sorted(f"x-{task}.png" for task in predictions)


def test_scores(runtime_bundle, pictures, tmp_path):
    """The best classes, the best first; a longer bar is more probable."""
    with edgemoe.open("reference", runtime_bundle) as accelerator:
        found = accelerator.run(pictures[0], "scene")
    best = found.topk(3)
    assert [one.label for one in best] == list(np.argsort(-found.scores, kind="stable")[:3])
    assert best[0] == (found.label, f"class {found.label}", pytest.approx(float(found.scores.max())))
    assert found.topk(10**6) == found.topk(found.scores.size)
    with pytest.raises(ValueError, match="k must be at least 1, not 0"):
        found.topk(0)
    task = TaskConfig("scene", "classification", channels=3, labels=("ant", "bee", "cow"))
    model = dataclasses.replace(found.model, tasks=(task,))
    equal = Classification("scene", found.raw, 1.0, found.stats, model, 1, np.array([0.2, 0.4, 0.4], np.float32))
    assert [one[:2] for one in equal.topk()] == [(1, "bee"), (2, "cow"), (0, "ant")]
    save_scores(tmp_path / "x.png", pictures[0], [("one", 0.75), ("two", 0.25), ("three", 0.0)], "caption")
    picture = np.asarray(Image.open(tmp_path / "x.png"))
    widths = (picture == (0, 114, 178)).all(-1).sum(1)
    one, two, three = (set(widths[23 + 20 * number : 30 + 20 * number]) for number in range(3))  # rows within each bar
    assert one == {111} and two == {37} and three <= {0, 1}
    save_scores(tmp_path / "x.png", pictures[0], [], "")


def test_a_picture_is_replaced_whole(scene, tmp_path, monkeypatch):
    """What cannot be written leaves the one before it."""
    saved(tmp_path, "edges", scene.image, scene.edges)
    before = (tmp_path / "new" / "x.png").read_bytes()

    def fail(*_):
        raise OSError("no space")

    monkeypatch.setattr(sheet, "write_bytes", fail)
    with pytest.raises(OSError, match="no space"):
        saved(tmp_path, "depth", scene.image, scene.depth)
    assert (tmp_path / "new" / "x.png").read_bytes() == before
