"""Every CPU and GPU baseline computes the float model, says what it lacks, and is timed and compared."""

import dataclasses
import sys
import types

import numpy as np
import pytest

from edgemoe.extras import install_command
from edgemoe.studies.baselines import suite
from edgemoe.studies.baselines.measurement import Effort, measure
from edgemoe.studies.baselines.suite import BASELINES, SATURATES, Baseline, differing, measure_baseline
from edgemoe.studies.baselines.workload import Workload, activation_ranges, load_workload
from edgemoe_models import float_reference
from edgemoe_models.config import ACTIVATIONS, ModelConfig, TaskConfig
from edgemoe_models.datasets import scenes
from edgemoe_models.random_weights import random_images, random_state

EFFORT = Effort(warm_up_seconds=0.0, seconds=0.0, least_warm_up=1, least_runs=3)
CONFIG = ModelConfig(
    name="baseline-test",
    image_height=16,
    image_width=32,
    patch=8,
    dim=24,
    depth=2,
    heads=2,
    mlp_hidden=48,
    num_experts=4,
    top_k=2,
    expert_hidden=16,
    tasks=(
        TaskConfig("segmentation", "segmentation", channels=8, head_hidden=16, cells=4),
        TaskConfig("depth", "depth", channels=1, cells=2),
    ),
)
CPU = [b for b in BASELINES if b.device == "cpu"]


def make_workload(config=CONFIG, state=None, held_out=None):
    state = random_state(config, 3) if state is None else state
    images = random_images(config, 3)
    task = config.tasks[0].name
    return Workload(config, state, task, images, float_reference.forward(state, config, images, task), held_out)


@pytest.fixture(scope="module")
def workload():
    return make_workload()


def name(baseline):
    return f"{baseline.runtime} {baseline.device} {baseline.precision} {baseline.experts}".replace(" ", "-")


def with_slow_compile(baselines):
    return [
        pytest.param(b, id=name(b), marks=[pytest.mark.slow] if b.runtime == "torch.compile" else []) for b in baselines
    ]


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("baseline", with_slow_compile(CPU))
def test_cpu_baseline_computes_the_float_model(workload, baseline, batch):
    row = measure_baseline(baseline, workload, batch, 1, EFFORT)
    assert row["status"] == "ok"
    assert row["least_ms"] <= row["ms"] <= row["p90_ms"]
    assert row["batch_ms"] == pytest.approx(row["ms"] * batch)
    assert row["cpu_ms"] > 0 and row["runs"] >= 3
    assert row["energy_mj"] is None and row["energy"].startswith("not measured: ")
    if baseline.precision == "float32":
        assert row["equal"] and row["max_abs_difference"] < 1e-4 * row["largest_output"]
    else:
        assert row["int8_means"]
        if SATURATES not in row["int8_means"]:
            assert row["agreement"] > 0.8
            assert 0 < row["max_abs_difference"] < 0.5 * row["largest_output"]


@pytest.mark.parametrize("baseline", [pytest.param(b, id=name(b)) for b in CPU if b.runtime != "torch.compile"])
def test_expert_without_tokens_and_equal_logits(baseline):
    """Gates v, -v, 0, 0: a token takes one of the first two and, of the equal ones, the third; never the fourth."""
    state = random_state(CONFIG, 3)
    gate = np.zeros_like(state["blocks.1.moe.gate.segmentation"])
    gate[0] = 0.2 * np.random.default_rng(0).standard_normal(CONFIG.dim)
    gate[1] = -gate[0]
    workload = make_workload(state={**state, "blocks.1.moe.gate.segmentation": gate})
    observed = {}
    float_reference.forward(workload.state, CONFIG, workload.images, "segmentation", observed)
    first, second, third, fourth = (len(queue) for queue in observed["blocks.1.queues"])
    assert first + second == third == 3 * CONFIG.num_tokens and fourth == 0
    row = measure_baseline(baseline, workload, 2, 1, EFFORT)
    assert row["status"] == "ok" and (row.get("equal", True))
    if SATURATES not in row.get("int8_means", ""):
        assert row["agreement"] > 0.8


@pytest.mark.parametrize("kind", [kind for kind in ACTIVATIONS if kind != "gelu"])
def test_every_activation_in_float(kind):
    workload = make_workload(dataclasses.replace(CONFIG, activation=kind))
    for baseline in CPU:
        if baseline.precision == "float32" and baseline.runtime != "torch.compile":
            row = measure_baseline(baseline, workload, 1, 1, EFFORT)
            assert row["status"] == "ok" and row["equal"], row


def test_model_without_experts_and_with_classes():
    config = dataclasses.replace(
        CONFIG,
        num_experts=0,
        top_k=0,
        expert_hidden=0,
        tasks=(TaskConfig("classification", "classification", channels=5),),
    )
    workload = make_workload(config)
    for baseline in CPU:
        if baseline.runtime == "torch.compile":
            continue
        row = measure_baseline(baseline, workload, 2, 1, EFFORT)
        assert row["status"] == "ok" and row["experts"] == "none" and row.get("equal", True), row


@pytest.mark.parametrize("baseline", [pytest.param(b, id=name(b)) for b in BASELINES if b.device == "cuda"])
def test_gpu_baseline_runs_or_says_why_not(workload, baseline):
    row = measure_baseline(baseline, workload, 1, 1, EFFORT)
    assert row["status"] == "ok" or row["status"].startswith("not available: "), row["status"]


