"""Training of classifications: batches, mixing, losses, metrics; then the whole way to a bundle that names classes."""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from edgemoe_models.config import PRESETS, TaskConfig  # noqa: E402
from edgemoe_models.train.augmentation import Strong  # noqa: E402
from edgemoe_models.train.config import TrainConfig  # noqa: E402
from edgemoe_models.train.data import augment  # noqa: E402
from edgemoe_models.train.losses import task_loss  # noqa: E402
from edgemoe_models.train.trainer import Trainer, evaluate  # noqa: E402
from support.photo_trees import make_camvid_official, make_cifar, make_image_folder, save_image  # noqa: E402
from support.small_models import to_train  # noqa: E402

SMALL = to_train(TaskConfig("depth", "depth", 1, head_hidden=8, cells=8))
NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@pytest.fixture(autouse=True)
def small_preset(monkeypatch):
    monkeypatch.setitem(PRESETS, "small", SMALL)
    torch.set_num_threads(1)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def pictures(count=8, classes=10):
    """Classes that differ in brightness."""
    labels = (np.arange(count) % classes).astype(np.uint16)
    image = np.broadcast_to((25 * labels)[:, None, None, None], (count, 16, 32, 3)).astype(np.uint8)
    return {"image": image, "classification": labels}


def test_heads_are_the_data_sets():
    """A model of dense tasks gets one linear layer on its class token, with the data set's names."""
    task = TrainConfig("small", data="cifar10").model_config.tasks[0]
    assert (task.kind, task.channels, task.head_hidden, task.cells, task.pool) == ("classification", 10, 0, 1, "cls")
    assert task.labels == NAMES
    assert TrainConfig("small", data="cifar10", head_hidden=5).model_config.tasks[0].head_hidden == 5
    assert TrainConfig("deit-tiny", data="cifar10").model_config.tasks[0].channels == 10


def test_the_pictures_size_can_be_another():
    config = TrainConfig("small", data="cifar10", image_size="32x32").model_config
    assert (config.image_height, config.image_width, config.num_tokens) == (32, 32, 17)
    assert TrainConfig("small", image_size="16x64").model_config.image_width == 64
    with pytest.raises(ValueError, match="image_width must be a multiple of patch"):
        TrainConfig("small", image_size="16x33")
    with pytest.raises(ValueError, match="image_size must be HEIGHTxWIDTH, as 192x256, not '32'"):
        TrainConfig("small", image_size="32")


def test_a_class_stays_when_its_picture_is_changed():
    images, labels = torch.rand(6, 3, 16, 32), torch.arange(6)
    changed, kept = augment(images, labels, generator(), "classification")
    assert torch.equal(kept, labels) and not torch.equal(changed, images)
    changed, kept = Strong().apply_whole(images, labels, generator())
    assert torch.equal(kept, labels) and changed.shape == images.shape and 0 <= changed.min() and changed.max() < 1


def shares_of_white(strong, seed=0, count=64):
    """Labels, and how much of each picture is of the white class, where black and white alternate."""
    labels = torch.arange(count) % 2
    images = labels.float().view(-1, 1, 1, 1).expand(-1, 3, 8, 16).contiguous() * (255 / 256)
    changed, shares = strong.mix_whole(images, labels, generator(seed))
    assert torch.allclose(shares.sum(1), torch.ones(count)) and (shares >= 0).all()
    return shares[:, 1], changed.mean((1, 2, 3)) * (256 / 255)


