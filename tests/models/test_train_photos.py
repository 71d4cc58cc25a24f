"""Training from little data: strong augmentation on the device, moving average, layer-wise rates, another shape."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from edgemoe_models.config import PRESETS, TaskConfig  # noqa: E402
from edgemoe_models.datasets import files  # noqa: E402
from edgemoe_models.datasets.arrays import IGNORE  # noqa: E402
from edgemoe_models.m3vit import M3ViT, MoE, drop_path  # noqa: E402
from edgemoe_models.train.augmentation import Strong, class_borders  # noqa: E402
from edgemoe_models.train.config import TrainConfig  # noqa: E402
from edgemoe_models.train.losses import class_weights, task_loss  # noqa: E402
from edgemoe_models.train.resident import Resident  # noqa: E402
from edgemoe_models.train.start import take_weights  # noqa: E402
from edgemoe_models.train.trainer import Trainer, export, load_weights  # noqa: E402
from support.small_models import to_train  # noqa: E402

SMALL = to_train(
    TaskConfig("segmentation", "segmentation", channels=8, cells=4),
    TaskConfig("edges", "edges", channels=1, cells=4),
)
CPU = torch.device("cpu")
PHOTOS = {"data": "camvid", "tasks": "segmentation,edges", "batch": 4, "warmup": 1}


@pytest.fixture(autouse=True)
def small_preset(monkeypatch):
    monkeypatch.setitem(PRESETS, "small", SMALL)
    torch.set_num_threads(1)


def photos(count=6, classes=11):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, (count, 2, 4), np.uint8).repeat(8, 1).repeat(8, 2)
    labels[:, :2] = IGNORE
    edges = np.stack([files.class_borders(one, IGNORE) for one in labels])
    image = rng.integers(0, 256, (count, 16, 32, 3), np.uint8)
    return {"image": image, "segmentation": labels, "edges": edges}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_all_experts_at_once_are_the_queues(precision):
    torch.manual_seed(0)
    moe = MoE(SMALL)
    for parameter in moe.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    tokens = torch.randn(50, SMALL.dim, requires_grad=True)
    scores = torch.rand(50, SMALL.top_k, requires_grad=True)
    chosen = torch.stack([torch.randperm(SMALL.num_experts)[: SMALL.top_k] for _ in range(50)])
    results = []
    for way in (moe.experts, moe.all_experts):
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            output = way(tokens, scores, chosen)
        assert output.dtype == torch.float32
        gradients = torch.autograd.grad(output.square().sum(), [tokens, scores, moe.w1, moe.b1, moe.w2, moe.b2])
        results.append([output.detach(), *gradients])
    for queue, at_once in zip(*results, strict=True):
        bound = 2e-5 if precision == "float32" else 0.03
        assert (queue - at_once).abs().max() <= bound * queue.abs().max()


def test_dropped_paths_keep_the_mean():
    torch.manual_seed(0)
    kept = drop_path(torch.ones(4000, 1, 2), 0.25)
    assert {round(value, 4) for value in kept.unique().tolist()} == {0.0, round(1 / 0.75, 4)}
    assert torch.equal(kept[:, 0, 0], kept[:, 0, 1])
    assert abs(kept.mean() - 1) < 0.03


def test_drop_path_rises_and_is_for_training_only():
    trainer = Trainer(TrainConfig("small", drop_path=0.5, **PHOTOS))
    assert [block.drop for block in trainer.model.blocks] == [0.0, 0.5]
    model, images = trainer.model.eval(), torch.rand(3, 3, 16, 32)
    expected = model(images, "edges")
    for block in model.blocks:
        block.drop = 0.0
    assert torch.equal(model(images, "edges"), expected)


def test_borders_on_the_device_are_those_of_the_files():
    labels = photos()["segmentation"]
    made = class_borders(torch.from_numpy(labels)).numpy()
    assert np.array_equal(made, photos()["edges"])
    assert not made[:, :2].any() and made.any()


def test_strong_changes_keep_pictures_and_classes_together():
    """Each class has one colour: where a class is found, so is its grey, however pictures are moved and mixed."""
    rng = np.random.default_rng(1)
    classes = torch.from_numpy(rng.integers(0, 4, (32, 4, 8)).astype(np.uint8)).repeat_interleave(8, 1)
    classes = classes.repeat_interleave(8, 2)
    images = (classes[:, None].float() / 4).expand(-1, 3, -1, -1).contiguous()
    still = Strong(mix=0.5)
    changed, moved = still.apply(images, classes, generator())
    assert changed.shape == images.shape and moved.shape == classes.shape and moved.dtype == torch.uint8
    assert set(moved.unique().tolist()) == {0, 1, 2, 3, IGNORE}
    assert 0 <= changed.min() and changed.max() < 1
    assert not torch.equal(moved, classes)
    for image, label in zip(changed.mean(1), moved, strict=True):
        means = [image[label == c].mean() for c in range(4) if (label == c).sum() > 150]
        assert all(a < b + 0.05 for a, b in zip(means, means[1:], strict=False))


def test_the_same_seed_draws_the_same():
    data = Resident(photos(), CPU, Strong(mix=0.5), edges_of_classes=True)
    draws = []
    for seed in (1, 1, 2):
        data.seed(seed)
        draws.append((*data.draw("segmentation", 4), *data.draw("edges", 4)))
    assert all(torch.equal(a, b) for a, b in zip(draws[0], draws[1], strict=True))
    assert not torch.equal(draws[0][0], draws[2][0])
    data.seed(1)
    images, _ = data.draw("segmentation", 4, slice(1, None, 2))
    assert images.shape == (2, 3, 16, 32)


def test_resident_pictures_are_those_of_the_arrays_and_grow():
    arrays, there = photos(), [2]
    data = Resident(arrays, CPU, available=lambda: there[0])
    known = {row.tobytes() for row in arrays["segmentation"][:2]} | {
        row[:, ::-1].tobytes() for row in arrays["segmentation"][:2]
    }
    data.seed(0)
    _, labels = data.draw("segmentation", 64)
    assert {row.numpy().tobytes() for row in labels} <= known
    there[0] = 6
    data.refresh()
    _, labels = data.draw("segmentation", 64)
    assert not {row.numpy().tobytes() for row in labels} <= known


def test_class_weights_are_median_frequency():
    labels = np.full((2, 1, 8), IGNORE, np.uint8)
    labels[0, 0] = [0, 0, 0, 0, 0, 0, 1, 2]
    labels[1, 0, :4] = [0, 0, 1, 1]
    frequency = np.array([8 / 12, 3 / 12, 1 / 8])
    expected = np.median(frequency) / frequency
    weights = class_weights(labels, 4, 1.0).numpy()
    assert weights[3] > 0
    assert np.allclose(weights[:3] / weights[1], expected, rtol=1e-6)
    assert weights[:3] @ np.array([8, 3, 1]) == pytest.approx(12)
    assert np.array_equal(class_weights(labels, 4, 0.0), np.ones(4, np.float32))


def test_weights_of_classes_weigh_the_loss():
    task = TaskConfig("segmentation", "segmentation", 2)
    label = torch.tensor([[[0, 1]]], dtype=torch.uint8)
    output = torch.tensor([[[[0.0, 3.0]], [[0.0, 0.0]]]])
    plain = task_loss(output, label, task)
    assert torch.equal(task_loss(output, label, task, weights=torch.ones(2)), plain)
    assert task_loss(output, label, task, weights=torch.tensor([0.5, 1.5])) > plain


def test_layers_learn_at_their_own_rates():
    trainer = Trainer(TrainConfig("small", layer_decay=0.5, learning_rate=1.0, **PHOTOS))
    trainer.train_step(trainer.prepared(photos()))
    rates = {id(p): group["lr"] for group in trainer.optimizer.param_groups for p in group["params"]}
    base = trainer.config.rate(0, 0)
    names = dict(trainer.model.named_parameters())
    assert len(rates) == len(names)
    for prefix, scale in (("heads.", 1), ("norm.", 1), ("blocks.1.", 0.5), ("blocks.0.", 0.25), ("pos_embed", 0.125)):
        assert {rates[id(p)] for name, p in names.items() if name.startswith(prefix)} == {base * scale}


def test_a_resumed_run_with_everything_equals_an_uninterrupted_one(tmp_path):
    options = {"ema": 0.9, "augment": "strong", "mix": 0.5, "class_balance": 0.5, "layer_decay": 0.8, "drop_path": 0.1}
    config = TrainConfig("small", steps=4, **options, **PHOTOS)

    def steps(trainer, count):
        data = trainer.prepared(photos())
        for _ in range(count):
            losses = trainer.train_step(data)
        return losses

    whole = Trainer(config)
    assert all(np.isfinite(loss) for loss in steps(whole, 4).values())
    first, second = Trainer(config), Trainer(config)
    steps(first, 2)
    first.save(tmp_path / "checkpoint.safetensors")
    second.load(tmp_path / "checkpoint.safetensors")
    steps(second, 2)
    for model, other in ((whole.model, second.model), (whole.best_model, second.best_model)):
        for name, value in model.state_dict().items():
            assert torch.equal(value, other.state_dict()[name]), name
    assert not torch.equal(whole.best_model.norm.weight, whole.model.norm.weight)
    export(whole, tmp_path / "x.safetensors", {}, 1)
    assert torch.equal(load_weights(tmp_path / "x.safetensors").norm.weight, whole.best_model.norm.weight)


def test_the_average_follows_slowly():
    trainer = Trainer(TrainConfig("small", ema=0.99, **PHOTOS))
    data = trainer.prepared(photos())
    before = trainer.average.model.cls_token.clone()
    trainer.train_step(data)
    expected = 0.1 * before + 0.9 * trainer.model.cls_token  # the first step counts most
    assert torch.allclose(trainer.average.model.cls_token, expected)


def test_weights_of_another_shape_are_taken(tmp_path, monkeypatch):
    """A larger picture and another head: position embeddings are resampled, the head starts anew."""
    source = Trainer(TrainConfig("small", tasks="segmentation", batch=2))
    export(source, tmp_path / "a.safetensors", {}, 1)
    wide = to_train(*SMALL.tasks)
    object.__setattr__(wide, "image_width", 64)
    torch.manual_seed(7)
    model = M3ViT(wide)
    take_weights(model, tmp_path / "a.safetensors")
    own = source.model.state_dict()
    assert torch.equal(model.blocks[1].moe.w1, own["blocks.1.moe.w1"])
    assert torch.equal(model.pos_embed[0], own["pos_embed"][0])
    narrow = own["pos_embed"][1:].view(2, 4, -1)
    resampled = model.pos_embed[1:].view(2, 8, -1)
    expected = torch.nn.functional.interpolate(
        narrow.permute(2, 0, 1)[None], (2, 8), mode="bicubic", antialias=True, align_corners=False
    )[0].permute(1, 2, 0)
    assert torch.allclose(resampled, expected, atol=1e-5)
    assert torch.equal(model.heads["segmentation"].weight, own["heads.segmentation.weight"])
    many = Trainer(TrainConfig("small", init=str(tmp_path / "a.safetensors"), head_hidden=5, cells=2, **PHOTOS))
    assert many.model.heads["segmentation"].fc2.weight.shape == (2 * 2 * 11, 5)
    assert torch.equal(many.model.blocks[0].mlp.fc1.weight, own["blocks.0.mlp.fc1.weight"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"augment": "wild"}, r"augment must be one of \['light', 'strong'\], not 'wild'"),
        ({"augment": "strong"}, "augment must be light to train edges on scenes, not 'strong'"),
        ({"ema": 1.0}, "ema must be at least 0 and below 1, not 1.0"),
        ({"drop_path": -0.1}, "drop_path must be at least 0 and below 1, not -0.1"),
        ({"layer_decay": 0.0}, "layer_decay must be above 0 and at most 1, not 0.0"),
        ({"mix": 1.5}, r"mix must be in 0..1, not 1.5"),
        ({"zoom": 0.5}, r"zoom must be in 1..8, not 0.5"),
        ({"head_hidden": -2}, "head_hidden must be at least -1, not -2"),
        ({"cells": -1}, "cells must be at least 0, not -1"),
        ({"workers": 2, "data": "camvid"}, "workers must be 0 with data 'camvid': they generate scenes"),
    ],
)
def test_refusals(options, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig("small", **options)


def test_labels_of_their_own_size_and_the_test_split(tmp_path):
    """Outputs are upsampled once to the labels' size; more is told where it is asked for."""
    from edgemoe_models.train.loop import measure
    from support.camvid_tree import make_camvid

    make_camvid(tmp_path / "camvid", 24, 40)
    trainer = Trainer(TrainConfig("small", **PHOTOS))
    export(trainer, tmp_path / "x.safetensors", {}, 1)
    options = {"data_root": str(tmp_path / "camvid"), "split": "test", "details": True} | PHOTOS
    small = measure(TrainConfig("small", **options), tmp_path / "x.safetensors", tmp_path)
    whole = measure(TrainConfig("small", label_size="24x40", **options), tmp_path / "x.safetensors", tmp_path)
    assert set(small["segmentation"]) == set(whole["segmentation"]) >= {"class_accuracy", "boundary_f1", "iou_10"}
    assert small != whole
    with pytest.raises(ValueError, match="label_size must be HEIGHTxWIDTH, as 192x256, not '192'"):
        TrainConfig("small", label_size="192")
