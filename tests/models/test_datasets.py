"""Each data set on a miniature tree of its public layout."""

import json
import sys

import numpy as np
import pytest
from PIL import Image

from edgemoe_models.config import DEPTH_SCALE, TaskConfig
from edgemoe_models.datasets import DATA_SETS, files, find
from edgemoe_models.datasets.arrays import IGNORE
from edgemoe_models.evaluation.metrics import TaskMetrics
from support.camvid_tree import make_camvid
from support.photo_trees import assert_tells_tree
from support.small_models import to_train

HEIGHT, WIDTH = 24, 40
ALL = ("segmentation", "depth", "normals", "edges")


def save_image(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, quality=95) if path.suffix == ".jpg" else Image.fromarray(array).save(path)


def save_array(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array)


def save_text(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def camvid(root):
    make_camvid(root, HEIGHT, WIDTH)


def picture(seed):
    """Smooth, so that JPEG keeps it."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return np.stack([6 * x, 10 * y, np.full_like(x, 40 * seed)], -1).astype(np.uint8)


def halves(left, right, dtype=np.uint8):
    """A label map of two halves whose first row is ``left - 1``... of 0."""
    labels = np.full((HEIGHT, WIDTH), left, dtype)
    labels[:, WIDTH // 2 :] = right
    labels[0] = 0
    return labels


def cityscapes(root):
    for split, count in (("train", 3), ("val", 2)):
        for i in range(count):
            name = f"{split}/ulm/ulm_{i:06d}_000019"
            save_image(root / "leftImg8bit" / f"{name}_leftImg8bit.png", picture(i))
            save_image(root / "gtFine" / f"{name}_gtFine_labelIds.png", halves(7, 33))  # road, bicycle
            save_image(root / "disparity" / f"{name}_disparity.png", halves(256 * 40 + 1, 257, np.uint16))
    camera = {"extrinsic": {"baseline": 0.25}, "intrinsic": {"fx": 2000.0}}
    save_text(root / "camera/train/ulm/ulm_000001_000019_camera.json", json.dumps(camera))


def cityscapes_npy(root):
    for split, count in (("train", 3), ("val", 2)):
        for i in range(count):
            save_array(root / split / "image" / f"{i}.npy", picture(i) / 255)
            save_array(root / split / "label_7" / f"{i}.npy", halves(1, 7, np.float64) - 1)
            save_array(root / split / "depth" / f"{i}.npy", halves(256 * 40 + 1, 257, np.float64)[..., None] / 65535)


def nyudv2(root):
    for split, names in (("train", "11 12 1443"), ("val", "7 8")):
        save_text(root / "gt_sets" / f"{split}.txt", names.replace(" ", "\n") + "\n")
        for name in names.split():
            save_image(root / "images" / f"{name}.jpg", picture(1))
            save_image(root / "segmentation" / f"{name}.png", halves(1, 40))
            save_array(root / "depth" / f"{name}.npy", halves(2.5, 12.0, np.float32))
            save_array(root / "normals" / f"{name}.npy", halves(0.5, -2, np.float32)[..., None] * np.eye(3)[2])
            edge = np.zeros((HEIGHT, WIDTH), np.float32)
            edge[:, 13] = 1
            save_array(root / "edge" / f"{name}.npy", edge)


def pascal_context(root):
    for split, names in (("train", "2008_000001 2008_000002"), ("val", "2008_000009")):
        save_text(root / "ImageSets/Context" / f"{split}.txt", names.replace(" ", "\n") + "\n")
        for i, name in enumerate(names.split()):
            save_image(root / "JPEGImages" / f"{name}.jpg", picture(i))
            labels = halves(15, 20)
            labels[0] = 255
            save_image(root / "semseg" / ("VOC12", "pascal-context")[i % 2] / f"{name}.png", labels)
            save_image(root / "pascal-context/trainval" / f"{name}.png", halves(284, 187, np.uint16))  # person, grass
            save_image(root / "normals_distill" / f"{name}.png", np.full((HEIGHT, WIDTH, 3), (127, 128, 255), np.uint8))


TREES = {
    "camvid": camvid,
    "cityscapes": cityscapes,
    "cityscapes-npy": cityscapes_npy,
    "nyudv2": nyudv2,
    "pascal-context": pascal_context,
}


@pytest.fixture
def load(tmp_path):
    """Loads a split of a data set whose tree it makes, at the stored size if none is given."""

    def load(name, split="train", count=100, size=(HEIGHT, WIDTH), labels=None):
        root = tmp_path / name
        if not root.is_dir():
            TREES[name](root)
        data = DATA_SETS[name]
        return data.load(str(root), tmp_path / "cache", split, count, size, data.kinds if labels is None else labels)

    return load


@pytest.mark.parametrize("name", TREES)
def test_arrays_are_those_of_scenes(name, load, tmp_path):
    data = load(name, size=(16, 32))
    scenes = find("scenes").load("", tmp_path, "val", 1, (16, 32), DATA_SETS[name].kinds)
    assert set(data) == set(scenes)
    count = 2 if name == "pascal-context" else 3
    for key, array in data.items():
        assert array.shape == (count, *scenes[key].shape[1:]) and array.dtype == scenes[key].dtype
    assert len(load(name, "val", 1, (16, 32))["image"]) == 1
    assert np.abs(load(name)["image"].astype(int)[0] - picture(1 if name == "nyudv2" else 0)).max() <= 8  # JPEG


@pytest.mark.parametrize("name", TREES)
def test_each_class_has_one_name(name):
    names = DATA_SETS[name].class_names
    assert (
        len(set(names)) == len(names) == {"ca": 11, "ci": 19, "ny": 40, "pa": 21}[name[:2]] - 12 * name.endswith("npy")
    )


@pytest.mark.parametrize(
    ("name", "first", "left", "right"),
    [
        ("camvid", IGNORE, 0, 10),
        ("cityscapes", IGNORE, 0, 18),
        ("cityscapes-npy", IGNORE, 0, 6),
        ("nyudv2", IGNORE, 0, 39),
        ("pascal-context", IGNORE, 15, 20),
    ],
)
def test_classes(name, first, left, right, load):
    for labels in load(name)["segmentation"]:
        assert np.all(labels[0] == first)
        assert np.all(labels[1:, : WIDTH // 2] == left) and np.all(labels[1:, WIDTH // 2 :] == right)


def test_train_ids_of_cityscapes_are_taken_where_there_are_no_ids(load, tmp_path):
    load("cityscapes", "val")
    for path in (tmp_path / "cityscapes/gtFine/train/ulm").iterdir():
        path.unlink()
        save_image(path.with_name(path.name.replace("labelIds", "labelTrainIds")), halves(18, 255))
    assert set(np.unique(load("cityscapes", labels=["segmentation"])["segmentation"])) == {0, 18, 255}


def test_depth_is_in_millimetres(load):
    focal_times_baseline = 0.209313 * 2262.52
    for name in ("cityscapes", "cityscapes-npy"):
        depth = load(name)["depth"][0]
        assert np.all(depth[0] == 0)  # no disparity
        assert np.all(depth[1:, 0] == round(1000 * focal_times_baseline / 40))
        assert np.all(depth[1:, -1] == 65_000)  # one pixel of disparity: beyond the end
    assert load("cityscapes")["depth"][1, 1, 0] == round(1000 * 0.25 * 2000 / 40)  # of its camera file
    depth = load("nyudv2")["depth"]
    assert np.all(depth[:, 0] == 0) and np.all(depth[:, 1:, 0] == 2500) and np.all(depth[:, 1:, -1] == 10_000)


def test_normals_are_unit_vectors_or_nothing(load):
    normals = load("nyudv2")["normals"][0]
    assert np.all(normals[0] == 0)
    assert np.all(normals[1:, 0] == (0, 0, 127)) and np.all(normals[1:, -1] == (0, 0, -127))
    normals = load("pascal-context")["normals"][0]
    assert np.all(normals[1:, 0] == (0, 0, 127))
    assert np.all(normals[0] == 0) and np.all(normals[1:, -1] == 0)  # no class, and grass, which NYUDv2 does not have


def test_edges_stay_whole_when_a_picture_is_made_small(load):
    for size in ((HEIGHT, WIDTH), (8, 16), (5, 7)):
        edges = load("nyudv2", size=size)["edges"][0]
        assert np.all(edges.sum(1) == 1) and np.all(edges[:, 13 * size[1] // WIDTH])
    edges = load("pascal-context")["edges"][0]
    expected = np.zeros((HEIGHT, WIDTH), bool)
    expected[1:, WIDTH // 2 - 1] = True
    expected[0] = True
    assert np.array_equal(edges, expected)


def test_edges_of_camvid_are_borders_of_labelled_classes(load):
    edges = load("camvid")["edges"][0]
    assert np.all(edges[1:, WIDTH // 2 - 1]) and edges.sum() == HEIGHT - 1  # the void's border is none
    assert load("camvid", size=(8, 16))["edges"][0].sum() == 8  # one pixel wide at each size
    assert len(load("camvid", "test")["image"]) == 1


def test_labels_are_never_mixed():
    labels = np.arange(12).reshape(3, 4)
    assert np.array_equal(files.nearest(labels, (3, 2)), [[1, 3], [5, 7], [9, 11]])
    assert np.array_equal(files.nearest(labels, (6, 4))[::2], labels)


def test_pixels_without_a_label_do_not_count():
    far = 65.0
    segmentation = TaskMetrics(TaskConfig("s", "segmentation", 2))
    segmentation.update(np.array([[[[9.0, 9.0]], [[0.0, 0.0]]]]), np.array([[[0, IGNORE]]], np.uint8))
    assert segmentation.result() == {"miou": 1.0, "pixel_accuracy": 1.0}
    depth = TaskMetrics(TaskConfig("d", "depth", 1), far)
    labels = np.array([[[0.0, 30.0, far]]], np.float32)
    depth.update(np.full((1, 1, 1, 3), 40 / DEPTH_SCALE, np.float32), labels)
    assert depth.result() == {"rmse": 10.0, "abs_rel": pytest.approx(1 / 3)}


def test_a_second_call_reads_the_cache(load, tmp_path):
    first = load("nyudv2")["depth"].copy()
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*")}
    assert np.array_equal(load("nyudv2")["depth"], first)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*")} == made
    for path in (tmp_path / "nyudv2" / "depth").iterdir():
        path.unlink()
    with pytest.raises(FileNotFoundError, match=r"depth/11\.npy \(or \.png, \.mat\) is missing"):
        load("nyudv2", count=2)
    assert not list((tmp_path / "cache").glob("*.partial"))


def test_mat_files(tmp_path):
    loadmat = pytest.importorskip("scipy.io", reason="SciPy is not among the dependencies; see the next test")
    loadmat.savemat(tmp_path / "a.mat", {"LabelMap": halves(284, 187, np.uint16)})
    assert np.array_equal(files.read_array(tmp_path, "a", "LabelMap"), halves(284, 187, np.uint16))
    loadmat.savemat(tmp_path / "b.mat", {"x": np.eye(2), "y": np.eye(2)})
    with pytest.raises(ValueError, match=r"b\.mat must have the variable 'LabelMap', not only \['x', 'y'\]"):
        files.read_array(tmp_path, "b", "LabelMap")


def test_mat_files_without_scipy(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    (tmp_path / "a.mat").touch()
    with pytest.raises(ValueError, match=r"a\.mat is a MATLAB file: install SciPy to read it \(pip install scipy\)"):
        files.read_array(tmp_path, "a", "LabelMap")


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("camvid", "train.txt"),
        ("cityscapes", "leftImg8bit/train"),
        ("cityscapes-npy", "train/image"),
        ("nyudv2", "gt_sets/train.txt"),
        ("pascal-context", "ImageSets/Context/train.txt"),
    ],
)
def test_an_absent_data_set(name, missing, tmp_path):
    data = DATA_SETS[name]
    with pytest.raises(FileNotFoundError) as caught:
        data.load(str(tmp_path / "nowhere"), tmp_path, "train", 1, (8, 8), ["segmentation"])
    message = str(caught.value)
    assert message.startswith(f"{name}: {tmp_path}/nowhere/{missing} is missing; the data set is to be had from ")
    assert_tells_tree(message, data)
    with pytest.raises(FileNotFoundError, match=f"--data {name} needs --data-root: the data set is to be had"):
        data.load("", tmp_path, "train", 1, (8, 8), ["segmentation"])


def test_refusals(load, tmp_path):
    with pytest.raises(ValueError, match=r"data must be one of .*, not 'imagenet'"):
        find("imagenet")
    with pytest.raises(ValueError, match=r"tasks of cityscapes must be among .*, not \['normals'\]"):
        load("cityscapes", labels=["normals"])
    load("pascal-context", "val")
    save_image(tmp_path / "pascal-context/semseg/VOC12/2008_000001.png", halves(21, 21))
    message = "pascal-context: classes of 2008_000001 must be below 21 or 255, not 21"
    with pytest.raises(ValueError, match=message):
        load("pascal-context")


def test_a_cut_off_picture_is_an_error(load, tmp_path):
    load("nyudv2", "val")
    (tmp_path / "nyudv2/images/12.jpg").write_bytes(b"no picture")
    with pytest.raises(ValueError, match="12.jpg: not a readable image"):
        load("nyudv2")


@pytest.mark.parametrize("file", ["images/12.jpg", "segmentation/12.png"])
def test_an_orientation_beside_labels_is_refused(load, tmp_path, file):
    """Labels lie as the pixels do or as the picture is shown: nothing says which."""
    load("nyudv2", "val")
    data = Image.Exif()
    data[0x112] = 3
    path = tmp_path / "nyudv2" / file
    Image.open(path).save(path, exif=data)
    with pytest.raises(ValueError, match=f"{path.name}: its EXIF orientation is 3, .* for picture and labels alike"):
        load("nyudv2")


@pytest.mark.parametrize(
    ("file", "name", "found"), [("segmentation/12.png", "segmentation", "RGB"), ("normals/12.npy", "normals", "L")]
)
def test_labels_of_a_wrong_form_are_refused(load, tmp_path, file, name, found):
    """A mask that was saved in colours, normals of one channel: never converted, never a broadcast."""
    load("nyudv2", "val")
    path = tmp_path / "nyudv2" / file
    array = np.asarray(Image.new(found, (WIDTH, HEIGHT)))
    save_image(path, array) if path.suffix == ".png" else save_array(path, array)
    with pytest.raises(ValueError, match=f"nyudv2: {name} of 12 must be .* at this size, not "):
        load("nyudv2")


def test_labels_are_never_converted(tmp_path):
    """Classes of a palette, 16 bits and bytes come as the file stores them, and scaled by taking the nearest."""
    indices = np.arange(24, dtype=np.uint8).reshape(4, 6)
    coloured = Image.fromarray(indices, "P")
    coloured.putpalette([(7 * i + c) % 256 for i in range(256) for c in range(3)])
    coloured.save(tmp_path / "classes.png", transparency=255)
    Image.fromarray(indices.astype(np.uint16) * 2000).save(tmp_path / "disparity.png")
    np.testing.assert_array_equal(files.read_image_values(tmp_path / "classes.png"), indices)
    np.testing.assert_array_equal(files.read_image_values(tmp_path / "disparity.png"), indices.astype(int) * 2000)
    assert set(files.nearest(indices, (7, 9)).ravel()) <= set(range(24))


@pytest.mark.parametrize("name", TREES)
def test_a_training_step(name, edgemoe, tmp_path, monkeypatch):
    pytest.importorskip("torch")
    from edgemoe_models.config import PRESETS

    small = to_train(TaskConfig("depth", "depth", 1, head_hidden=8, cells=8))
    monkeypatch.setitem(PRESETS, "small", small)
    TREES[name](tmp_path / "data")
    options = ["--data", name, "--data-root", tmp_path / "data", "--cache", tmp_path]
    tasks = ",".join(DATA_SETS[name].kinds)
    arguments = ["--preset", "small", "--tasks", tasks, "--steps", 1, "--batch", 2, "--out", tmp_path, *options]
    metrics = json.loads(edgemoe.ok("train", *arguments))
    assert set(metrics) == set(DATA_SETS[name].kinds)
    assert all(np.isfinite(value) for task in metrics.values() for value in task.values())
    assert json.loads(edgemoe.ok("train", "--evaluate", tmp_path / "small.safetensors", *options)) == metrics


def test_training_names_what_is_missing(edgemoe, tmp_path):
    pytest.importorskip("torch")
    options = ["--data", "cityscapes", "--data-root", tmp_path, "--out", tmp_path, "--cache", tmp_path]
    edgemoe("train", *options).refused("edgemoe: cityscapes: ", "leftImg8bit/train is missing; ", "cityscapes-dataset")
