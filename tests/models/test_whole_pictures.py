"""Data sets of whole pictures (CIFAR, a folder for each class) and CamVid's official form, on trees made here."""

import numpy as np
import pytest
from PIL import Image

from edgemoe_models.datasets import camvid, camvid_official, files, find
from edgemoe_models.datasets.arrays import IGNORE
from edgemoe_models.pictures import PictureWarning
from support.photo_trees import (
    FRAMES,
    assert_tells_tree,
    make_camvid_official,
    make_cifar,
    make_image_folder,
    save_image,
)

HEIGHT, WIDTH = 24, 40


@pytest.fixture
def load(tmp_path):
    """Loads a split of the tree in ``data``."""

    def load(name, split="train", count=100, size=(32, 32), labels=("classification",)):
        return find(name).load(str(tmp_path / "data"), tmp_path / "cache", split, count, size, labels)

    return load


@pytest.fixture
def root(tmp_path):
    return tmp_path / "data"


def camvid_load(load, name, split="train", size=(HEIGHT, WIDTH)):
    return load(name, split, size=size, labels=("segmentation", "edges"))


@pytest.mark.parametrize("by_split", [False, True])
def test_camvid_in_its_official_form(load, root, by_split):
    make_camvid_official(root, HEIGHT, WIDTH, by_split)
    for name, sky, road, lane in (("camvid", "sky", "road", "road"), ("camvid-32", "Sky", "Road", "LaneMkgsDriv")):
        names = find(name).class_names
        for split, count in (("train", 2), ("val", 1), ("test", 2)):
            arrays = camvid_load(load, name, split)
            assert len(arrays["image"]) == count
            for labels in arrays["segmentation"]:
                assert np.all(labels[0] == IGNORE)
                assert np.all(labels[1:, : WIDTH // 2] == names.index(sky))
                assert np.all(labels[1:, WIDTH // 2 : -1] == names.index(road))
                assert np.all(labels[1:, -1] == names.index(lane))
            assert arrays["edges"].sum() == count * (HEIGHT - 1) * (1 + (name == "camvid-32"))
        assert [int(image[0, 0, 0]) for image in camvid_load(load, name, "test")["image"]] == [120, 160]


def test_the_published_classes_and_their_groups():
    """32 colours that differ, of which Void is none; each class is in one group."""
    assert len(camvid_official.CLASSES) == len(np.unique(camvid_official.PALETTE, axis=0)) == 31
    assert camvid_official.PALETTE.any(1).all()
    grouped = [name for names in camvid.GROUPS.values() for name in names]
    assert tuple(camvid.GROUPS) == camvid.CLASSES and sorted(grouped) == sorted(camvid_official.CLASSES)
    assert [FRAMES[i] for i in (2, 3)] == ["0016E5_07959", "0001TP_008550"]  # where the splits begin


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("class_dict.csv", "name,r,g,b\nSky,1,2,3\nRoad,4,5,6\n"),
        ("label_colors.txt", "1 2 3\t\tSky\n4 5 6\t\tRoad\n"),
    ],
)
def test_a_file_of_colours_counts(load, root, file, text):
    make_camvid_official(root, HEIGHT, WIDTH)
    for name in FRAMES:
        labels = np.full((HEIGHT, WIDTH, 3), (1, 2, 3), np.uint8)
        labels[:, 5:] = (4, 5, 6)
        save_image(root / "LabeledApproved_full" / f"{name}_L.png", labels)
    with pytest.raises(ValueError, match=r"the colour \(1, 2, 3\) in row 0, column 0 is of no class; labels have the"):
        camvid_load(load, "camvid")
    (root / file).write_text(text)
    labels = camvid_load(load, "camvid")["segmentation"]
    assert np.all(labels[:, :, :5] == 0) and np.all(labels[:, :, 5:] == 3)


def missing_label(root):
    (root / "LabeledApproved_full" / f"{FRAMES[0]}_L.png").unlink()


def other_size(root):
    save_image(root / "LabeledApproved_full" / f"{FRAMES[0]}_L.png", np.zeros((HEIGHT, WIDTH - 1, 3), np.uint8))


def unknown_colour(root):
    path = root / "LabeledApproved_full" / f"{FRAMES[0]}_L.png"
    labels = np.asarray(Image.open(path)).copy()
    labels[3, 7] = (9, 9, 9)
    save_image(path, labels)


def strange_name(root):
    save_image(root / "701_StillsRaw_full" / "holiday.png", np.zeros((HEIGHT, WIDTH, 3), np.uint8))


def writes(file, text):
    def write(root):
        (root / file).write_bytes(text if isinstance(text, bytes) else text.encode())

    return write


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (missing_label, r"0001TP_006690_L\.png is missing; the data set is to be had from"),
        (other_size, r"_L\.png: it is 39x24 pixels, but its picture .*0001TP_006690\.png is 40x24"),
        (unknown_colour, r"_L\.png: the colour \(9, 9, 9\) in row 3, column 7 is of no class; .*label_colors\.txt"),
        (strange_name, r"holiday\.png: its name is none of CamVid's"),
        (writes("class_dict.csv", "name,r,g,b\n"), r"class_dict\.csv: it lists no classes"),
        (writes("class_dict.csv", "name,r,g,b\nSky,1,2\n"), r"class_dict\.csv, line 2: it must be a class and its col"),
        (
            writes("class_dict.csv", "a" * 200_000 + ",1,2,3\n"),
            r"class_dict\.csv, line 1: it must be a class and its col",
        ),
        (
            writes("class_dict.csv", f"Sky,{'9' * 5000},2,3\n"),
            r"class_dict\.csv, line 1: it must be a class and its col",
        ),
        (writes("class_dict.csv", b"\xff\xfe\0"), r"class_dict\.csv: it is not text in UTF-8"),
        (writes("label_colors.txt", "1 2 256 Sky\n"), r"label_colors\.txt, line 1: it must be a class and its colour"),
        (writes("label_colors.txt", "1 2 3 Ship\n"), r"label_colors\.txt, line 1: 'Ship' is none of CamVid's 32"),
        (writes("label_colors.txt", "1 2 3 Sky\n1 2 3 Car\n"), r"line 2: the class or its colour has a line already"),
    ],
)
@pytest.mark.parametrize("name", ["camvid", "camvid-32"])
def test_damaged_trees_of_camvid(load, root, name, damage, message):
    make_camvid_official(root, HEIGHT, WIDTH)
    damage(root)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        camvid_load(load, name)