def test_mixed_pictures_have_mixed_classes():
    """What is left of a picture, and of its class, is one share; it is drawn from Beta(alpha, alpha)."""
    for strong in (Strong(mixup=0.5, classes=2), Strong(mix=1.0, classes=2), Strong(mix=0.5, mixup=0.5, classes=2)):
        label, seen = shares_of_white(strong)
        assert torch.allclose(label, seen, atol=0.02)
        assert 0.2 < ((label > 0.02) & (label < 0.98)).float().mean()
    label, _ = shares_of_white(Strong(mixup=2.0, classes=2), count=20000)
    assert abs(label.mean() - 0.5) < 0.01 and abs(label.var() - 1 / 20) < 0.003  # the variance of Beta(2, 2)
    draws = [shares_of_white(Strong(mixup=0.2, classes=2), seed)[0] for seed in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
    assert torch.isfinite(shares_of_white(Strong(mixup=1e-4, classes=2), count=20000)[0]).all()


def test_losses_of_classes():
    task, output = TaskConfig("c", "classification", 3), torch.tensor([[2.0, 0.0, -1.0]])
    logs = output.log_softmax(1)[0]
    assert torch.allclose(task_loss(output, torch.tensor([1]), task), -logs[1])
    mixed = torch.tensor([[0.25, 0.75, 0.0]])
    assert torch.allclose(task_loss(output, mixed, task), -(mixed[0] * logs).sum())
    smoothed = task_loss(output, torch.tensor([1]), task, smoothing=0.3)
    assert torch.allclose(smoothed, -(0.7 * logs[1] + 0.1 * logs.sum()))


@pytest.mark.parametrize("options", [{}, {"augment": "strong", "mix": 0.3, "mixup": 0.4, "label_smoothing": 0.1}])
def test_it_learns(options):
    """Two classes that differ in brightness, in a few steps."""
    config = TrainConfig("small", data="cifar10", steps=60, batch=16, warmup=2, learning_rate=0.01, ema=0.5, **options)
    data = pictures(classes=2) | {"image": pictures(classes=2)["image"] // 25 * 200}
    trainer = Trainer(config)
    prepared = trainer.prepared(data)
    losses = [trainer.train_step(prepared)["classification"] for _ in range(60)]
    assert np.mean(losses[-10:]) < 0.7 * np.mean(losses[:3])
    metrics = evaluate(trainer.best_model, data, 8)["classification"]
    assert metrics == {"top1": 1.0, "top5": 1.0}


def test_metrics_are_top1_and_top5():
    trainer = Trainer(TrainConfig("small", data="cifar10"))
    metrics = evaluate(trainer.model, pictures(20), 20)["classification"]
    with torch.no_grad():
        images = torch.from_numpy(pictures(20)["image"]).permute(0, 3, 1, 2) / 256
        logits = trainer.model.eval()(images, "classification")
    order = logits.argsort(1, descending=True).numpy()
    labels = pictures(20)["classification"]
    assert metrics["top1"] == np.mean(order[:, 0] == labels)
    assert metrics["top5"] == np.mean([label in row for label, row in zip(labels, order[:, :5], strict=True)])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data": "cifar10", "tasks": "segmentation"}, r"tasks of cifar10 must be among \['classification'\], not"),
        (
            {"mixup": 0.2, "augment": "strong", "data": "camvid", "tasks": "segmentation"},
            "mixup must be 0 without a cl",
        ),
        ({"label_smoothing": 0.1}, "label_smoothing must be 0 without a classification, not 0.1"),
        ({"data": "cifar10", "mixup": -1.0}, r"mixup must be in 0\.\.100, not -1\.0"),
        ({"data": "cifar10", "mixup": 0.2}, "mixup must be 0 with augment 'light', not 0.2"),
        ({"data": "cifar10", "label_smoothing": 1.0}, "label_smoothing must be at least 0 and below 1, not 1.0"),
        ({"data": "cifar10", "class_balance": 1.0}, "class_balance must be 0 with a classification, not 1.0"),
        ({"data": "cifar10", "label_size": "8x8"}, "label_size must be empty with a classification, not '8x8'"),
        ({"data": "cifar10", "cells": 2}, "cells of classification must be 1, not 2"),
        ({"preset": "deit-tiny", "data": "scenes"}, "preset must have dense tasks only to be trained on scenes, not"),
    ],
)
def test_refusals(options, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**({"preset": "small"} | options))


def trees(name, root):
    if name == "cifar10":
        make_cifar(root)
        return NAMES
    make_image_folder(root)
    return "cat", "dog", "newt"


