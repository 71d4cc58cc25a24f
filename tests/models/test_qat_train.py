"""Fine-tuning: its files, a resumed run, and refusals, through ``edgemoe qat``."""

import csv
import dataclasses
import json

import numpy as np
import pytest
import safetensors.numpy
import torch

from edgemoe_models.config import TaskConfig
from edgemoe_models.datasets import camvid
from edgemoe_models.graph.file import graph_bytes, read_graph
from edgemoe_models.qat.config import QatOptions
from edgemoe_models.qat.export import export
from edgemoe_models.qat.storage import load
from edgemoe_models.random_weights import random_state
from edgemoe_models.storage.torch_tensors import read_torch, write_torch
from edgemoe_models.train.trainer import load_weights
from support.camvid_tree import make_camvid
from support.photo_trees import make_image_folder
from support.small_models import to_train

CONFIG = to_train(
    TaskConfig("segmentation", "segmentation", 8, cells=4),
    TaskConfig("normals", "normals", 3, cells=2),
    TaskConfig("edges", "edges", 1, head_hidden=12, cells=4),
    TaskConfig("depth", "depth", 1),
    num_experts=3,
)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("qat") / "float.safetensors"
    safetensors.numpy.save_file(random_state(CONFIG), path, {"config": CONFIG.to_json()})
    return path


@pytest.fixture
def qat(edgemoe, weights):
    """``edgemoe qat`` on the small model, into a folder."""

    def run(out, *options):
        common = {"--model": weights, "--cache": weights.parent / "scenes", "--batch": 2, "--train-scenes": 6}
        common |= {"--val-scenes": 2, "--threads": 1, "--learning-rate": 1e-3, "--out": out}
        return edgemoe("qat", *(word for pair in common.items() for word in pair), *options)

    threads = torch.get_num_threads()
    yield run
    torch.set_num_threads(threads)


def _same(first, second):
    one, two = (model.state_dict() for model in (first, second))
    return one.keys() == two.keys() and all(torch.equal(value, two[name]) for name, value in one.items())


