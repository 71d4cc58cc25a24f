import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from safetensors import safe_open  # noqa: E402
from safetensors.numpy import save_file  # noqa: E402

from edgemoe_models.config import PRESETS, ModelConfig, TaskConfig  # noqa: E402
from edgemoe_models.train.config import TrainConfig  # noqa: E402
from edgemoe_models.train.data import augment  # noqa: E402
from edgemoe_models.train.loop import measure, run  # noqa: E402
from edgemoe_models.train.losses import distillation_loss, task_loss  # noqa: E402
from edgemoe_models.train.trainer import Trainer, export, load_weights, score  # noqa: E402
from edgemoe_models.trained_weights import weights_path  # noqa: E402
from support.small_models import to_train  # noqa: E402

SMALL = to_train(
    *(
        TaskConfig(kind, kind, channels=channels, cells=8)
        for kind, channels in (("segmentation", 8), ("depth", 1), ("normals", 3), ("edges", 1))
    )
)
OPTIONS = {"batch": 2, "train_scenes": 6, "val_scenes": 4, "warmup": 1}


@pytest.fixture(autouse=True)
def small_preset(monkeypatch):
    monkeypatch.setitem(PRESETS, "small", SMALL)


def test_a_short_run_writes_everything(tmp_path):
    torch.set_num_threads(1)  # as the command line does: sums depend on how they are divided
    metrics = run(TrainConfig("small", steps=2, **OPTIONS), tmp_path / "out", tmp_path / "cache", False)
    assert set(metrics) == {"segmentation", "depth", "normals", "edges"}
    assert all(np.isfinite(value) for task in metrics.values() for value in task.values())
    with safe_open(tmp_path / "out" / "small.safetensors", "np") as file:
        metadata = file.metadata()
    assert ModelConfig.from_json(metadata["config"]) == SMALL
    assert json.loads(metadata["metrics"]) == metrics
    assert (metadata["steps"], metadata["seed"]) == ("2", "1")
    path = tmp_path / "out" / "small.safetensors"
    assert measure(TrainConfig("small", val_scenes=4), path, tmp_path / "cache") == metrics
    model = load_weights(path)
    assert model(torch.zeros(1, 3, 16, 32), "depth").shape == (1, 1, 16, 32)


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path):
    config = TrainConfig("small", steps=4, **OPTIONS)
    rng = np.random.default_rng(0)
    data = {
        "image": rng.integers(0, 256, (6, 16, 32, 3), np.uint8),
        "segmentation": rng.integers(0, 8, (6, 16, 32), np.uint8),
        "depth": rng.integers(0, 10001, (6, 16, 32)).astype(np.uint16),
        "normals": rng.integers(-127, 128, (6, 16, 32, 3)).astype(np.int8),
        "edges": rng.random((6, 16, 32)) < 0.2,
    }
    whole = Trainer(config)
    for _ in range(4):
        whole.train_step(data)
    first = Trainer(config)
    for _ in range(2):
        first.train_step(data)
    first.save(tmp_path / "checkpoint.safetensors")
    second = Trainer(config)
    second.load(tmp_path / "checkpoint.safetensors")
    for _ in range(2):
        second.train_step(data)
    assert second.step == 4
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, second.model.state_dict()[name]), name


def test_resume_refuses_another_model(tmp_path):
    Trainer(TrainConfig("small", **OPTIONS)).save(tmp_path / "checkpoint.safetensors")
    with pytest.raises(
        ValueError,
        match="it must be of m3vit-micro, not of small with another name, image_height",
    ):
        Trainer(TrainConfig("m3vit-micro", **OPTIONS)).load(tmp_path / "checkpoint.safetensors")


def rewrite(path, change):
    """Write a file again with changed tensors and metadata."""
    with safe_open(path, "np") as file:
        metadata, tensors = dict(file.metadata()), {name: file.get_tensor(name) for name in file.keys()}
    change(tensors, metadata)
    save_file(tensors, path, metadata)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, m: m.pop("state"), "'state'"),
        (lambda t, m: m.pop("config"), "'config'"),
        (lambda t, m: m.update(config="[" * 100_000), "must be JSON text"),
        (lambda t, m: m.update(state="[" * 100_000), "deep within each other"),
        (lambda t, m: m.update(state=m["state"].replace('"step": 0', '"step": true')), "step must be an integer"),
        (lambda t, m: t.pop("random.data"), "'random.data'"),
        (lambda t, m: t.update({"random.data": np.zeros(3, np.uint8)}), "RNG state"),
        (lambda t, m: t.pop("model.cls_token"), "it lacks 1 tensors: cls_token"),
        (lambda t, m: t.update({"model.more": np.zeros(3)}), "it has 1 tensors of another model: more"),
        (lambda t, m: t.update({"model.cls_token": np.zeros(3)}), r"cls_token must have the shape \[16\], not \[3\]"),
        (lambda t, m: t.update({"optimizer.x.step": np.zeros(3)}), "invalid literal"),
        (lambda t, m: t.update({"optimizer.1": np.zeros(3)}), "not enough values"),
    ],
)
def test_a_damaged_checkpoint_is_one_line(tmp_path, change, message):
    trainer, path = Trainer(TrainConfig("small", **OPTIONS)), tmp_path / "checkpoint.safetensors"
    trainer.save(path)
    trainer.load(path)
    rewrite(path, change)
    with pytest.raises(
        ValueError, match=f"checkpoint.safetensors: not a checkpoint of a training run .*{message}"
    ) as it:
        trainer.load(path)
    assert "\n" not in str(it.value)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ValueError, match="checkpoint.safetensors: not a readable safetensors file"):
        trainer.load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda c: c.update(depth=200, dim=8192, heads=1),
            "cls_token must have the shape",
        ),  # nothing of that is allocated
        (lambda c: c.update(depth=10**9), "depth must be at most"),
    ],
)
def test_weights_are_held_against_their_config_first(tmp_path, change, message):
    trainer, path = Trainer(TrainConfig("small", **OPTIONS)), tmp_path / "x.safetensors"
    export(trainer, path, {}, 1)
    load_weights(path)

    def changed(tensors, metadata):
        config = json.loads(metadata["config"])
        change(config)
        metadata["config"] = json.dumps(config)

    rewrite(path, changed)
    with pytest.raises(ValueError, match=f"x.safetensors: .*{message}"):
        load_weights(path)