@pytest.mark.parametrize(
    ("package", "module"),
    [
        ("torch", "torch_sessions"),
        ("onnxruntime", "onnx_sessions"),
        ("openvino", "openvino_session"),
    ],
)
def test_absent_package_is_a_row(workload, package, module, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, f"edgemoe.studies.baselines.{module}", raising=False)
    rows = [measure_baseline(b, workload, 1, 1, EFFORT) for b in CPU if b.loader.startswith(module)]
    assert rows and {row["status"] for row in rows} == {f"not installed: {package} ({install_command('baselines')})"}


def test_failure_is_a_row(workload, monkeypatch):
    def fail(self, *arguments):
        raise RuntimeError("no kernel\nand more")

    monkeypatch.setattr(Baseline, "load", fail)
    assert measure_baseline(CPU[0], workload, 1, 1, EFFORT)["status"] == "failed: RuntimeError: no kernel"


def test_bfloat16_keeps_the_gates(workload):
    """The GPU's bfloat16 network, on the CPU."""
    import torch

    from edgemoe.studies.baselines.torch_network import build_network
    from edgemoe.studies.baselines.torch_sessions import TorchSession, to_half

    network = to_half(build_network(workload))
    gates = {n: p.dtype for n, p in network.named_parameters() if p.dtype != torch.bfloat16}
    assert sorted(gates) == [f"model.blocks.1.moe.gate.{task.name}" for task in reversed(CONFIG.tasks)]
    session = TorchSession(network)
    session.feed(workload.images)
    session.step()
    error = np.abs(session.output() - workload.expected).max()
    assert 0 < error < 0.2 * np.abs(workload.expected).max()


def test_metrics_of_int8_on_held_out_scenes(workload):
    drawn = [scenes.generate_scene(i, CONFIG.image_height, CONFIG.image_width) for i in range(3)]
    held_out = {"image": np.stack([s.image for s in drawn]), "segmentation": np.stack([s.segmentation for s in drawn])}
    row = measure_baseline(
        next(b for b in CPU if name(b) == "ONNX-Runtime-cpu-int8-sparse"),
        dataclasses.replace(workload, held_out=held_out),
        2,
        1,
        EFFORT,
    )
    assert row["metrics_scenes"] == 3 and row["metrics"].keys() == row["float_metrics"].keys()
    assert row["metrics"]["pixel_accuracy"] == pytest.approx(row["float_metrics"]["pixel_accuracy"], abs=0.2)


def test_ranges_cover_every_linear_input(workload):
    ranges = activation_ranges(workload)
    assert {
        "blocks.0.norm1",
        "blocks.0.context",
        "blocks.0.hidden",
        "blocks.1.norm2",
        "blocks.1.moe.hidden",
        "norm",
        "heads.segmentation.hidden",
    } <= ranges.keys()
    assert all(low <= 0 <= high for low, high in ranges.values())


class CountingSession:
    steps = 0

    def step(self):
        self.steps += 1


def test_energy_is_joules_over_images(monkeypatch):
    class Monitor:
        def __init__(self, gpu_indices, cpu_indices):
            self.gpu_indices, self.cpu_indices = [], [0, 1]

        def begin_window(self, key, sync_execution):
            session.steps = 0

        def end_window(self, key, sync_execution):
            return types.SimpleNamespace(gpu_energy={}, cpu_energy={0: 1.5, 1: 0.5})

    session = CountingSession()
    monkeypatch.setitem(sys.modules, "zeus", types.ModuleType("zeus"))
    monkeypatch.setitem(sys.modules, "zeus.monitor", types.SimpleNamespace(ZeusMonitor=Monitor))
    effort = dataclasses.replace(EFFORT, energy_seconds=0.0)
    row = measure(session, 4, "cpu", effort)
    assert row["energy_mj"] == pytest.approx(2000 / (4 * session.steps)) and row["energy"] == "RAPL, whole package"
    assert measure(session, 4, "cuda", effort)["energy"] == "not measured: no NVML counters that can be read here"


def test_workloads_by_name():
    micro = load_workload("m3vit-micro", 2)
    assert micro.held_out is not None and len(micro.held_out["image"]) == 16
    assert micro.expected.shape == (2, 128, 512) and micro.task == "segmentation"
    with pytest.raises(ValueError, match="must be a trained preset"):
        load_workload("nothing", 1)


def test_suite_runs_in_processes_and_reports_differences(monkeypatch):
    monkeypatch.setattr(suite, "BASELINES", (CPU[4], BASELINES[-1]))
    monkeypatch.setattr(suite, "load_workload", lambda model, count: make_workload())
    told = []
    rows = suite.run_baselines("baseline-test", [1, 2], 1, EFFORT, told.append)
    assert [(row["runtime"], row["batch"]) for row in rows] == [
        (b.runtime, n) for b in (CPU[4], BASELINES[-1]) for n in (1, 2)
    ]
    assert [row["status"] for row in rows[:2]] == ["ok", "ok"] and len(told) == 2
    assert differing(rows) == []
    assert differing([{**rows[0], "equal": False}]) != []
    with pytest.raises(ValueError, match="at least 1"):
        suite.run_baselines("baseline-test", [0], 1, EFFORT, told.append)


def test_networks_without_experts_are_measured_once(monkeypatch):
    asked = []
    config = types.SimpleNamespace(num_experts=0)
    monkeypatch.setattr(suite, "load_workload", lambda model, count: types.SimpleNamespace(config=config))
    suite.run_baselines(
        "deit-tiny", [1], 1, EFFORT, lambda what: None, lambda group, *rest: [{} for _ in map(asked.append, group)]
    )
    kinds = [(b.runtime, b.precision) for b in asked]
    assert len(kinds) == len(set(kinds)) and set(kinds) == {(b.runtime, b.precision) for b in BASELINES}
