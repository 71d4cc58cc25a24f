"""The accuracy table, expert loads, packaged bundles and model cards, on a small random model with four tasks."""

import json
from pathlib import Path

import bundles as packaged
import model_card
import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

from edgemoe import workloads
from edgemoe.bundle import Bundle
from edgemoe.studies import accuracy, expert_load
from edgemoe.studies.accuracy import AccuracyOptions, accuracy_table, differing, drop, run_accuracy
from edgemoe.studies.expert_plot import draw_expert_load
from edgemoe_hw.spec.config import PRESETS as CONFIGS
from edgemoe_models.checkpoint import load_checkpoint
from edgemoe_models.config import PRESETS, ModelConfig, TaskConfig
from edgemoe_models.graph.file import read_graph, write_graph
from edgemoe_models.integer import reference
from edgemoe_models.ptq.quantize import calibration_images
from edgemoe_models.random_weights import random_state
from support.random_graphs import random_graph, small_model

TASKS = (
    TaskConfig("segmentation", "segmentation", channels=8, cells=2),
    TaskConfig("depth", "depth", 1, cells=2),
    TaskConfig("normals", "normals", 3, cells=2),
    TaskConfig("edges", "edges", 1, cells=2),
)
MODEL = ModelConfig(
    name="small",
    image_height=16,
    image_width=24,
    patch=8,
    dim=16,
    depth=2,
    heads=2,
    mlp_hidden=24,
    num_experts=3,
    top_k=2,
    expert_hidden=16,
    tasks=TASKS,
)
KEYS = {"model", "precision", "executor", "images", "metrics", "drop", "files"}


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """Float weights, and beside them the W8A8 files of a quantization-aware training that has not begun."""
    from edgemoe_models.qat import storage
    from edgemoe_models.qat.export import export
    from edgemoe_models.qat.initialize import from_float

    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    options = {"preset": "small", "init": "/some/where/x", "batch": 4}
    metadata = {
        "config": MODEL.to_json(),
        "train": json.dumps(options),
        "seed": "3",
        "steps": "1200",
        "train_seconds": "90.5",
    }
    safetensors.numpy.save_file(random_state(MODEL, 0), path, metadata)
    model = from_float(load_checkpoint(path)[0], MODEL, calibration_images(MODEL, 4)).eval()
    files = workloads.qat_files(path, "w8a8")
    storage.write(files.latent, model.state_dict(), metadata | storage.model_metadata(model.config))
    write_graph(export(model), files.graph)
    return path


@pytest.fixture(scope="module")
def measured(weights, tmp_path_factory) -> tuple[list[dict], list[str]]:
    """All rows and what is missing, the RTL on the smallest accelerator."""
    cache = tmp_path_factory.mktemp("scenes")
    options = AccuracyOptions(CONFIGS["tiny"], scenes=6, brevitas_images=3, rtl_images=2, cache=cache)
    rows: list[dict] = []
    missing = run_accuracy(weights, options, lambda what, share: None, rows.append)
    return rows, missing


def test_rows(measured):
    rows, missing = measured
    assert [(row["precision"], row["executor"], row["images"]) for row in rows] == [
        ("float32", "float (NumPy)", 6),
        ("PTQ W8A8", "integer reference", 6),
        ("PTQ W8A8", "RTL (Verilated)", 2),
        ("PTQ W4A8 experts", "integer reference", 6),
        ("PTQ W4A8 experts", "RTL (Verilated)", 2),
        ("QAT W8A8", "integer reference", 6),
        ("QAT W8A8", "Brevitas", 3),
        ("QAT W8A8", "RTL (Verilated)", 2),
    ]
    for row in json.loads(json.dumps(rows, allow_nan=False)):
        compared = {"equal", "differences"} if row["executor"] in ("Brevitas", "RTL (Verilated)") else set()
        assert set(row) - {"config", "tensors"} == KEYS | compared
        assert set(row["metrics"]) == set(row["drop"]) == {task.name for task in TASKS}
        assert row.get("equal", True) is True
    assert set(rows[0]["drop"].values()) == {0.0}
    assert differing(rows) == []
    (line,) = missing
    assert "QAT W4A8 experts: small-w4a8.graph.safetensors is missing" in line and "--expert-bits 4 --out" in line


def test_latent_weights_that_a_wheel_has_not(weights, tmp_path):
    """Their row is missing, and it is said where they are; the integer graph's rows are there."""
    graph = workloads.qat_files(weights, "w8a8").graph
    for path in (weights, graph):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    options = AccuracyOptions(CONFIGS["tiny"], scenes=1, brevitas_images=1, rtl_images=1, cache=tmp_path / "scenes")
    rows: list[dict] = []
    missing = run_accuracy(tmp_path / weights.name, options, lambda what, share: None, rows.append)
    assert ("QAT W8A8", "integer reference") in {(row["precision"], row["executor"]) for row in rows}
    assert "small-w8a8.safetensors is missing (those of the packaged models are in the repository" in missing[0]