def test_labels_of_segnets_tree_have_their_pictures_size(load, root):
    from support.camvid_tree import make_camvid

    make_camvid(root, HEIGHT, WIDTH)
    save_image(root / "trainannot" / "1.png", np.zeros((WIDTH, HEIGHT), np.uint8))
    with pytest.raises(ValueError, match=r"trainannot/1\.png: it is 24x40 pixels, but its picture .*1\.png is 40x24"):
        camvid_load(load, "camvid")


def test_a_corrected_label_is_no_stale_cache(load, root):
    """What was cached of the file that was there before is not taken for it."""
    make_camvid_official(root, HEIGHT, WIDTH)
    before = camvid_load(load, "camvid")["segmentation"].copy()
    assert np.array_equal(camvid_load(load, "camvid")["segmentation"], before)
    path = root / "LabeledApproved_full" / "0001TP_006690_L.png"
    save_image(path, np.full((HEIGHT, WIDTH, 3), (64, 0, 128), np.uint8))
    assert (camvid_load(load, "camvid")["segmentation"][0] == 8).all()


def test_files_that_are_no_part_of_a_data_set_make_nothing_anew(tmp_path):
    (tmp_path / "data" / "a").mkdir(parents=True)
    (tmp_path / "data" / "a" / "x.png").write_bytes(b"x")
    (tmp_path / "data" / "a" / "up").symlink_to("..")
    (tmp_path / "data" / "nowhere").symlink_to("none")
    before = files.contents(tmp_path / "data", tmp_path / "data" / "cache")
    assert len(before) == 1 and before[0].startswith("a/x.png 1 ")
    (tmp_path / "data" / ".hidden").write_bytes(b"x")
    (tmp_path / "data" / "cache").mkdir()
    (tmp_path / "data" / "cache" / "y.npy").write_bytes(b"x")
    assert files.contents(tmp_path / "data", tmp_path / "data" / "cache") == before


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_split_without_any_label_is_refused(load, root, split):
    """Nothing could be learned or measured: the metrics would be NaN."""
    make_camvid_official(root, HEIGHT, WIDTH, by_split=True)
    for path in (root / f"{split}_labels").iterdir():
        save_image(path, np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    with pytest.raises(ValueError, match=f"of the split '{split}' no pixel has a label of segmentation; are these the"):
        camvid_load(load, "camvid-32", split)


def test_a_list_of_segnets_that_is_no_text(load, root):
    from support.camvid_tree import make_camvid

    make_camvid(root, HEIGHT, WIDTH)
    (root / "train.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"train\.txt: it is not text in UTF-8; unpack or download the data set again"):
        camvid_load(load, "camvid")


@pytest.mark.parametrize("folder", ["", "cifar-10-batches-bin"])
def test_cifar10(load, root, folder):
    make_cifar(root / folder)
    train, val, test = (load("cifar10", split) for split in ("train", "val", "test"))
    assert train["classification"].tolist() == [0, 1, 2, 3] * 4 + [0, 1] and train["classification"].dtype == np.uint16
    assert val["classification"].tolist() == [2, 3] and test["classification"].tolist() == [0, 1, 2, 3]
    image = train["image"][3]
    assert np.all(image[..., 0] == 60) and np.all(image[:, 16:, 1] == 200) and not image[:, :16, 1:].any()
    assert load("cifar10", size=(16, 64))["image"].shape == (18, 16, 64, 3)
    assert len(find("cifar10").class_names) == 10


def test_cifar100_takes_the_finer_class(load, root):
    root.mkdir()
    record = bytes([7, 42]) + bytes(3072)
    for file in ("train.bin", "test.bin"):
        (root / file).write_bytes(10 * record)
    with pytest.raises(FileNotFoundError, match=r"cifar100: .*fine_label_names\.txt is missing"):
        load("cifar100")
    (root / "fine_label_names.txt").write_text("\n".join(f"thing{n}" for n in range(100)))
    assert load("cifar100")["classification"].tolist() == [42] * 9
    assert find("cifar100").at(str(root)).class_names[42] == "thing42"
    (root / "fine_label_names.txt").write_text("a\na\n")
    with pytest.raises(ValueError, match=r"fine_label_names\.txt: it must name 100 classes, one a line, not 1"):
        load("cifar100")


@pytest.mark.parametrize("content", [b"", bytes(3073 + 5), bytes(100)])
def test_a_batch_that_is_cut_off(load, root, content):
    make_cifar(root)
    (root / "data_batch_4.bin").write_bytes(content)
    with pytest.raises(ValueError, match=r"data_batch_4\.bin: it must have records of 3073 bytes each, .* cut off"):
        load("cifar10")


def test_other_damage_of_batches(load, root):
    make_cifar(root)
    (root / "data_batch_2.bin").write_bytes(bytes([10]) + bytes(3072))
    with pytest.raises(ValueError, match=r"the class of data_batch_2\.bin:0 must be below 10, not 10"):
        load("cifar10")
    (root / "data_batch_5.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"cifar10: .*data_batch_5\.bin is missing; the data set is to be had"):
        load("cifar10")


def test_a_folder_for_each_class(load, root):
    make_image_folder(root)
    (root / "train" / ".hidden").mkdir()
    train = load("imagefolder", size=(16, 16))
    assert find("imagefolder").at(str(root)).class_names == ("cat", "dog", "newt")
    assert sorted(train["classification"].tolist()) == [0] * 4 + [1] * 4 + [2] * 4
    for image, label in zip(train["image"], train["classification"], strict=True):
        assert image[0, 0, 0] // 60 == label
    assert sorted(load("imagefolder", count=3)["classification"].tolist()) == [0, 1, 2]  # a part has all classes
    assert sorted(load("imagefolder", "val")["classification"].tolist()) == [0, 0, 1, 1, 2, 2]
    with pytest.raises(FileNotFoundError, match="imagefolder: .*/test is missing"):
        load("imagefolder", "test")


def test_a_picture_is_turned_upright_and_its_middle_taken(load, root):
    make_image_folder(root)
    half = np.zeros((20, 60, 3), np.uint8)
    half[:, 20:40] = 255
    data = Image.Exif()
    data[0x112] = 6
    Image.fromarray(half).save(root / "train/cat/0.png", exif=data)
    with pytest.warns(PictureWarning, match="turned upright"):
        train = load("imagefolder", size=(10, 10))
    assert sorted(image.mean() for image in train["image"])[-1] > 230  # the middle third


def test_a_new_class_is_no_stale_cache(load, root):
    make_image_folder(root, ("cat", "newt"))
    before = load("imagefolder", "val")["classification"].tolist()
    save_image(root / "train" / "dog" / "0.png", np.zeros((20, 24, 3), np.uint8))
    assert before == [0, 1, 0, 1] and load("imagefolder", "val")["classification"].tolist() == [0, 2, 0, 2]


def no_classes(root):
    for name in ("dog", "newt"):
        (root / "train" / name).rename(root / name)


def empty_class(root):
    (root / "train" / "eel").mkdir()


def unknown_class(root):
    save_image(root / "val" / "eel" / "0.png", np.zeros((20, 24, 3), np.uint8))


def damaged(root):
    (root / "train" / "dog" / "0.png").write_bytes(b"no picture")


def strange_folder(root):
    (root / "train" / "dog").rename(root / "train" / "d\x1b[31mog")


def no_train(root):
    (root / "train").rename(root / "training")


@pytest.mark.parametrize(
    ("damage", "split", "message"),
    [
        (
            strange_folder,
            "train",
            r"train: the folder 'd\\x1b\[31mog' must be renamed: a class is called like its folder",
        ),
        (no_classes, "train", r"train: it must have a folder for each class, at least two, but has only 'cat'"),
        (empty_class, "train", r"train/eel: no pictures in this folder; .*; add pictures, or remove the folder"),
        (unknown_class, "val", r"val/eel: it is no class, for .*train has no folder of this name"),
        (damaged, "train", r"train/dog/0\.png: not a readable image"),
        (no_train, "train", r"imagefolder: .*/train is missing; the data set is to be had from"),
    ],
)
def test_damaged_folders(load, root, damage, split, message):
    make_image_folder(root)
    damage(root)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        load("imagefolder", split)


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("camvid-32", r"701_StillsRaw_full \(or train and train_labels\)"),
        ("cifar10", r"data_batch_1\.bin"),
        ("cifar100", r"fine_label_names\.txt"),
        ("imagefolder", "train"),
    ],
)
def test_an_absent_data_set(tmp_path, name, missing):
    data = find(name)
    with pytest.raises(
        FileNotFoundError, match=f"{name}: {tmp_path}/none/{missing} is missing; the data set is"
    ) as error:
        data.at(str(tmp_path / "none")).load(str(tmp_path / "none"), tmp_path, "train", 1, (8, 8), data.kinds)
    assert_tells_tree(str(error.value), data)


def test_labels_may_be_palette_pictures(load, root):
    make_camvid_official(root, HEIGHT, WIDTH)
    expected = camvid_load(load, "camvid-32")["segmentation"].copy()
    for path in (root / "LabeledApproved_full").iterdir():
        with Image.open(path) as image:
            image.quantize(8, dither=Image.Dither.NONE).save(path)
    (root / "701_StillsRaw_full").rename(root / "images")
    found = find("camvid-32").load(str(root), root, "train", 9, (HEIGHT, WIDTH), ["segmentation"])["segmentation"]
    np.testing.assert_array_equal(found, expected)
    with Image.open(root / "LabeledApproved_full" / f"{FRAMES[0]}_L.png") as image:
        assert image.mode == "P"


@pytest.mark.parametrize("name", ["cifar10", "imagefolder"])
def test_other_labels_are_refused(load, root, name):
    make_cifar(root)
    make_image_folder(root)
    with pytest.raises(ValueError, match=rf"tasks of {name} must be among \['classification'\], not \['depth'\]"):
        load(name, labels=["depth"])
    with pytest.raises(FileNotFoundError, match=f"--data {name} needs --data-root: the data set is"):
        find(name).load("", root, "train", 1, (8, 8), ["classification"])
