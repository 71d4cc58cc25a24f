"""``edgemoe train``: options of the command line and of a file, refusals, several processes."""

import json
import os
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")

from safetensors import safe_open  # noqa: E402

from edgemoe_models.config import PRESETS, ModelConfig, TaskConfig  # noqa: E402

ALL = "segmentation,depth,normals,edges"
SMALL = ModelConfig(
    name="small",
    image_height=16,
    image_width=32,
    patch=8,
    dim=16,
    depth=2,
    heads=2,
    mlp_hidden=24,
    num_experts=4,
    top_k=2,
    expert_hidden=12,
    tasks=(
        TaskConfig("segmentation", "segmentation", channels=8, head_hidden=20, cells=8),
        TaskConfig("depth", "depth", channels=1, head_hidden=20, cells=8),
    ),
)


@pytest.fixture(autouse=True)
def small_preset(monkeypatch):
    monkeypatch.setitem(PRESETS, "small", SMALL)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_options_of_a_file_yield_to_the_command_line(edgemoe, tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"preset": "small", "tasks": "edges", "steps": 9, "batch": 2}))
    common = ["--train-scenes", 3, "--val-scenes", 2, "--cache", tmp_path, "--out", tmp_path]
    text = edgemoe.ok("train", "--config", tmp_path / "run.json", "--steps", 1, "--tensorboard", *common)
    assert json.loads(text).keys() == {"edges"}
    with safe_open(tmp_path / "small.safetensors", "np") as file:
        train = json.loads(file.metadata()["train"])
    assert (train["tasks"], train["steps"], train["batch"], train["learning_rate"]) == ("edges", 1, 2, 1e-3)
    (events,) = (tmp_path / "tensorboard").iterdir()
    assert b"edges/f1" in events.read_bytes()


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib came with Python 3.11")
def test_options_of_a_toml_file(edgemoe, tmp_path):
    (tmp_path / "run.toml").write_text('preset = "small"\nsteps = 0\n')
    edgemoe("train", "--config", tmp_path / "run.toml").refused("steps must be at least 1, not 0")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", '{"stpes": 3}', ("a.json must have keys among ", "not ['stpes']")),
        ("a.json", "[]", ("a.json must have keys among ", "not []")),
        ("a.json", "{", ("a.json must be TOML, or JSON with a name that ends in .json: ",)),
        ("a.toml", "steps = ", ("a.toml must be TOML, or JSON",)),
        ("a.json", '{"steps": "3"}', ("steps must be of type int, not '3'",)),
        ("a.json", '{"steps": true}', ("steps must be of type int, not True",)),
    ],
)
def test_refusals_of_a_file(edgemoe, name, text, message, tmp_path):
    (tmp_path / name).write_text(text)
    edgemoe("train", "--config", tmp_path / name).refused(*message)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--preset vgg", ("preset must be one of ", "not 'vgg'")),
        ("--preset deit-tiny", ("preset must have dense tasks only to be trained on scenes, not 'deit-tiny'",)),
        ("--steps 0", ("steps must be at least 1, not 0",)),
        ("--minutes -1", ("minutes must be at least 0, not -1.0",)),
        ("--resume --out nowhere", ("nowhere/checkpoint.safetensors",)),
        ("--tasks depth,colour", ("tasks of scenes must be among ", "not ['colour']")),
        ("--tasks depth,depth", ("must have different names, not ['depth', 'depth']",)),
        ("--preset small --tasks-per-step 3", ("tasks_per_step must be at most the tasks' number 2, not 3",)),
        ("--precision int8", ("precision must be one of ['float32', 'bfloat16', 'float16'], not 'int8'",)),
        ("--device cuda", ("device must be cpu or auto, not cuda: PyTorch finds no GPU here",)),
        ("--init no/such.safetensors", ("no/such.safetensors",)),
    ],
)
def test_refusals(edgemoe, arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    edgemoe("train", *arguments.split()).refused(*message)


def test_what_is_no_number(edgemoe):
    edgemoe("train", "--steps", "many").refused("'--steps'", "(edgemoe train --help)", code=2)
    edgemoe("train", "--stpes", 3).refused("--stpes", "(edgemoe train --help)", code=2)


def test_every_option_has_its_help(edgemoe):
    text = edgemoe.ok("train", "--help")
    for option in ("--learning-rate", "--evaluate-minutes", "--tensorboard", "--data-root", "--threads"):
        assert option in text
    assert max(map(len, text.splitlines())) <= 80


def test_an_output_that_cannot_be_written(edgemoe, tmp_path):
    """Before any scene is made."""
    (tmp_path / "file").write_text("x")
    edgemoe("train", "--preset", "small", "--out", tmp_path / "file").refused("cannot be a folder", "is a file")


def test_m3vit_tiny_takes_two_steps(edgemoe, tmp_path):
    """The command for a GPU (docs/models.md) with everything that makes it long taken small."""
    options = (
        "--preset m3vit-tiny --precision bfloat16 --tensorboard --steps 2 --batch 1 --train-scenes 2 --val-scenes 1"
    )
    few = ["--train-scenes", 2, "--val-scenes", 1, "--cache", tmp_path, "--out", tmp_path]
    edgemoe.ok("train", *options.split(), *few, "--tasks", ALL)
    with safe_open(tmp_path / "m3vit-tiny.safetensors", "pt") as file:
        assert file.metadata()["steps"] == "2"
        assert all(file.get_tensor(key).isfinite().all() for key in file.keys())


def test_under_torchrun(tmp_path):
    """As docs/models.md has it: two processes, one set of results."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    options = "--preset m3vit-micro --steps 1 --batch 2 --train-scenes 2 --val-scenes 1 --device cpu"
    done = subprocess.run(
        [*command, "-m", "edgemoe.cli", "train", *options.split(), "--cache", tmp_path, "--out", tmp_path / "out"],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout).keys() == {"segmentation", "depth", "normals", "edges"}
    assert (tmp_path / "out" / "m3vit-micro.safetensors").is_file()