def test_drop_is_against_float_on_the_same_scenes(measured):
    rows, _ = measured
    base, ptq = rows[0]["metrics"], rows[1]["metrics"]
    assert rows[1]["drop"] == pytest.approx(
        {
            "segmentation": 100 * (base["segmentation"]["miou"] - ptq["segmentation"]["miou"]),
            "depth": 100 * (ptq["depth"]["rmse"] / base["depth"]["rmse"] - 1),
            "normals": ptq["normals"]["mean_angle"] - base["normals"]["mean_angle"],
            "edges": 100 * (base["edges"]["f1"] - ptq["edges"]["f1"]),
        }
    )
    assert drop("edges", {"f1": 0.5}, {"f1": 0.4}) > 0 and drop("depth", {"rmse": 1.0}, {"rmse": 1.2}) > 0


def test_a_difference_is_found(weights, measured, tmp_path):
    def zeros(task, images):
        return np.zeros((len(images), MODEL.num_patches, MODEL.task(task).head_outputs), np.int64)

    options = AccuracyOptions(CONFIGS["tiny"], scenes=1, brevitas_images=1, cache=tmp_path)
    study = accuracy.Study(weights, options, lambda what, share: None, brevitas=lambda path: zeros)
    files = workloads.qat_files(weights, "w8a8")
    row = study.brevitas_row(files, read_graph(files.graph))
    assert row["equal"] is False and row["differences"] > 0
    assert differing([row]) == [f"QAT W8A8 on Brevitas: {row['differences']:,} values"]
    assert "NOT equal" in accuracy.summary(row)


def test_graph_of_other_weights(weights, tmp_path):
    for path in weights.parent.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    write_graph(random_graph(small_model(tasks=TASKS)), tmp_path / "small-w8a8.graph.safetensors")
    options = AccuracyOptions(CONFIGS["tiny"], scenes=1, rtl_images=1, brevitas_images=1, cache=tmp_path)
    with pytest.raises(ValueError, match="is of another model than small.safetensors; make it again with: edgemoe qat"):
        run_accuracy(tmp_path / "small.safetensors", options, lambda what, share: None, lambda row: None)


def test_command(edgemoe, measured, weights, monkeypatch, tmp_path):
    rows, missing = measured

    def replay(path, options, track, done):
        for row in rows:
            done(row)
        return missing

    monkeypatch.setattr(accuracy, "run_accuracy", replay)
    done = edgemoe("accuracy", "--model", weights, "--json", tmp_path / "new" / "accuracy.json")
    assert done.code == 0 and "missing: QAT W4A8" in done.out
    assert json.loads((tmp_path / "new" / "accuracy.json").read_text()) == json.loads(json.dumps(rows))
    monkeypatch.setattr(accuracy, "differing", lambda rows: ["QAT W8A8 on Brevitas: 7 values"])
    edgemoe("accuracy", "--model", weights, "--json", tmp_path / "x.json").failed("differ", "7 values")
    edgemoe("accuracy", "--model", "m3vit-tiny").refused("no trained weights", "--preset m3vit-tiny")
    edgemoe("accuracy", "--model", "none").refused("m3vit-micro", "not 'none'")
    assert [row[0] for row in accuracy_table(rows).rows if not isinstance(row, str)] == [
        f"  {row['executor'].split()[0]}" for row in rows
    ]


def test_packaged_graphs_have_names(edgemoe, weights, monkeypatch, tmp_path):
    monkeypatch.setattr(workloads, "weights_path", lambda name: weights.with_name(f"{name}.safetensors"))
    monkeypatch.chdir(tmp_path)
    assert edgemoe("compile", "--model", "small-w8a8", "--config", "tiny").code == 0
    (path,) = (tmp_path / "build").iterdir()
    assert path.name == "small-w8a8-tiny.emoe"
    assert bytes(Bundle.load(path).graph_file) == workloads.qat_files(weights, "w8a8").graph.read_bytes()
    assert edgemoe("expert-load", "--model", "small-w8a8", "--scenes", 2).code == 0
    statistics = json.loads((tmp_path / "build" / "expert_load.json").read_text())
    assert (statistics["precision"], statistics["images"]) == ("QAT W8A8", 2)
    assert workloads.best_model("small") == "small-w8a8" and workloads.best_model("other") == "other"
    edgemoe("compile", "--model", "small-w4a8").refused("small-w8a8", "not 'small-w4a8'")


def test_latent_weights_are_no_model(weights):
    latent = workloads.qat_files(weights, "w8a8").latent
    with pytest.raises(ValueError, match="latent weights .* small-w8a8.graph.safetensors"):
        workloads.load_graph(str(latent))


# Expert loads


