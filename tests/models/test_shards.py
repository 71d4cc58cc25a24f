"""Weights in several files: the first stands for all, for NumPy and for torch."""

import json

import numpy as np
import pytest

from edgemoe_models.checkpoint import CheckpointError, load_checkpoint
from edgemoe_models.config import ModelConfig, TaskConfig
from edgemoe_models.random_weights import random_state
from edgemoe_models.storage.shards import read_shards, shard_name, shard_paths, split_tensors, whole_name
from edgemoe_models.storage.tensor_file import TensorFileError, write_tensors
from support.small_models import to_train

MODEL = to_train(TaskConfig("segmentation", "segmentation", 3, cells=2, labels=("road", "sky", "größe")))


@pytest.fixture
def parts(tmp_path):
    """A checkpoint in three files, and its tensors."""
    state = random_state(MODEL, 0)
    runs = split_tensors({name: value.nbytes for name, value in state.items()}, 6000)
    assert len(runs) > 2 and [name for run in runs for name in run] == list(state)
    paths = [tmp_path / shard_name("big", number, len(runs)) for number in range(1, len(runs) + 1)]
    for path, names in zip(paths, runs, strict=True):
        write_tensors(path, {name: state[name] for name in names}, {"config": MODEL.to_json()})
    return paths, state


def test_names(tmp_path):
    first = tmp_path / "a-b-00001-of-00002.safetensors"
    assert shard_name("a-b", 1, 2) == first.name and whole_name(first) == "a-b.safetensors"
    assert shard_paths(first) == [first, tmp_path / "a-b-00002-of-00002.safetensors"]
    for other in ("a.safetensors", "a-1-of-2.safetensors", "a-00001-of-00002.graph.safetensors"):
        assert shard_paths(tmp_path / other) == [tmp_path / other] and whole_name(other) == other
    for wrong, message in (
        ("a-00002-of-00002", "part 2 of 2; give the first, a-00001-of-00002.safetensors"),
        ("a-00001-of-99999", "part 1 of 99999"),
    ):
        with pytest.raises(TensorFileError, match=message):
            shard_paths(tmp_path / f"{wrong}.safetensors")


def test_runs_of_tensors():
    assert split_tensors({"a": 3, "b": 3, "c": 9, "d": 1}, 6) == [["a", "b"], ["c"], ["d"]]
    assert split_tensors({}, 6) == []


def test_the_first_stands_for_all(parts):
    paths, state = parts
    found, config = load_checkpoint(paths[0])
    assert config == MODEL and config.tasks[0].labels == ("road", "sky", "größe")
    for name, value in state.items():
        np.testing.assert_array_equal(found[name], value)


def test_torch_reads_them(parts):
    torch = pytest.importorskip("torch")
    from edgemoe_models.train.trainer import load_weights

    paths, state = parts
    model = load_weights(paths[0])
    assert model.config == MODEL and torch.equal(model.norm.weight, torch.from_numpy(state["norm.weight"]))


def test_refused(parts):
    paths, state = parts
    with pytest.raises(CheckpointError, match=r"part 2 of \d+; give the first, big-00001-of"):
        load_checkpoint(paths[1])
    whole = paths[1].read_bytes()
    paths[1].write_bytes(whole[:-1])
    with pytest.raises(TensorFileError, match=f"its part {paths[1].name}: it has"):
        read_shards(paths[0])
    for metadata, tensors in (({"config": "{}"}, {"new": np.zeros(1)}), ({"config": MODEL.to_json()}, state)):
        write_tensors(paths[1], tensors, metadata)
        with pytest.raises(TensorFileError, match="is of another checkpoint; copy all parts again"):
            read_shards(paths[0])
    paths[1].unlink()
    with pytest.raises(CheckpointError, match=f"its part {paths[1].name} is missing; copy it beside the first"):
        load_checkpoint(paths[0])


def test_published(tmp_path):
    """What comes home from a lent GPU becomes parts with the classes' names and the notice, and without its paths."""
    torch = pytest.importorskip("torch")
    import publish_photos

    from edgemoe_models.storage.torch_tensors import read_torch, write_torch

    plain = to_train(TaskConfig("segmentation", "segmentation", 3), TaskConfig("edges", "edges", 1))
    metadata = {
        "config": plain.to_json(),
        "class_names": json.dumps(["a", "b", "c"]),
        "train": json.dumps({"data_root": "/dev/shm/x", "init": "/dev/shm/y/z.safetensors", "batch": 32}),
        "steps": "7",
    }
    state = {name: torch.from_numpy(value) for name, value in random_state(plain, 0).items()}
    write_torch(tmp_path / "photos.safetensors", state, metadata)
    paths = publish_photos.publish(tmp_path / "photos.safetensors", tmp_path / "out", "big", most=4000)
    assert len(paths) > 1 and all(path.stat().st_size < 12_000 for path in paths)
    found, told = read_torch(paths[0])
    assert all(torch.equal(found[name].float(), value.to(torch.bfloat16).float()) for name, value in state.items())
    config = ModelConfig.from_json(told["config"])
    assert (config.name, config.tasks[0].labels, config.tasks[1].labels) == ("big", ("a", "b", "c"), ())
    assert "/dev/shm" not in json.dumps(told) and "research use only" in told["notice"] and told["steps"] == "7"
