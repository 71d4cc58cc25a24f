"""``edgemoe evaluate``: right figures on folders of one's own, going on where it was broken off, float beside it."""

import json
import re

import numpy as np
import pytest
from PIL import Image

import edgemoe as library
from edgemoe.bundle import Bundle
from edgemoe.jobs import evaluation, evaluation_state
from edgemoe.jobs.evaluation_state import EvaluationState
from edgemoe.runtime.reference import ReferenceExecutor
from edgemoe_hw.spec.config import PRESETS
from edgemoe_models import float_reference
from edgemoe_models.integer.postprocess import arrange, postprocess
from edgemoe_models.random_weights import random_state
from edgemoe_models.storage.atomic import SaveError
from support.animal_pictures import LABELS, MODEL, NAMES, SIZE, blocks

from .conftest import needs_pynq, overlay


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
    paths = [blocks(tmp_path / "in" / f"{number}, a.png", number) for number in range(4)]
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
        blocks(tmp_path / "in" / "a" / f"{number}.png", number, (32, 24))
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


@needs_pynq
def test_on_a_board(edgemoe, animals, tree, device):
    """PYNQ, whose accelerator is simulated."""
    arguments = ("evaluate", animals, tree, "--count", 2)
    board = edgemoe.ok(*arguments, "--device", "pynq", "--bitstream", overlay(PRESETS["tiny"]))
    assert board == edgemoe.ok(*arguments).replace("on reference", "on pynq")


def test_a_device_that_fails(edgemoe, animals, tree, tmp_path, monkeypatch):
    """What was measured before is kept."""
    calls, execute = [], ReferenceExecutor.execute

    def failing(self, *arguments, **options):
        calls.append(1)
        if len(calls) == 3:
            raise library.DeviceError("the board is on fire")
        return execute(self, *arguments, **options)

    monkeypatch.setattr(ReferenceExecutor, "execute", failing)
    done = edgemoe("evaluate", animals, tree, "--json", tmp_path / "x.json")
    done.refused("the board is on fire", "2 of 9 pictures are measured")
    before = len(calls)
    assert edgemoe("evaluate", animals, tree, "--json", tmp_path / "x.json").code == 0
    assert len(calls) == before + 7


def test_results_that_cannot_be_kept(edgemoe, animals, tree, tmp_path, monkeypatch):
    def full(path, text):
        raise SaveError(f"{path} cannot be written: no space")

    monkeypatch.setattr(evaluation_state, "write_text", full)
    edgemoe("evaluate", animals, tree, "--state", tmp_path / "s").refused("s cannot be written: no space")


def test_a_changed_picture_is_measured_again(edgemoe, animals, tree, tmp_path, monkeypatch):
    arguments = ("evaluate", animals, tree, "--state", tmp_path / "s")
    edgemoe.ok(*arguments)
    blocks(tree / "dog" / "deep" / "2.png", 77)
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


def test_results_have_their_own_place(edgemoe, animals, tree, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("edgemoe.cli.evaluate.RESULTS", tmp_path / "results")
    edgemoe.ok("evaluate", animals, tree, "--count", 1)
    (state,) = (tmp_path / "results").rglob("*.state")
    assert re.fullmatch(r"animals-animal\.[0-9a-f]{8}\.state", state.name)
