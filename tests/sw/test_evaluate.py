"""``edgemoe evaluate``: right figures on folders of one's own, going on where it was broken off, float beside it."""

import json
import re

import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

import edgemoe as library
from edgemoe.bundle import Bundle
from edgemoe.compiler import build_bundle
from edgemoe.jobs import evaluation, evaluation_state
from edgemoe.jobs.evaluation_state import EvaluationState
from edgemoe_hw.spec.config import PRESETS
from edgemoe_models import float_reference
from edgemoe_models.config import TaskConfig
from edgemoe_models.integer.postprocess import arrange, postprocess
from edgemoe_models.ptq.quantize import quantize
from edgemoe_models.random_weights import random_images, random_state
from support.random_graphs import small_model

NAMES = ("tabby cat, tabby", "dog", "crane", "crane", "fox", "owl", "bee", "ant", "elk", "cow", "pig")
TASKS = (
    TaskConfig("animal", "classification", channels=11, labels=NAMES),
    TaskConfig("ground", "segmentation", channels=3, cells=2, labels=("land", "water", "sky")),
)
MODEL = small_model("animals", tasks=TASKS)
SIZE = (MODEL.image_width, MODEL.image_height)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A float checkpoint and its bundle."""
    folder = tmp_path_factory.mktemp("animals")
    state = random_state(MODEL, 0)
    safetensors.numpy.save_file(state, folder / "animals.safetensors", {"config": MODEL.to_json()})
    build_bundle(quantize(state, MODEL, random_images(MODEL, 8)), PRESETS["tiny"]).save(folder / "animals.emoe")
    return folder / "animals.safetensors", folder / "animals.emoe"


@pytest.fixture(scope="module")
def animals(trained):
    return trained[1]


def noise(path, seed, size=SIZE):
    """A picture of blocks of colour, which the model tells apart better than noise."""
    blocks = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(blocks).resize(size, Image.Resampling.NEAREST).save(path)
    return path


@pytest.fixture
def tree(tmp_path):
    """Nine pictures of three classes: by a part of a name, in other letters; by a number; by a name."""
    for number in range(9):
        noise(tmp_path / "val" / ("Tabby_Cat", "3", "dog")[number % 3] / "deep" / f"{number}.png", number)
    (tmp_path / "val" / ".hidden").mkdir()
    (tmp_path / "val" / "owl").mkdir()
    (tmp_path / "val" / "notes.txt").touch()
    return tmp_path / "val"


LABELS = {"Tabby_Cat": 0, "3": 3, "dog": 1}


def predicted(bundle, path, k=5):
    with library.open("reference", Bundle.load(bundle)) as accelerator:
        return [best.label for best in accelerator.run(path, "animal").topk(k)]


def test_a_folder_of_folders(edgemoe, animals, tree, tmp_path):
    text = edgemoe.ok("evaluate", animals, tree, "--json", tmp_path / "x.json")
    truth = {path: LABELS[path.relative_to(tree).parts[0]] for path in sorted(tree.rglob("*.png"))}
    best = {path: predicted(animals, path) for path in truth}
    top1 = sum(found[0] == truth[path] for path, found in best.items()) / 9
    top5 = sum(truth[path] in found for path, found in best.items()) / 9
    assert 0 < top5 < 1
    report = json.loads((tmp_path / "x.json").read_text())
    assert report["metrics"] == {"integer": {"top1": pytest.approx(top1), "top5": pytest.approx(top5)}}
    assert f"int8  top-1 {top1:.2%}, top-5 {top5:.2%}" in text and "animals, animal: 9 pictures on reference" in text
    assert [(entry["number"], entry["name"], entry["count"]) for entry in report["classes"]] == [
        (0, "tabby cat, tabby", 3),
        (1, "dog", 3),
        (3, "crane", 3),
    ]
    for entry in report["classes"]:
        own = [found[0] == entry["number"] for path, found in best.items() if truth[path] == entry["number"]]
        assert entry["integer"] == pytest.approx(np.mean(own))
    assert sum(entry["count"] for entry in report["confusions"]) == sum(
        found[0] != truth[path] for path, found in best.items()
    )
    pair = report["confusions"][0]
    assert pair["label"] != pair["predicted"] and pair["predicted_name"] == NAMES[pair["predicted"]]
    assert (report["images"], report["skipped"], report["device"]) == (9, [], "reference")
    assert max(map(len, text.splitlines())) <= 80


def test_a_list_of_labels(edgemoe, animals, tmp_path):
    paths = [noise(tmp_path / "in" / f"{number}, a.png", number) for number in range(4)]
    labels = [predicted(animals, path, 1)[0] for path in paths]
    wrong = (labels[3] + 1) % 11
    rows = [f'"{path.name}",{number}' for path, number in zip(paths, [*labels[:3], wrong], strict=True)]
    (tmp_path / "labels.csv").write_text("\ufefffile,label\r\n" + "\r\n".join(rows) + "\r\n\r\n", encoding="utf-8")
    text = edgemoe.ok("evaluate", animals, tmp_path / "in", "--labels", tmp_path / "labels.csv", "--task", "animal",
                      "--json", tmp_path / "x.json")  # fmt: skip
    assert "top-1 75.00%" in text
    assert json.loads((tmp_path / "x.json").read_text())["confusions"] == [
        {
            "label": wrong,
            "label_name": NAMES[wrong],
            "predicted": labels[3],
            "predicted_name": NAMES[labels[3]],
            "count": 1,
        }
    ]


def test_float_beside_integers(edgemoe, trained, tree, tmp_path):
    checkpoint, bundle = trained
    text = edgemoe.ok("evaluate", bundle, tree, "--float", checkpoint, "--json", tmp_path / "x.json")
    state, same, right = random_state(MODEL, 0), 0, 0
    for path in tree.rglob("*.png"):
        pixels = np.asarray(Image.open(path))[None]
        logits = arrange(MODEL, "animal", np.asarray(float_reference.forward(state, MODEL, pixels, "animal"))[0])
        right += int(logits.argmax()) == LABELS[path.relative_to(tree).parts[0]]
        same += int(logits.argmax()) == predicted(bundle, path)[0]
    report = json.loads((tmp_path / "x.json").read_text())
    assert report["metrics"]["float"]["top1"] == pytest.approx(right / 9)
    assert report["agreement"] == pytest.approx(same / 9) and same > 4
    assert f"float top-1 {right / 9:.2%}" in text and f"the same class in {same / 9:.2%} of the pictures" in text


def test_masks(edgemoe, trained, tmp_path):
    """Metrics of pixels; void does not count; a mask of the picture's size gets the model's as the picture does."""
    checkpoint, bundle = trained
    truth = np.random.default_rng(0).integers(0, 3, (2, 12, 16)).astype(np.uint8)
    truth[0, :3] = 255
    for number in range(2):
        noise(tmp_path / "in" / "a" / f"{number}.png", number, (32, 24))
        (tmp_path / "in" / "masks" / "a").mkdir(parents=True, exist_ok=True)
        large = truth[number].repeat(2, 0).repeat(2, 1)
        Image.fromarray(large).save(tmp_path / "in" / "masks" / "a" / f"{number}.png")
    for resize in ("squeeze", "crop"):
        text = edgemoe.ok("evaluate", bundle, tmp_path / "in", "--masks", tmp_path / "in" / "masks", "--resize", resize,
                          "--float", checkpoint, "--json", tmp_path / "x.json")  # fmt: skip
    report = json.loads((tmp_path / "x.json").read_text())
    confusion, floats, same = np.zeros((3, 3), int), np.zeros((3, 3), int), 0
    with library.open("reference", Bundle.load(bundle), resize="crop") as accelerator:
        for number in range(2):
            path, labelled = tmp_path / "in" / "a" / f"{number}.png", truth[number] != 255
            labels = accelerator.run(path, "ground").labels
            pixels = np.asarray(Image.open(path).resize(SIZE, Image.Resampling.BILINEAR))[None]
            rows = np.asarray(float_reference.forward(random_state(MODEL, 0), MODEL, pixels, "ground"))[0]
            other = postprocess(MODEL, "ground", arrange(MODEL, "ground", rows))
            np.add.at(confusion, (truth[number][labelled], labels[labelled]), 1)
            np.add.at(floats, (truth[number][labelled], other[labelled]), 1)
            same += (labels == other)[labelled].sum()
    for kind, matrix in (("integer", confusion), ("float", floats)):
        iou = np.diag(matrix) / (matrix.sum(0) + matrix.sum(1) - np.diag(matrix))
        metrics = report["metrics"][kind]
        assert metrics["pixel_accuracy"] == pytest.approx(np.trace(matrix) / matrix.sum())
        assert metrics["miou"] == pytest.approx(np.nanmean(iou))
        assert [entry[kind] for entry in report["classes"]] == pytest.approx(list(iou))
    assert matrix.sum() == 2 * 12 * 16 - 3 * 16
    assert report["agreement"] == pytest.approx(same / matrix.sum())
    assert "mIoU" in text and "water" in text and "of the pixels" in text


def interrupted_after(monkeypatch, count):
    """Ctrl-C when so many pictures are done; returns the names of all that were kept."""
    seen, add = [], EvaluationState.add

    def kept(self, name, record):
        if len(seen) == count:
            raise KeyboardInterrupt
        seen.append(name)
        add(self, name, record)

    monkeypatch.setattr(EvaluationState, "add", kept)
    return seen


@pytest.mark.parametrize("device", ["reference", "sim"])
def test_goes_on_after_an_interruption(edgemoe, animals, tree, tmp_path, monkeypatch, device):
    arguments = ("evaluate", animals, tree, "--count", 4, "--device", device)
    whole = edgemoe.ok(*arguments, "--state", tmp_path / "whole", "--json", tmp_path / "whole.json")
    with monkeypatch.context() as patch:
        first = interrupted_after(patch, 2)
        done = edgemoe(*arguments, "--json", tmp_path / "x.json")
    assert done.code == 130 and done.out == "" and not (tmp_path / "x.json").exists()
    assert "note: 2 of 4 pictures are measured" in done.err and "the next call goes on" in done.err
    with monkeypatch.context() as patch:
        rest = interrupted_after(patch, 99)
        done = edgemoe(*arguments, "--json", tmp_path / "x.json")
    assert done.code == 0 and "2 of 4 pictures were measured before" in done.err
    assert len(first) == len(rest) == 2 and not set(first) & set(rest)
    assert done.out == whole and (tmp_path / "x.json").read_text() == (tmp_path / "whole.json").read_text()
    monkeypatch.setattr(evaluation, "open_device", lambda *_, **__: pytest.fail("all is known"))
    assert edgemoe.ok(*arguments, "--json", tmp_path / "x.json") == whole


def test_a_changed_picture_is_measured_again(edgemoe, animals, tree, tmp_path, monkeypatch):
    arguments = ("evaluate", animals, tree, "--state", tmp_path / "s")
    edgemoe.ok(*arguments)
    noise(tree / "dog" / "deep" / "2.png", 77)
    seen = interrupted_after(monkeypatch, 99)
    edgemoe.ok(*arguments)
    assert seen == ["dog/deep/2.png"]


def test_it_is_written_now_and_then(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(evaluation_state.time, "monotonic", lambda: clock[0])
    state = EvaluationState(tmp_path / "s", {"task": "x"})
    state.add("a", {"stamp": [1, 2], "integer": [3]})
    assert not (tmp_path / "s").exists()
    clock[0] = 6.0
    state.add("b", {"stamp": [1], "integer": [4]})
    again = EvaluationState(tmp_path / "s", {"task": "x"})
    assert again.get("a", [1, 2]) == {"stamp": [1, 2], "integer": [3]} and again.get("a", [1]) is None
    assert again.get("c", []) is None
    before = (tmp_path / "s").read_bytes()
    again.flush()
    assert (tmp_path / "s").read_bytes() == before


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
    noise(tree / "dog" / "large.png", 1, (40, 40))
    edgemoe("evaluate", animals, tree).refused("large.png: it is 40x40 pixels, but the model takes 16x12", "--resize")
    assert "10 pictures" in edgemoe.ok("evaluate", animals, tree, "--resize", "crop")


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
        noise(tmp_path / "order" / f"n{number:02}" / "x.png", number)
        noise(tmp_path / "numbers" / str(number) / "x.png", number)
    for given in ([bundle, tmp_path / "order"], [bundle, tmp_path / "numbers"],
                  [animals, tmp_path / "order", "--by-order"]):  # fmt: skip
        edgemoe.ok("evaluate", *given, "--json", tmp_path / "x.json")
        with library.open("reference", Bundle.load(given[0])) as accelerator:
            task = next(name for name in ("scene", "animal") if name in accelerator.tasks)
            paths = [tmp_path / "order" / f"n{number:02}" / "x.png" for number in range(11)]
            right = [accelerator.run(path, task).label == number for number, path in enumerate(paths)]
        assert json.loads((tmp_path / "x.json").read_text())["metrics"]["integer"]["top1"] == np.mean(right)


def test_what_is_wrong_with_a_list(edgemoe, animals, tmp_path):
    noise(tmp_path / "in" / "a.png", 1)
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
    noise(tmp_path / "in" / "a.png", 1)
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


def test_results_have_their_own_place(edgemoe, animals, tree, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("edgemoe.cli.evaluate.RESULTS", tmp_path / "results")
    edgemoe.ok("evaluate", animals, tree, "--count", 1)
    (state,) = (tmp_path / "results").rglob("*.state")
    assert re.fullmatch(r"animals-animal\.[0-9a-f]{8}\.state", state.name)