def test_files_of_a_run(qat, tmp_path):
    done = qat(tmp_path, "--steps", 10, "--expert-bits", 4, "--scales", "power-of-two")
    assert done.code == 0 and "miou" in json.loads(done.out)["segmentation"]
    name = "small-w4a8-power-of-two"
    model = load(tmp_path / f"{name}.safetensors")
    graph = read_graph(tmp_path / f"{name}.graph.safetensors")
    assert graph.config == CONFIG and graph.expert_bits == 4
    assert graph.expert_use.keys() == {
        f"blocks.{i}.{task.name}" for i in range(CONFIG.depth) if CONFIG.is_moe(i) for task in CONFIG.tasks
    }
    assert graph_bytes(dataclasses.replace(graph, expert_use={})) == graph_bytes(export(model))
    with safetensors.safe_open(tmp_path / f"{name}.safetensors", "numpy") as file:
        metadata = file.metadata()
    assert json.loads(metadata["train"])["scales"] == "power-of-two" and metadata["steps"] == "10"
    assert json.loads(metadata["metrics"]).keys() == {task.name for task in CONFIG.tasks}
    with (tmp_path / "log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["10"] and np.isfinite(float(rows[0]["edges"]))


@pytest.mark.parametrize("more", [(), ("--ema", 0.9), ("--distill", 0.5)], ids=["last", "average", "distilled"])
def test_a_resumed_run_equals_one_that_was_not_interrupted(qat, tmp_path, more):
    for folder, runs in (("whole", [("--steps", 4)]), ("parts", [("--steps", 2), ("--steps", 4, "--resume")])):
        for options in runs:
            assert qat(tmp_path / folder, "--warmup", 100, *more, *options).code == 0
    whole, parts = (load(tmp_path / folder / "small-w8a8.safetensors") for folder in ("whole", "parts"))
    assert _same(whole, parts)


@pytest.fixture
def photographs(qat, tmp_path):
    """``edgemoe qat`` on a model of a small CamVid, which is made here."""
    make_camvid(tmp_path / "camvid", 16, 32)
    config = to_train(
        TaskConfig("segmentation", "segmentation", 11, cells=4, labels=camvid.CLASSES),
        TaskConfig("edges", "edges", 1, cells=4),
    )
    path = tmp_path / "photographs.safetensors"
    safetensors.numpy.save_file(random_state(config), path, {"config": config.to_json()})
    common = ("--model", path, "--data", "camvid", "--data-root", tmp_path / "camvid", "--warmup", 1)

    def run(out, *options):
        return qat(out, *common, *options)

    return run


def test_the_average_is_kept(qat, tmp_path):
    """It lies behind the last weights, and is what the graph is made of."""
    for name, options in (("last", ()), ("average", ("--ema", 0.99)), ("start", ("--learning-rate", 1e-12))):
        assert qat(tmp_path / name, "--steps", 12, "--warmup", 1, *options).code == 0
    last, average, start = (load(tmp_path / name / "small-w8a8.safetensors") for name in ("last", "average", "start"))
    far, near = (
        sum((one - two).abs().sum() for one, two in zip(model.parameters(), start.parameters(), strict=True)).item()
        for model in (last, average)
    )
    assert 0 < near < far
    graph = read_graph(tmp_path / "average/small-w8a8.graph.safetensors")
    assert graph_bytes(dataclasses.replace(graph, expert_use={})) == graph_bytes(export(average))


def test_a_gpu_that_is_not_there_is_refused(qat, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    qat(tmp_path, "--device", "cuda").refused("device must be cpu or auto, not cuda: PyTorch finds no GPU here")
    assert qat(tmp_path, "--steps", 1, "--device", "auto").code == 0
    done = qat(tmp_path, "--steps", 2, "--resume", "--device", "cuda")
    done.refused("edgemoe: device must be cpu or auto, not cuda: PyTorch finds no GPU here")


def test_torchrun_is_refused(qat, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    qat(tmp_path / "out").refused("quantization-aware training is of one process; start it without torchrun")


def test_a_resumed_run_needs_the_float_model_that_it_began_with(qat, tmp_path):
    """Where that is distilled; without, it has done its part."""
    tensors = random_state(CONFIG)
    path = tmp_path / "float.safetensors"
    for share in (0, 0.5):
        safetensors.numpy.save_file(tensors, path, {"config": CONFIG.to_json()})
        common = ("--model", path, "--distill", share)
        assert qat(tmp_path / str(share), *common, "--steps", 1).code == 0
        others = tensors | {"norm.weight": tensors["norm.weight"] * 2}
        safetensors.numpy.save_file(others, path, {"config": CONFIG.to_json()})
        done = qat(tmp_path / str(share), *common, "--steps", 2, "--resume")
        if share:
            done.refused("float.safetensors has other weights than when ", "0.5/checkpoint.safetensors was made; put ")
        else:
            assert done.code == 0
    path.write_bytes(b"junk")
    qat(tmp_path / "0.5", *common, "--steps", 2, "--resume").refused(
        "edgemoe: ", "float.safetensors: not a readable safetensors file"
    )


def test_checkpoints_of_earlier_versions_go_on(qat, tmp_path):
    """They do not know every option: what they lack had the effect of its default."""
    assert qat(tmp_path, "--steps", 1).code == 0
    path = tmp_path / "checkpoint.safetensors"
    tensors, metadata = read_torch(path)
    options = json.loads(metadata["train"])
    del options["distill"], options["ema"], metadata["teacher"]
    write_torch(path, tensors, metadata | {"train": json.dumps(options)})
    qat(tmp_path, "--steps", 2, "--resume", "--ema", 0.5).refused("it was made with ema 0.0, not 0.5")
    assert qat(tmp_path, "--steps", 2, "--resume").code == 0


def test_distillation_keeps_the_model_near_the_float_one(qat, weights, tmp_path):
    """Against labels alone random weights go their own way."""
    images = torch.rand(4, 3, CONFIG.image_height, CONFIG.image_width)
    teacher = load_weights(weights)
    apart = {}
    for share in (0, 1):
        out = tmp_path / str(share)
        assert qat(out, "--steps", 24, "--warmup", 1, "--distill", share, "--learning-rate", 1e-3).code == 0
        student = load(out / "small-w8a8.safetensors")
        with torch.no_grad():
            pairs = [(student(images, task.name), teacher(images, task.name)) for task in CONFIG.tasks]
        apart[share] = [(one - two).abs().mean().item() for one, two in pairs]
    assert all(near < 0.85 * far for near, far in zip(apart[1], apart[0], strict=True)), apart


def test_a_data_set_of_other_classes_is_refused_when_a_run_goes_on_too(qat, tmp_path):
    config = to_train(TaskConfig("classification", "classification", 2, labels=("a", "b")))
    path = tmp_path / "x.safetensors"
    safetensors.numpy.save_file(random_state(config), path, {"config": config.to_json()})
    make_image_folder(tmp_path / "own", ("a", "b"))
    make_image_folder(tmp_path / "other", ("a", "c"))

    def run(data, *options):
        common = ("--model", path, "--data", "imagefolder", "--data-root", tmp_path / data, "--warmup", 1)
        return qat(tmp_path / "out", *common, *options)

    assert run("own", "--steps", 1).code == 0
    before = (tmp_path / "out/checkpoint.safetensors").read_bytes()
    run("other", "--steps", 2, "--resume").refused("classification has 2 classes (a, ...), but imagefolder has 2 (a, ")
    assert (tmp_path / "out/checkpoint.safetensors").read_bytes() == before
    assert run("own", "--steps", 2, "--resume").code == 0


def test_photographs(photographs, tmp_path):
    strong = ("--augment", "strong", "--mix", 0.5, "--class-balance", 0.5)
    done = photographs(tmp_path / "strong", "--steps", 3, *strong)
    assert done.code == 0 and json.loads(done.out).keys() == {"segmentation", "edges"}
    with safetensors.safe_open(tmp_path / "strong/small-w8a8.safetensors", "numpy") as file:
        metadata = file.metadata()
    assert metadata["metrics_split"] == "val, first 2 pictures of camvid"
    assert json.loads(metadata["train"])["data"] == "camvid"
    graph = read_graph(tmp_path / "strong/small-w8a8.graph.safetensors")
    assert graph.config.tasks[0].labels == camvid.CLASSES and graph.expert_use

    assert photographs(tmp_path / "parts", "--steps", 1, *strong).code == 0
    photographs(tmp_path / "parts", "--steps", 3, "--resume").refused("it was made with augment 'strong', not 'light'")
    assert photographs(tmp_path / "parts", "--steps", 3, "--resume", *strong).code == 0
    whole, parts = (load(tmp_path / folder / "small-w8a8.safetensors") for folder in ("strong", "parts"))
    assert _same(whole, parts)


def test_photographs_calibrate_their_own_model(photographs, tmp_path, monkeypatch):
    """Not generated scenes, whose ranges are not theirs."""

    def scenes(*_, **__):
        raise AssertionError("scenes are not asked for")

    monkeypatch.setattr("edgemoe_models.ptq.quantize.calibration_images", scenes)
    assert photographs(tmp_path / "out", "--steps", 1).code == 0


@pytest.mark.parametrize("augment", [(), ("--augment", "strong", "--mix", 0.5)], ids=["light", "strong"])
def test_classes_of_whole_pictures(qat, tmp_path, augment):
    make_image_folder(tmp_path / "folder", ("cat", "dog"))
    labels = ("cat", "dog")
    config = to_train(TaskConfig("class", "classification", 2, labels=labels, pool="cls"))
    path = tmp_path / "classes.safetensors"
    safetensors.numpy.save_file(random_state(config), path, {"config": config.to_json()})
    common = ("--model", path, "--data", "imagefolder", "--data-root", tmp_path / "folder", "--steps", 2)
    done = qat(tmp_path / "out", *common, *augment)
    assert done.code == 0 and "top1" in json.loads(done.out)["class"]
    assert read_graph(tmp_path / "out/small-w8a8.graph.safetensors").config.tasks[0].labels == labels
    qat(tmp_path / "out", "--model", path, "--data", "cifar10").refused(
        "class has 2 classes (cat, ...), but cifar10 has 10"
    )


def test_a_run_that_never_began_cannot_go_on(qat, tmp_path):
    path = tmp_path / "none" / "checkpoint.safetensors"
    qat(tmp_path / "none", "--steps", 1, "--resume").refused(f"{path}: not a readable safetensors file (No such ")


def test_a_missing_data_set_is_one_message(photographs, tmp_path):
    photographs(tmp_path / "out", "--data-root", tmp_path / "none").refused("none/train.txt is missing")


def test_bad_input_is_one_message(qat, tmp_path):
    cases = [
        (["--expert-bits", "3"], "expert-bits must be 4 or 8, not 3"),
        (["--scales", "any"], "scales must be multiplier or power-of-two, not 'any'"),
        (["--batch", "0"], "batch must be at least 1, not 0"),
        (["--learning-rate", "0"], "learning-rate must be positive, not 0.0"),
        (["--minutes", "-1"], "minutes must be at least 0, not -1.0"),
        (["--augment", "any"], "augment must be one of ['light', 'strong'], not 'any'"),
        (["--augment", "strong"], "augment must be light to train normals, edges, depth on scenes, not 'strong'"),
        (["--zoom", "0.5"], "zoom must be in 1..8, not 0.5"),
        (["--ema", "1"], "ema must be at least 0 and below 1, not 1.0"),
        (["--mix", "2"], "mix must be in 0..1, not 2.0"),
        (["--mix", "0.5"], "mix must be 0 with augment 'light', not 0.5"),
        (["--distill", "1.5"], "distill must be in 0..1, not 1.5"),
        (["--device", "any"], "device must be one of ['auto', 'cpu', 'cuda'], not 'any'"),
        (["--class-balance", "-1"], "class-balance must be at least 0, not -1.0"),
        (["--data", "any"], "data must be one of"),
        (["--data", "camvid"], "the model must have tasks of camvid only, not normals, depth; see --data"),
        (["--resume"], "checkpoint.safetensors: not a readable safetensors file"),
        (["--model", tmp_path / "none"], "model must be a trained preset"),
    ]
    for options, message in cases:
        qat(tmp_path, *options).refused(message)
    assert qat(tmp_path, "--steps", 1).code == 0
    qat(tmp_path, "--steps", 2, "--resume", "--seed", 5).refused(
        "was made with seed 1, not 5; give the same options to continue it"
    )
    qat(tmp_path, "--steps", 2, "--resume", "--distill", 0.5).refused("was made with distill 0.0, not 0.5")


def test_other_files_and_tasks_are_refused(qat, weights, tmp_path):
    with pytest.raises(ValueError, match="not a model of edgemoe_models.qat"):
        load(weights)
    classes = dataclasses.replace(CONFIG, tasks=(TaskConfig("classes", "classification", 4),))
    path = tmp_path / "classes.safetensors"
    safetensors.numpy.save_file(random_state(classes), path, {"config": classes.to_json()})
    qat(tmp_path, "--model", path).refused("the model must have tasks of scenes only, not classification; see --data")


def test_learning_rate():
    options = QatOptions(learning_rate=1.0, warmup=10)
    assert options.rate(0, 0.0) == pytest.approx(0.1)
    assert options.rate(10, 0.5) == pytest.approx(0.505)
    assert options.rate(500, 1.0) == pytest.approx(0.01)
