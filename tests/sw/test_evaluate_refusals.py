"""What ``edgemoe evaluate`` cannot use: folders, lists, masks, float models, results of another evaluation."""

import json

import numpy as np
import safetensors.numpy
from PIL import Image

import edgemoe as library
from edgemoe.bundle import Bundle
from edgemoe_models.config import TaskConfig
from edgemoe_models.pictures.fitting import middle
from edgemoe_models.random_weights import random_state
from support.animal_pictures import TASKS, blocks
from support.random_graphs import small_model


def test_another_evaluations_results(edgemoe, animals, tree, tmp_path):
    state = tmp_path / "s"
    edgemoe.ok("evaluate", animals, tree, "--state", state)
    edgemoe("evaluate", animals, tree, "--state", state, "--resize", "crop").refused(
        f"{state} has results of another resize ('none', not 'crop'); remove it, or give another --state"
    )
    stored = json.loads(state.read_text())
    for change, message in (
        (lambda: stored["records"]["3/deep/1.png"].update(integer=[11]), "its records do not fit the task animal"),
        (lambda: stored["records"]["3/deep/1.png"].update(integer=[]), "its records do not fit the task animal"),
        (lambda: stored["records"]["3/deep/1.png"].update(integer=["x"]), "integer must be an integer in 0.."),
        (lambda: stored["records"].update({"3/deep/1.png": 3}), "the record of '3/deep/1.png' must be an object"),
        (lambda: stored.pop("records"), "it lacks records"),
        (lambda: state.write_text("no JSON"), "no results of an evaluation"),
    ):
        change()
        if "JSON" not in state.read_text():
            state.write_text(json.dumps(stored))
        edgemoe("evaluate", animals, tree, "--state", state).refused(str(state), message)
    edgemoe("evaluate", animals, tree, "--state", animals).refused("is read and would be replaced")
    edgemoe("evaluate", animals, tree, "--state", tmp_path).refused("is a folder")


def test_pictures_that_cannot_be_read(edgemoe, animals, tree, tmp_path):
    """They are skipped, named and not counted; all others are."""
    for number in range(7):
        (tree / "dog" / f"bad{number}.png").write_text("no picture")
    done = edgemoe("evaluate", animals, tree, "--json", tmp_path / "x.json")
    done.failed("7 of 16 pictures could not be read and do not count")
    report = json.loads((tmp_path / "x.json").read_text())
    assert report["images"] == 9 and report["skipped"] == [f"dog/bad{number}.png" for number in range(7)]
    assert done.err.count("skipped: ") == 5 and "9 pictures on reference" in done.out
    for path in tree.rglob("*.png"):
        path.write_text("no picture")
    edgemoe("evaluate", animals, tree).refused("not a readable image")


def test_another_size(edgemoe, animals, tree):
    blocks(tree / "dog" / "large.png", 1, (40, 40))
    edgemoe("evaluate", animals, tree).refused("large.png: it is 40x40 pixels, but the model takes 16x12", "--resize")
    assert "10 pictures" in edgemoe.ok("evaluate", animals, tree, "--resize", "crop")


def test_a_smaller_window(edgemoe, animals, tree, tmp_path):
    """As ImageNet's: the shorter side to 32 / 28 of the model's, and the middle of it."""
    pixels = np.random.default_rng(0).integers(0, 256, (24, 50, 3), np.uint8)
    part = middle(pixels, (12, 16), 0.5)
    np.testing.assert_array_equal(part, pixels[6:18, 17:33])
    np.testing.assert_array_equal(middle(pixels, (12, 16), 1), pixels[:, 9:41])
    assert middle(pixels[:1, :1], (12, 16), 0.1).shape == (1, 1, 3)
    labels = tmp_path / "labels.csv"
    Image.fromarray(pixels).save(tmp_path / "x.png")
    with library.open("reference", Bundle.load(animals)) as accelerator:
        labels.write_text(f"x.png,{accelerator.run(part, 'animal').label}")
    arguments = ("evaluate", animals, tmp_path, "--labels", labels, "--resize", "crop", "--crop-share")
    assert "top-1 100.00%" in edgemoe.ok(*arguments, 0.5)
    edgemoe(*arguments, 0).refused("crop_share must be above 0 and at most 1, not 0.0")
    edgemoe("evaluate", animals, tree, "--crop-share", 0.5).refused("a share of what resize='crop' takes")
    edgemoe("evaluate", animals, tree, "--masks", tree, "--resize", "crop", "--crop-share", 0.5).refused(
        "whole pictures"
    )


def test_what_is_wrong_with_folders(edgemoe, animals, bundle, tree, tmp_path):
    def refused(*arguments, parts):
        edgemoe("evaluate", *arguments).refused(*parts)

    refused(animals, tmp_path / "none", parts=["none: there is no such folder of pictures"])
    refused(
        animals, tree / "dog" / "deep", parts=["deep: it has no folders, one for each class", "--labels", "--masks"]
    )
    refused(animals, tree / "notes.txt", parts=["notes.txt: a file, no folder of pictures"])
    (tree / "n01440764").mkdir()
    (tree / "n01443537").mkdir()
    refused(animals, tree, parts=["n01440764: 'n01440764' is no class of the model, which has 11 classes (tabby cat, t",
                                  "so are 1 other folders", "--by-order"])  # fmt: skip
    refused(animals, tree, "--by-order", parts=["in sorted order its 6 folders would be the classes", "11 classes"])
    (tree / "n01440764").rmdir()
    (tree / "n01443537").rename(tree / "crane")
    refused(animals, tree, parts=["crane: 'crane' is the name of the classes 2, 3; give the number instead"])
    (tree / "crane").rename(tree / "0")
    refused(animals, tree, parts=["Tabby_Cat: its class 0 has the folder '0' already"])
    refused(bundle, tree, parts=["its 5 folders would be the classes, but the model has 11 classes (without names)"])
    for name in range(3):
        (tmp_path / "empty" / str(name)).mkdir(parents=True)
    refused(bundle, tmp_path / "empty", parts=["empty: there are no pictures in its folders"])
    refused(
        animals, tree, "--task", "ground", parts=["ground is of the kind segmentation, which takes masks (--masks)"]
    )
    refused(animals, tree, "--task", "x", parts=["this bundle has no task 'x'"])
    refused(animals, tree, "--labels", "x", "--masks", "y", parts=["--labels and --masks exclude each other"])
    refused(animals, tree, "--device", "moon", parts=["device must be", "not 'moon'"])
    refused("m3vit-micro-w8a8-pynq-z2", tree, parts=["the bundle has no classification", "--masks FOLDER"])


