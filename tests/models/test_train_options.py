import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from edgemoe_models.config import PRESETS, TaskConfig  # noqa: E402
from edgemoe_models.train.config import TrainConfig  # noqa: E402
from edgemoe_models.train.logs import Log  # noqa: E402
from edgemoe_models.train.losses import task_loss  # noqa: E402
from edgemoe_models.train.trainer import Trainer  # noqa: E402
from support.small_models import to_train  # noqa: E402

ALL = "segmentation,depth,normals,edges"
SMALL = to_train(
    TaskConfig("segmentation", "segmentation", channels=8, head_hidden=20, cells=8),
    TaskConfig("depth", "depth", channels=1, head_hidden=20, cells=8),
)


@pytest.fixture(autouse=True)
def small_preset(monkeypatch):
    monkeypatch.setitem(PRESETS, "small", SMALL)
    torch.set_num_threads(1)


def random_data(count=6):
    rng = np.random.default_rng(0)
    return {
        "image": rng.integers(0, 256, (count, 16, 32, 3), np.uint8),
        "segmentation": rng.integers(0, 8, (count, 16, 32), np.uint8),
        "depth": rng.integers(0, 10001, (count, 16, 32)).astype(np.uint16),
        "normals": rng.integers(-127, 128, (count, 16, 32, 3)).astype(np.int8),
        "edges": rng.random((count, 16, 32)) < 0.2,
    }


def own_parameters(model, task):
    """Gates and head of a task."""
    return {name: p for name, p in model.named_parameters() if f"gate.{task}" in name or f"heads.{task}." in name}


@pytest.mark.parametrize("tasks", ["depth", "edges,segmentation", "normals,depth,edges", ALL])
def test_tasks_replace_the_presets_and_keep_its_heads(tasks):
    config = TrainConfig("small", tasks=tasks, batch=2)
    model = config.model_config
    assert [task.kind for task in model.tasks] == tasks.split(",")
    assert {(task.head_hidden, task.cells) for task in model.tasks} == {(20, 8)}
    losses = Trainer(config).train_step(random_data())
    assert set(losses) == {"balance", *tasks.split(",")}
    assert all(np.isfinite(value) for value in losses.values())


def test_a_step_of_one_task_leaves_the_others_untouched():
    trainer = Trainer(TrainConfig("small", tasks=ALL, tasks_per_step=1, batch=2, warmup=1))
    trainer.train_step(random_data())  # all states of the optimizer's that a step could use exist after a few
    for _ in range(8):
        before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
        losses = trainer.train_step(random_data())
        (trained,) = set(losses) - {"balance"}
        for task in ALL.split(","):
            for name, p in own_parameters(trainer.model, task).items():
                if task == trained:
                    assert p.grad.abs().sum() > 0 and not torch.equal(p, before[name]), name
                else:
                    assert p.grad is None and torch.equal(p, before[name]), name


def test_every_task_is_drawn():
    trainer = Trainer(TrainConfig("small", tasks=ALL, tasks_per_step=2, batch=1))
    drawn = [frozenset(task.kind for task in trainer.drawn_tasks()) for _ in range(60)]
    assert len(set(drawn)) == 6


def test_inference_of_one_task_never_reads_the_others():
    model = Trainer(TrainConfig("small", tasks=ALL)).model.eval()
    images = torch.rand(2, 3, 16, 32)
    expected = {task: model(images, task) for task in ALL.split(",")}
    for task in expected:
        kept = {name: p.detach().clone() for name, p in model.named_parameters()}
        with torch.no_grad():
            for other in set(expected) - {task}:
                for p in own_parameters(model, other).values():
                    p.fill_(torch.nan)
            assert torch.equal(model(images, task), expected[task])
        model.load_state_dict(kept)


@pytest.mark.parametrize(("kind", "missing"), [("segmentation", 255), ("depth", 0), ("normals", 0)])
def test_pixels_without_a_label_have_no_loss(kind, missing):
    task = TrainConfig("small", tasks=ALL).model_config.task(kind)
    label = {name: torch.from_numpy(value.astype(np.int32)) for name, value in random_data(2).items()}[kind]
    output = torch.randn(2, task.channels, 16, 32, requires_grad=True)
    label[:, :8] = missing
    task_loss(output, label, task).backward()
    assert output.grad[:, :, :8].abs().max() == 0 < output.grad[:, :, 8:].abs().max()
    assert task_loss(output, torch.full_like(label, missing), task) == 0


def test_depth_counts_in_shares_of_the_data_sets_end():
    task = SMALL.task("depth")
    label = torch.full((1, 2, 2), 40_000, dtype=torch.int32)
    wrong = torch.full((1, 1, 2, 2), 2.0)  # 20 m
    assert task_loss(wrong, label, task, far=50.0).item() == pytest.approx((20 - 0.25) / 5)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_mixed_precision_trains_alike(precision):
    trainer = Trainer(TrainConfig("small", tasks=ALL, batch=4, warmup=5, learning_rate=1e-2, precision=precision))
    losses = [trainer.train_step(random_data(1)) for _ in range(40)]
    assert all(p.dtype == torch.float32 for p in trainer.model.parameters())
    for task in ("segmentation", "depth"):
        assert losses[-1][task] < 0.8 * losses[0][task]
    reference = Trainer(TrainConfig("small", tasks=ALL, batch=4)).train_step(random_data(1))
    assert losses[0] == pytest.approx(reference, rel=0.05)


def test_without_noise_a_step_equals_an_evaluation():
    trainer = Trainer(TrainConfig("small", gate_noise=0.0))
    images = torch.rand(2, 3, 16, 32)
    expected = trainer.model.eval()(images, "depth")
    assert torch.equal(trainer.model.train()(images, "depth"), expected)
    assert torch.isfinite(trainer.model.balance_loss())


def test_tensorboard_without_its_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ValueError, match="tensorboard needs tensorboardX: pip install tensorboardX"):
        Log(tmp_path, ["depth"], True)


def test_a_checkpoint_keeps_the_scale_of_float16(tmp_path):
    config = TrainConfig("small", batch=2, precision="float16")
    trainer, resumed = Trainer(config), Trainer(config)
    for _ in range(3):
        trainer.train_step(random_data())
    trainer.save(tmp_path / "checkpoint.safetensors")
    resumed.load(tmp_path / "checkpoint.safetensors")
    assert resumed.scaler.state_dict() == trainer.scaler.state_dict() != Trainer(config).scaler.state_dict()
    assert resumed.train_step(random_data()) == trainer.train_step(random_data())