def test_load_statistics():
    counts = np.array([[4, 4, 0, 0], [2, 6, 0, 0]])
    found = expert_load.load_statistics(counts)
    assert found["share"] == [6 / 16, 10 / 16, 0, 0] and found["unused"] == [2, 3]
    assert found["busiest_over_mean"] == 2.5 and found["image_busiest_over_mean"] == (2 + 3) / 2
    assert found["image_unused"] == 2 and found["entropy_bits"] == pytest.approx(0.9544, abs=1e-4)
    assert expert_load.load_statistics(np.full((3, 8), 5))["entropy_bits"] == 3.0


def test_loads_are_the_queues(rng, tmp_path):
    model = small_model(tasks=TASKS)
    graph = random_graph(model)
    images = rng.integers(0, 256, (2, model.image_height, model.image_width, 3), np.uint8)
    found = expert_load.measure_expert_load(graph, images)
    queues = {task.name: [] for task in TASKS}
    for image in images:
        for name, lists in queues.items():
            trace: dict = {}
            reference.run(graph, image, name, trace)
            lists.append([set(queue.tolist()) for queue in trace["blocks.1.queues"]])
    (block,) = found["blocks"]
    visits = 2 * model.num_tokens * model.top_k
    for name, load in block["tasks"].items():
        tokens = [sum(len(image[e]) for image in queues[name]) for e in range(model.num_experts)]
        assert load["share"] == [count / visits for count in tokens]
    common = sum(
        len(a & b)
        for one, two in zip(queues["segmentation"], queues["edges"], strict=True)
        for a, b in zip(one, two, strict=True)
    )
    assert block["pairs"]["segmentation/edges"]["same_experts"] == common / visits
    assert len(block["pairs"]) == 6
    draw_expert_load(found, tmp_path / "new" / "load.png")
    with Image.open(tmp_path / "new" / "load.png") as picture:
        assert picture.width > picture.height > 400


def test_loads_of_a_model_without_experts():
    model = small_model(num_experts=0, top_k=0, expert_hidden=0)
    with pytest.raises(ValueError, match="has no experts"):
        expert_load.measure_expert_load(random_graph(model), np.zeros((1, 12, 16, 3), np.uint8))


# What the repository holds


def test_bundles_are_of_the_packaged_graphs():
    assert packaged.stale_bundles() == [], f"run: {packaged.COMMAND}"


def test_stale_bundles(weights, tmp_path):
    graphs = {"small-w8a8": workloads.qat_files(weights, "w8a8").graph}
    (path,) = packaged.write_bundles(tmp_path, graphs)
    assert packaged.stale_bundles(tmp_path, graphs) == []
    path.write_bytes(path.read_bytes()[:-1])
    (tmp_path / "other.emoe").write_bytes(b"")
    assert packaged.stale_bundles(tmp_path, graphs) == [
        "other.emoe has no integer graph in the package",
        f"{path.name} is out of date",
    ]
    path.unlink()
    assert f"{path.name} is missing" in packaged.stale_bundles(tmp_path, graphs)


@pytest.mark.parametrize("name", PRESETS)
def test_model_cards_are_up_to_date(name):
    assert model_card.card_problems(name) == [], "run: make accuracy, then python tools/model_card.py"


def test_card(weights, measured, monkeypatch, tmp_path):
    monkeypatch.setattr(model_card, "weights_path", lambda name: weights)
    results, folder = tmp_path / "build", tmp_path / "cards"
    results.mkdir()
    with pytest.raises(ValueError, match="no results .* run make accuracy"):
        model_card.update_card("small", results, folder)
    graph = read_graph(workloads.qat_files(weights, "w8a8").graph)
    loads = {"precision": "QAT W8A8"} | expert_load.measure_expert_load(graph, calibration_images(MODEL, 2))
    (results / "accuracy.json").write_text(json.dumps(measured[0]))
    (results / "expert_load.json").write_text(json.dumps(loads))
    draw_expert_load(loads, results / "expert_load.png")
    card = model_card.update_card("small", results, folder)
    text = card.read_text()
    for part in (
        "1,200 steps in 2 minutes, seed 3; preset small, init x, batch 4",
        "| QAT W8A8 | Brevitas | 3 |",
        "for semantic segmentation, depth, surface normals and edges",
        "## Limits",
    ):
        assert part in text
    assert "/some" not in text and model_card.card_problems("small", folder) == []
    card.write_text(text.replace("Brevitas | 3", "Brevitas | 4"))
    assert model_card.card_problems("small", folder) == ["small.md is not what its figures and files give"]
    rows = json.loads(json.dumps(measured[0]))
    rows[0]["files"]["small.safetensors"] = "0" * 16
    (results / "accuracy.json").write_text(json.dumps(rows))
    with pytest.raises(ValueError, match=r"small.safetensors is not the file whose accuracy was measured"):
        model_card.update_card("small", results, folder)