@pytest.mark.parametrize("name", ["cifar10", "imagefolder"])
def test_from_photographs_to_named_classes(name, edgemoe, tmp_path):
    """train, measure, quantize, compile, evaluate, run: the classes keep their names all the way."""
    names = trees(name, tmp_path / "data")
    for i in range(3):
        save_image(tmp_path / "pictures" / f"{i}.png", np.full((16, 32, 3), 60 * i, np.uint8))
    data = ["--data", name, "--data-root", tmp_path / "data", "--cache", tmp_path / "cache"]
    options = ["--augment", "strong", "--mixup", 0.2, "--label-smoothing", 0.1, "--ema", 0.5]
    arguments = ["--preset", "small", "--steps", 3, "--batch", 4, "--out", tmp_path, *options, *data]
    metrics = json.loads(edgemoe.ok("train", *arguments))
    assert set(metrics["classification"]) == ({"top1", "top5"} if len(names) > 5 else {"top1"})
    weights = tmp_path / "small.safetensors"
    assert json.loads(edgemoe.ok("train", "--evaluate", weights, *data)) == metrics
    graph, bundle = tmp_path / "small.graph.safetensors", tmp_path / "small.emoe"
    edgemoe.ok("quantize", weights, "--out", graph, "--images", tmp_path / "pictures")
    edgemoe.ok("compile", "--model", graph, "--config", "tiny", "--out", bundle)
    said = edgemoe.ok("run", bundle, tmp_path / "pictures", "--out", tmp_path / "run")
    for found in names if len(names) <= 5 else ():
        assert found in said
    assert any(found in said for found in names) and "class 0" not in said
    if name == "imagefolder":
        val = ["evaluate", bundle, tmp_path / "data/val", "--resize", "crop", "--float", weights]
        assert "top-1" in edgemoe.ok(*val, "--json", tmp_path / "x.json").lower()
        measured = json.loads((tmp_path / "x.json").read_text())
        assert measured["images"] == 6 and measured["metrics"]["float"]["top1"] == metrics["classification"]["top1"]


def test_measuring_on_other_classes_is_refused(edgemoe, tmp_path):
    make_cifar(tmp_path / "data")
    make_image_folder(tmp_path / "folder")
    common = ["--cache", tmp_path / "cache"]
    small = ["--preset", "small", "--steps", 1, "--batch", 2, "--out", tmp_path]
    edgemoe.ok("train", *small, "--data", "cifar10", "--data-root", tmp_path / "data", *common)
    weights = tmp_path / "small.safetensors"
    outcome = edgemoe(
        "train", "--evaluate", weights, "--data", "imagefolder", "--data-root", tmp_path / "folder", *common
    )
    outcome.refused("classification has 10 classes (airplane, ...), but imagefolder has 3 (cat, ...)")


def test_files_that_are_not_there_are_named_without_a_number(edgemoe, tmp_path):
    """Of a run to go on with, or of weights to begin with."""
    small = ["train", "--preset", "small", "--steps", 1, "--batch", 2, "--out", tmp_path / "out", "--cache", tmp_path]
    small += ["--train-scenes", 2, "--val-scenes", 2]
    edgemoe(*small, "--resume").failed(f"edgemoe: {tmp_path}/out/checkpoint.safetensors: No such file or directory")
    edgemoe(*small, "--init", tmp_path / "x").failed(f"edgemoe: {tmp_path}/x: No such file or directory")


def test_a_folder_without_classes_is_refused_in_one_line(edgemoe, tmp_path):
    (tmp_path / "data/train/cat").mkdir(parents=True)
    outcome = edgemoe("train", "--preset", "small", "--data", "imagefolder", "--data-root", tmp_path / "data")
    outcome.refused("it must have a folder for each class, at least two, but has only 'cat'")


def test_weights_of_another_size_and_other_classes_are_taken(edgemoe, tmp_path):
    """``--init`` by the command line: a larger picture, and another data set's head."""
    from edgemoe_models.storage.torch_tensors import read_torch

    make_cifar(tmp_path / "cifar")
    make_camvid_official(tmp_path / "camvid", 24, 40)
    common = ["--preset", "small", "--batch", 2, "--cache", tmp_path / "cache", "--out", tmp_path]
    edgemoe.ok("train", *common, "--steps", 1, "--data", "cifar10", "--data-root", tmp_path / "cifar")
    first, _ = read_torch(tmp_path / "small.safetensors")
    (tmp_path / "small.safetensors").rename(tmp_path / "first.safetensors")
    size = ["--image-size", "32x48", "--init", tmp_path / "first.safetensors", "--learning-rate", 1e-12]
    options = ["--data", "camvid", "--data-root", tmp_path / "camvid", "--tasks", "segmentation,edges", *size]
    edgemoe.ok("train", *common, "--steps", 1, "--weight-decay", 0, *options)
    second, metadata = read_torch(tmp_path / "small.safetensors")
    assert torch.allclose(first["blocks.0.mlp.fc1.weight"], second["blocks.0.mlp.fc1.weight"], atol=1e-6)
    expected = torch.nn.functional.interpolate(
        first["pos_embed"][1:].view(2, 4, -1).permute(2, 0, 1)[None], (4, 6), mode="bicubic", antialias=True
    )[0]
    assert torch.allclose(second["pos_embed"][1:].view(4, 6, -1), expected.permute(1, 2, 0), atol=1e-4)
    assert json.loads(metadata["config"])["tasks"][0]["channels"] == 11 and "heads.classification.weight" in first