def test_a_model_learns_one_scene(tmp_path):
    config = TrainConfig("small", steps=80, batch=4, learning_rate=1e-2, warmup=5)
    run(TrainConfig("small", steps=1, **(OPTIONS | {"train_scenes": 1})), tmp_path / "out", tmp_path, False)
    data = {file.stem: np.load(file) for file in next(tmp_path.glob("train-*")).glob("*.npy")}
    trainer = Trainer(config)
    losses = [trainer.train_step(data) for _ in range(80)]
    for task in ("segmentation", "depth"):
        assert losses[-1][task] < 0.6 * losses[0][task]


def test_learning_rate_warms_up_and_falls():
    config = TrainConfig("small", learning_rate=1.0, warmup=10)
    assert config.rate(0, 0.0) == pytest.approx(0.1)
    assert config.rate(9, 0.0) == pytest.approx(1.0)
    assert config.rate(500, 0.5) == pytest.approx(0.505)
    assert config.rate(999, 1.0) == pytest.approx(0.01)


def test_losses_of_perfect_outputs_are_nil():
    tasks = {task.kind: task for task in SMALL.tasks}
    depth = torch.full((1, 2, 2), 2500, dtype=torch.int32)
    assert task_loss(torch.full((1, 1, 2, 2), 0.25), depth, tasks["depth"]) == 0
    normals = torch.tensor([0, 0, 127], dtype=torch.int8).expand(1, 2, 2, 3)
    assert task_loss(normals.permute(0, 3, 1, 2).float(), normals, tasks["normals"]) < 1e-6
    edges = torch.tensor([[[True, False]]])
    assert task_loss(torch.tensor([[[[50.0, -50.0]]]]), edges, tasks["edges"]) < 1e-6


@pytest.mark.parametrize(
    ("kind", "channels"),
    [("segmentation", 5), ("classification", 5), ("depth", 1), ("normals", 3), ("edges", 1)],
)
def test_distillation_ends_where_the_outputs_are_equal(kind, channels):
    """There it is 0 and has no gradient; elsewhere it leads there."""
    task = TaskConfig(kind, kind, channels)
    generator = torch.Generator().manual_seed(1)
    size = (2, channels) if kind == "classification" else (2, channels, 3, 4)
    target, other = torch.randn(2, *size, generator=generator)
    same = target.clone().requires_grad_()
    loss = distillation_loss(same, target, task)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6) and same.grad.abs().max() < 1e-7
    losses = []
    for _ in range(3):
        other = other.detach().requires_grad_()
        loss = distillation_loss(other, target, task)
        loss.backward()
        losses.append(loss.item())
        other = other - other.grad
    assert losses[0] > losses[1] > losses[2] > 0


def test_augmentation_keeps_image_and_label_together():
    label = torch.arange(60, 68, dtype=torch.uint8).expand(64, 1, 8)
    images = label[:, None].float().expand(64, 3, 1, 8) / 256
    changed, mirrored = augment(images, label, torch.Generator().manual_seed(0), "segmentation")
    assert 16 < (mirrored != label).any(2).sum() < 48
    assert changed.min() >= 0 and changed.max() < 1
    for image, row in zip(changed, mirrored, strict=True):
        assert torch.equal(image[0, 0].argsort(), row[0].argsort())
    normals = torch.zeros(64, 1, 2, 3, dtype=torch.int8)
    normals[:, :, 0] = torch.tensor([100, 20, -70], dtype=torch.int8)
    _, turned = augment(torch.zeros(64, 3, 1, 2), normals, torch.Generator().manual_seed(0), "normals")
    assert {tuple(row) for row in turned[:, 0, 1].tolist()} == {(0, 0, 0), (-100, 20, -70)}


def test_score_prefers_better_metrics():
    good = {"s": {"miou": 0.6, "pixel_accuracy": 0.1}, "d": {"rmse": 0.5, "abs_rel": 1.0}}
    bad = {"s": {"miou": 0.6, "pixel_accuracy": 0.9}, "d": {"rmse": 0.9, "abs_rel": 0.0}}
    assert score(good) > score(bad)


def test_committed_weights_are_of_the_preset():
    path = weights_path("m3vit-micro")
    with safe_open(path, "np") as file:
        metadata = file.metadata()
        assert metadata is not None
        values = [file.get_tensor(key) for key in file.keys()]
    assert ModelConfig.from_json(metadata["config"]) == PRESETS["m3vit-micro"]
    assert all(np.isfinite(value).all() for value in values)
    assert json.loads(metadata["metrics"])["segmentation"]["miou"] > 0.5
    load_weights(path)
