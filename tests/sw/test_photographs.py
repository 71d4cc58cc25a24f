"""A model of photographs: its classes' names and colours from file to picture, its accuracy, and where its weights are.

CamVid itself is not needed: trees and weights are made here. What the repository holds is looked at where it is there.
"""

import json

import numpy as np
import pytest
from PIL import Image

import edgemoe
from edgemoe import workloads
from edgemoe.bundle import Bundle
from edgemoe.jobs.scene_run import knows_scenes
from edgemoe.runtime.images import prepare
from edgemoe.studies.accuracy import AccuracyOptions, Study, accuracy_table
from edgemoe_hw.spec.config import PRESETS as CONFIGS
from edgemoe_models.checkpoint import load_checkpoint
from edgemoe_models.config import PRESETS, TaskConfig
from edgemoe_models.datasets import camvid
from edgemoe_models.graph.file import read_graph
from edgemoe_models.random_weights import random_state
from edgemoe_models.storage.shards import shard_name, split_tensors
from edgemoe_models.storage.tensor_file import write_tensors
from support.camvid_tree import make_camvid
from support.small_models import to_train

NAME = "m3vit-tiny-camvid"
MODEL = to_train(
    TaskConfig("segmentation", "segmentation", 11, cells=4, labels=camvid.CLASSES),
    TaskConfig("edges", "edges", 1, cells=4),
    name=NAME,
)


@pytest.fixture
def weights(tmp_path):
    """A checkpoint in two parts."""
    state = random_state(MODEL, 0)
    runs = split_tensors({name: value.nbytes for name, value in state.items()}, 40_000)
    folder = tmp_path / "weights"
    folder.mkdir()
    paths = [folder / shard_name(NAME, number, len(runs)) for number in range(1, len(runs) + 1)]
    for path, names in zip(paths, runs, strict=True):
        write_tensors(path, {name: state[name] for name in names}, {"config": MODEL.to_json()})
    return paths[0]


@pytest.fixture
def tree(tmp_path):
    make_camvid(tmp_path / "camvid", 24, 48)
    return tmp_path / "camvid"


def test_a_photograph_is_drawn_with_the_names_of_the_model(edgemoe, weights, tree, tmp_path):
    """From the checkpoint through graph and bundle into what is said, the picture's colours and the page."""
    graph, bundle, photo = tmp_path / "x.graph.safetensors", tmp_path / "x.emoe", tmp_path / "holiday.jpg"
    edgemoe.ok("quantize", weights, "--images", tree / "train", "--out", graph)
    edgemoe.ok("compile", "--model", graph, "--config", "tiny", "--out", bundle)
    assert read_graph(graph).config == Bundle.load(bundle).model == MODEL
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)).save(photo)
    text = edgemoe.ok("run", bundle, photo, "--resize", "squeeze", "--out", tmp_path / "out")
    with opened(bundle) as accelerator:
        labels = accelerator.run(prepare(photo, MODEL, "squeeze"), "segmentation").labels
    numbers, counts = np.unique(labels, return_counts=True)
    best = int(numbers[counts.argmax()])
    assert f"{camvid.CLASSES[best]} {counts.max() / labels.size:.1%}" in text and "class " not in text
    picture = np.asarray(Image.open(tmp_path / "out" / "holiday-segmentation.png"))
    for number in range(11):
        assert (picture == camvid.PALETTE[number]).all(-1).sum() >= 81, camvid.CLASSES[number]


def opened(bundle):
    return edgemoe.open("reference", Bundle.load(bundle))


def test_the_page_has_them_too(weights):
    from edgemoe.demo.view import about
    from edgemoe_models.ptq.quantize import quantize_checkpoint

    images = np.random.default_rng(0).integers(0, 256, (2, 16, 32, 3), np.uint8)
    bundle = edgemoe.compile(quantize_checkpoint(weights, images), "tiny")
    with edgemoe.open("reference", bundle) as accelerator:
        first, second = about(accelerator, "camera")["tasks"]
    assert [name for name, _ in first["legend"]] == list(camvid.CLASSES) and len(second["legend"]) == 2
    assert not knows_scenes(MODEL) and knows_scenes(PRESETS["m3vit-micro"])


