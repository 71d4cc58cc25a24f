"""The comparison command: one row a variant, losses against float, and refusals."""

import json

import pytest
import safetensors.numpy

from edgemoe_models.config import ModelConfig, TaskConfig
from edgemoe_models.random_weights import random_state
from edgemoe_models.studies.compare_ptq import COLUMNS, VARIANTS
from support.small_models import to_quantize

CONFIG = to_quantize(
    TaskConfig("segmentation", "segmentation", 8),
    TaskConfig("depth", "depth", 1, head_hidden=20),
    TaskConfig("normals", "normals", 3),
    TaskConfig("edges", "edges", 1),
)


def _checkpoint(path, config):
    safetensors.numpy.save_file(random_state(config), path, {"config": config.to_json()})
    return ["--model", path, "--cache", path.parent]


def test_table(edgemoe, tmp_path):
    out = tmp_path / "rows.json"
    arguments = _checkpoint(tmp_path / "small.safetensors", CONFIG)
    lines = edgemoe.ok("study", "ptq", *arguments, "--scenes", 2, "--json", out).splitlines()
    rows = json.loads(out.read_text())
    assert [row["precision"] for row in rows] == ["float", *(variant.name for variant in VARIANTS)]
    assert len({json.dumps(row["metrics"]) for row in rows}) == len(rows)  # every variant computes something else
    assert rows[0]["drop"] == dict.fromkeys(("segmentation", "depth", "normals", "edges"), 0)
    assert max(map(len, lines)) <= 80
    assert [line[:5].rstrip() for line in lines[1:5]] == ["", "float", "ours", "perce"]
    assert lines[2].count("(+0.00)") == 4


@pytest.mark.parametrize(
    ("kind", "better", "worse", "loss"),
    [("segmentation", 0.5, 0.49, 1.0), ("depth", 0.5, 0.51, 2.0), ("normals", 20, 21, 1), ("edges", 0.6, 0.5, 10)],
)
def test_losses(kind, better, worse, loss):
    assert COLUMNS[kind].loss(better, worse) == pytest.approx(loss)


@pytest.mark.parametrize("case", ["missing", "no labels", "too many"])
def test_refusals(edgemoe, tmp_path, case):
    task = TaskConfig("label", "classification", 4) if case == "no labels" else CONFIG.tasks[0]
    config = ModelConfig.from_dict(CONFIG.to_dict() | {"tasks": [vars(task)]})
    arguments = _checkpoint(tmp_path / "small.safetensors", config)
    if case == "missing":
        arguments = ["--model", tmp_path / "none"]
    messages = {"missing": "model must be a trained preset", "no labels": "no labels for label", "too many": "count of"}
    edgemoe("study", "ptq", *arguments, "--scenes", 1_000_000 if case == "too many" else 1).refused(messages[case])
