"""The pages of m3vit-tiny-camvid are what its figures give, and the worst pictures are the worst."""

import re

import numpy as np
import photos_card
import photos_pages
import pytest
from photo_failures import confusion, worst
from qat_photos import score

from edgemoe_models.datasets.arrays import IGNORE
from edgemoe_models.storage.json_text import read_json


def test_pages_are_up_to_date():
    assert photos_card.page_problems() == [], "run: python tools/photos_card.py"


def test_figures_are_of_the_run():
    figures = read_json(photos_card.FIGURES)
    chosen = figures["training"]["chosen"]["photos"]
    steps = figures["training"]["steps"]
    assert chosen["val_miou"] == max(step["miou"] for name, step in steps.items() if name != "scenes")
    assert "/dev/shm" not in photos_card.FIGURES.read_text(encoding="utf-8")
    assert figures["test"]["segmentation"]["miou"] >= 0.4


def test_quantization_loses_what_it_may():
    """On all test pictures: PTQ at most one point of mIoU, QAT half a point; RTL and Brevitas are the reference."""
    rows = read_json(photos_card.FIGURES)["accuracy"]
    for precision, most in (("PTQ W8A8", 1), ("PTQ W4A8 experts", 1), ("QAT W8A8", 0.5), ("QAT W4A8 experts", 0.5)):
        found = {row["executor"]: row for row in rows if row["precision"] == precision}
        assert found["integer reference"]["images"] == 233
        assert found["integer reference"]["drop"]["segmentation"] <= most
        executors = ["RTL (Verilated)"] + ["Brevitas"] * precision.startswith("QAT")
        assert all(found[name]["equal"] for name in executors)


def test_validation_chose_the_quantized_variants():
    found = read_json(photos_card.FIGURES)["qat"]
    for graph, name in found["chosen"].items():
        bits = {"m3vit-tiny-camvid-w8a8": 8, "m3vit-tiny-camvid-w4a8": 4}[graph]
        same = {n: score(v["metrics"]) for n, v in found["variants"].items() if v["options"]["expert_bits"] == bits}
        assert len(same) > 1 and max(same, key=lambda one: same[one]) == name


def test_a_measurement_is_collected():
    run = {"task": "edges", "image": "x", "cycles": 1}
    content = dict.fromkeys(photos_card.CYCLES, 1) | {"per_inference": [run], "layers": ["long"]}
    figures: dict = {}
    for config in ("a", "b"):
        photos_card.collect(figures, "cycles", content | {"config": config})
    assert list(figures["cycles"]) == ["a", "b"]
    assert figures["cycles"]["a"]["per_inference"] == [run] and "layers" not in figures["cycles"]["a"]
    with pytest.raises(ValueError, match="--collect must be one of training, .*, not 'x'"):
        photos_card.collect(figures, "x", {})


def test_the_headline_is_what_was_measured():
    """README and benchmarks quote cycles of trained gates; each is one of the record's."""
    cycles = read_json(photos_card.FIGURES)["cycles"]
    measured = {run["cycles"] for report in cycles.values() for run in report["per_inference"]}
    assert all(report["bit_exact"] for report in cycles.values())
    for page in (photos_card.DOCS.parent / "README.md", photos_card.DOCS / "benchmarks.md"):
        text = " ".join(page.read_text(encoding="utf-8").split())
        quoted = re.search(r"<!-- trained gates -->(.*?)<!-- end of trained gates -->", text)
        assert quoted, page
        numbers = {int(number.replace(",", "")) for number in re.findall(r"\d{1,3}(?:,\d{3})+", quoted[1])}
        assert numbers & measured and numbers <= measured | {photos_pages.random_weights(name) for name in cycles}, page


def test_confusion():
    label = np.array([[0, 1, IGNORE], [2, 2, 1]])
    found = confusion(np.array([[0, 2, 1], [2, 0, 1]]), label, 3)
    assert found.tolist() == [[1, 0, 0], [0, 1, 1], [1, 0, 1]]


def test_the_worst():
    """Picture b has no sky at all, and too little of the road to be judged by it."""
    counts = np.zeros((3, 3, 3), int)
    counts[0] = [[500, 0, 0], [0, 300, 200], [0, 0, 0]]
    counts[1] = [[0, 0, 0], [0, 996, 0], [0, 0, 4]]
    counts[2] = [[10, 0, 490], [0, 500, 0], [0, 0, 0]]
    found = worst(counts, ["a", "b", "c"], ("sky", "tree", "road"), most=1)
    sky, tree, road = (found["classes"][name] for name in ("sky", "tree", "road"))
    assert (sky["judged"], tree["judged"], road["judged"]) == (2, 3, 0) and road["worst"] == []
    assert sky["worst"] == [{"file": "c", "share": 0.5, "iou": 0.02, "seen_as": "road"}]
    assert sky["mistaken_for"] == [["road", 0.49]] and sky["iou"] == pytest.approx(0.51)
    assert tree["worst"][0]["file"] == "a" and tree["worst"][0]["iou"] == 0.6
    assert [one["file"] for one in found["pictures"]] == ["c", "a"] and found["best"][0]["file"] == "b"