def options(tree, tmp_path, **changes):
    common = {"data": "camvid", "data_root": str(tree), "split": "test", "label_shape": (24, 48)}
    return AccuracyOptions(CONFIGS["tiny"], 4, 1, 1, tmp_path / "cache", **(common | changes))


def test_accuracy_on_photographs(weights, tree, tmp_path):
    """Fewer pictures than asked for, labels of their own size, details; a kept graph is what is measured."""
    study = Study(weights, options(tree, tmp_path), lambda what, share: None)
    rows = [study.row("float32", "float (NumPy)", study.count)]
    graph, files = study.ptq(8)
    assert files == [] and len(study.calibration()) == 3
    rows.append(study.integer_row("PTQ W8A8", graph, files))
    for row in json.loads(json.dumps(rows, allow_nan=False)):
        assert (row["data"], row["split"], row["images"], row["model"]) == ("camvid", "test", 1, NAME)
        assert {"class_accuracy", "boundary_f1", "iou_10"} <= row["metrics"]["segmentation"].keys()
        assert len(row["files"]) == len(list(weights.parent.iterdir()))
    assert "test pictures of camvid" in accuracy_table(rows).title
    kept = workloads.ptq_file(weights)
    assert kept.name == f"{NAME}.graph.safetensors"
    from edgemoe_models.graph.file import write_graph

    write_graph(graph, kept)
    assert study.ptq(8)[1] == [kept] and study.ptq(4)[1] == []


def test_other_classes_are_refused(weights, tree, tmp_path):
    with pytest.raises(
        ValueError, match=r"scenes has 8 classes \(sky, \.\.\.\), not those of segmentation; see --data"
    ):
        Study(weights, options(tree, tmp_path, data="scenes", split="val"), lambda what, share: None)


def test_what_is_absent_is_skipped_and_said(edgemoe, monkeypatch, tmp_path):
    arguments = ("accuracy", "--model", NAME, "--data", "camvid", "--data-root", tmp_path / "none")
    text = edgemoe.ok(*arguments, "--skip-missing")
    assert f"skipped {NAME} on camvid: there is no folder" in text
    (tmp_path / "none").mkdir()
    monkeypatch.setattr("edgemoe.cli.accuracy.weights_path", lambda name: tmp_path / "no.safetensors")
    assert "its weights are in the repository only" in edgemoe.ok(*arguments, "--skip-missing")
    edgemoe("accuracy", "--label-size", "3").refused("HEIGHTxWIDTH")


def test_where_the_weights_are(edgemoe, weights, monkeypatch, tmp_path):
    """In a checkout by name; a wheel says where they lie."""
    monkeypatch.setattr(workloads, "weights_path", lambda name: tmp_path / "none" / f"{name}.safetensors")
    names = (("compile", NAME), ("compile", f"{NAME}-w8a8"), ("accuracy", NAME))
    for command in ((verb, "--model", name) for verb, name in names):
        edgemoe(*command).refused("too large for the wheel", "models/edgemoe_models/weights")
    monkeypatch.setattr(workloads, "weights_path", lambda name: weights)
    assert workloads.float_weights(NAME) == weights and workloads.model_label(str(weights)) == NAME
    assert workloads.qat_files(weights, "w8a8").graph.name == f"{NAME}-w8a8.graph.safetensors"


def test_what_the_repository_holds():
    """Parts below 25 MB with the notice, and graphs of the same network."""
    if NAME not in workloads.named_graphs():
        pytest.skip("only a checkout has the weights of m3vit-tiny-camvid")
    path = workloads.float_weights(NAME)
    files = [*path.parent.glob(f"{NAME}*.safetensors")]
    assert len(files) == 5 and all(file.stat().st_size < 25_000_000 for file in files)
    assert "For research use only" in workloads.read_metadata(path)["notice"]
    _, config = load_checkpoint(path)
    assert config.task("segmentation").labels == camvid.CLASSES
    trained = {f"-{suffix}": precision for suffix, precision in workloads.QAT_PRECISIONS.items()}
    for form, precision in ({"": "PTQ W8A8"} | trained).items():
        graph = workloads.load_graph(f"{NAME}{form}")
        assert graph.config == config and graph.expert_use and workloads.precision_of(f"{NAME}{form}") == precision