def test_sorted_order(edgemoe, bundle, animals, tmp_path):
    """Of classes without names; numbers are numbers even then."""
    for number in range(11):
        blocks(tmp_path / "order" / f"n{number:02}" / "x.png", number)
        blocks(tmp_path / "numbers" / str(number) / "x.png", number)
    for given in ([bundle, tmp_path / "order"], [bundle, tmp_path / "numbers"],
                  [animals, tmp_path / "order", "--by-order"]):  # fmt: skip
        edgemoe.ok("evaluate", *given, "--json", tmp_path / "x.json")
        with library.open("reference", Bundle.load(given[0])) as accelerator:
            task = next(name for name in ("scene", "animal") if name in accelerator.tasks)
            paths = [tmp_path / "order" / f"n{number:02}" / "x.png" for number in range(11)]
            right = [accelerator.run(path, task).label == number for number, path in enumerate(paths)]
        assert json.loads((tmp_path / "x.json").read_text())["metrics"]["integer"]["top1"] == np.mean(right)


def test_what_is_wrong_with_a_list(edgemoe, animals, tmp_path):
    blocks(tmp_path / "in" / "a.png", 1)
    path = tmp_path / "labels.csv"
    for content, message in (
        (b"a.png,dog\nb.png,dog", "line 2: there is no file 'b.png' in "),
        (b"a.png,wolf", "line 1: 'wolf' is no class of the model, which has 11 classes (tabby cat, tabby, dog"),
        (b"a.png,11", "line 1: '11' is no class"),
        (b"a.png,crane", "line 1: 'crane' is the name of the classes 2, 3; give the number"),
        (b"a.png;dog", "line 1: it must be file,label with one comma"),
        (b"a.png,dog\n./a.png,dog", "line 2: './a.png' has a line already"),
        (b"file,label\n", "it lists no pictures; a line is file,label"),
        (b"\xff\xfea.png,dog", "it is not text in UTF-8"),
        (b'"' + b"x" * 200_000 + b'",dog', "line 1: field larger than field limit"),
        (b"a\0.png,dog", "line 1: "),
    ):
        path.write_bytes(content)
        edgemoe("evaluate", animals, tmp_path / "in", "--labels", path).refused(f"{path}", message)
    edgemoe("evaluate", animals, tmp_path / "in", "--labels", tmp_path / "none").refused("none: No such file")


def test_what_is_wrong_with_masks(edgemoe, animals, tmp_path):
    blocks(tmp_path / "in" / "a.png", 1)
    arguments = ("evaluate", animals, tmp_path / "in", "--masks", tmp_path / "masks")
    edgemoe(*arguments).refused("masks: there is no such folder of masks")
    (tmp_path / "masks").mkdir()
    edgemoe(*arguments).refused("a.png: its mask ", "masks/a.png is missing")
    for pixels, message in (
        (np.zeros((12, 16, 3), np.uint8), "a mask has one channel, the number of each pixel's class"),
        (np.full((12, 16), 3, np.uint8), "it has the class 3, and ground has 0 to 2 (255: no label; --void)"),
        (np.zeros((12, 20), np.uint8), "it is 20x12 pixels, but the model takes 16x12"),
    ):
        Image.fromarray(pixels).save(tmp_path / "masks" / "a.png")
        edgemoe(*arguments).refused("masks/a.png: ", message)
    Image.fromarray(np.full((12, 16), 255, np.uint8)).save(tmp_path / "masks" / "a.png")
    assert "nothing is labelled" in edgemoe.ok(*arguments)
    Image.fromarray(np.full((12, 16), 2, np.uint8)).save(tmp_path / "masks" / "a.png")
    assert "nothing is labelled" in edgemoe.ok(*arguments, "--void", 2) != edgemoe.ok(*arguments)
    edgemoe("evaluate", animals, tmp_path / "in", "--masks", tmp_path / "in").refused("it would be its own mask")
    edgemoe("evaluate", animals, tmp_path / "in", "--masks", tmp_path / "masks", "--task", "animal").refused(
        "animal is of the kind classification, which takes labels of whole pictures, not masks"
    )


def test_another_float_model(edgemoe, animals, tree, tmp_path):
    for model in (
        small_model("other", tasks=(TaskConfig("animal", "classification", channels=7),)),
        small_model("other", tasks=(TaskConfig("thing", "classification", channels=11),)),
        small_model("other", tasks=TASKS, image_width=20),
    ):
        path = tmp_path / "other.safetensors"
        safetensors.numpy.save_file(random_state(model, 0), path, {"config": model.to_json()})
        edgemoe("evaluate", animals, tree, "--float", path).refused(f"{path}: it is another model than the bundle's")
    edgemoe("evaluate", animals, tree, "--float", animals).refused("is a compiled bundle, not a model")
