"""Two processes that share a batch do what one does with the whole batch."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import load_file, save_file  # noqa: E402

from edgemoe_models.config import PRESETS, TaskConfig  # noqa: E402
from edgemoe_models.train.config import TrainConfig  # noqa: E402
from edgemoe_models.train.loop import run  # noqa: E402
from edgemoe_models.train.processes import Processes  # noqa: E402
from edgemoe_models.train.trainer import Trainer  # noqa: E402
from support.small_models import to_train  # noqa: E402

SMALL = to_train(TaskConfig("segmentation", "segmentation", channels=8, cells=8))
# Every pixel has a label of these two, so the mean over the batch is the mean of the shares' means. The balance loss
# and the noise are each process's own.
OPTIONS = {"tasks": "segmentation,edges", "batch": 6, "balance": 0.0, "gate_noise": 0.0, "warmup": 1, "steps": 2}
SMALL_DATA = {"train_scenes": 8, "val_scenes": 2}


def two_steps(processes):
    """State after two steps: the first step's gradients, the weights, the losses of this process's share."""
    rng = np.random.default_rng(0)
    data = {
        "image": rng.integers(0, 256, (8, 16, 32, 3), np.uint8),
        "segmentation": rng.integers(0, 8, (8, 16, 32), np.uint8),
        "edges": rng.random((8, 16, 32)) < 0.2,
    }
    trainer = Trainer(TrainConfig("small", **OPTIONS), processes)
    losses = [trainer.train_step(data)]
    state = {f"gradient.{name}": p.grad.clone() for name, p in trainer.model.named_parameters()}
    losses.append(trainer.train_step(data))
    state |= {f"weight.{name}": p.detach().clone() for name, p in trainer.model.named_parameters()}
    for task in ("segmentation", "edges"):
        state[f"loss.{task}"] = torch.tensor([step[task] for step in losses])
    return state


def work(out):
    """What each process of torchrun does."""
    PRESETS["small"] = SMALL
    torch.set_num_threads(1)
    processes = Processes.start("cpu")
    save_file(two_steps(processes), out / f"{processes.rank}.safetensors")
    metrics = run(TrainConfig("small", device="cpu", **OPTIONS, **SMALL_DATA), out / "run", out / "cache", False)
    assert bool(metrics) == processes.is_first


def test_two_processes_equal_one(tmp_path, monkeypatch):
    monkeypatch.setitem(PRESETS, "small", SMALL)
    torch.set_num_threads(1)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", __file__]
    paths = os.pathsep.join(sys.path)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    done = subprocess.run([*command, str(tmp_path)], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    first, second = (load_file(tmp_path / f"{rank}.safetensors") for rank in (0, 1))
    whole = two_steps(Processes())
    for name, expected in whole.items():
        if name.startswith("loss"):  # each process has the mean of its own three pictures
            assert not torch.equal(first[name], second[name])
            torch.testing.assert_close((first[name] + second[name]) / 2, expected, rtol=1e-5, atol=1e-6)
        else:
            assert torch.equal(first[name], second[name]), name
        if name.startswith("gradient"):
            torch.testing.assert_close(first[name], expected, rtol=1e-4, atol=1e-7)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["checkpoint.safetensors", "small.safetensors"]


def test_batches_that_cannot_be_shared_are_refused(monkeypatch):
    monkeypatch.setitem(PRESETS, "small", SMALL)
    with pytest.raises(ValueError, match=r"batch must be a multiple of the number of processes \(4\), not 6"):
        Trainer(TrainConfig("small", **OPTIONS), Processes(rank=0, count=4))


if __name__ == "__main__":
    work(Path(sys.argv[1]))
