"""``edgemoe explore``: its files, its refusals, and what --verify makes of what its tasks say."""

import dataclasses
import json

import pytest
from PIL import Image

from edgemoe.boards.board import load_board
from edgemoe.configs import find_config
from edgemoe.explorer import resources, verify
from edgemoe.explorer.cycles import Workload
from edgemoe.explorer.search import judge
from edgemoe_hw.spec.config import PRESETS
from support.random_graphs import small_model


def test_a_front_and_what_is_chosen(edgemoe, graph_file, tmp_path):
    shown = edgemoe.ok("explore", "--board", "pynq-z2", "--model", graph_file, "--out", tmp_path)
    found = json.loads((tmp_path / "front.json").read_text())
    names = [point["config"]["name"] for point in found["front"]]
    assert found["chosen"] in names and found["board"] == "pynq-z2" and found["clock"]["reached"]
    assert find_config(str(tmp_path / "chosen.json")).name == found["chosen"]
    with Image.open(tmp_path / "front.png") as picture:
        assert picture.size[0] > 800
    assert "chosen" in shown and "scheduled" in shown and "worst of" in shown
    assert max(len(line) for line in shown.splitlines()[: len(names) + 3]) <= 80
    assert sorted(path.name for path in tmp_path.iterdir()) == ["chosen.json", "front.json", "front.png"]


def test_the_nearest(edgemoe, graph_file, tmp_path):
    path = tmp_path / "small.json"
    path.write_text(dataclasses.replace(PRESETS["pynq-z2"], name="mine", act_depth=4).to_json())
    shown = edgemoe.ok("explore", "--config", path, "--model", graph_file, "--out", tmp_path)
    assert "the nearest to mine that takes" in shown and "act_depth: " in shown
    assert find_config(str(tmp_path / "chosen.json")).act_depth > 4
    shown = edgemoe.ok("explore", "--config", "pynq-z2", "--model", graph_file, "--out", tmp_path)
    assert "nothing has to change" in shown


def test_refusals(edgemoe, graph_file, tmp_path):
    edgemoe("explore", "--board", "zynq").refused("board must be one of", "not 'zynq'")
    edgemoe("explore", "--model", "nothing").refused("model must be one of", "not 'nothing'")
    edgemoe("explore", "--depths", "deep").refused("--depths must be least or preset, not 'deep'")
    edgemoe("explore", "--expert-bits", "5").refused("--expert-bits must be 8 or 4, not 5")
    edgemoe("explore", "--scheduler", "tcp://x:1").refused("--scheduler and --workers are for --verify")
    edgemoe("explore", "--config", "nothing", "--model", graph_file).refused("config must be one of")


def test_without_dask(edgemoe, monkeypatch):
    monkeypatch.setattr("edgemoe.extras.is_installed", lambda module: module != "distributed")
    edgemoe("explore", "--verify").refused("edgemoe explore --verify needs Dask: pip install", "[explore]")


@pytest.fixture
def tools(monkeypatch):
    """RTL and Yosys that agree with the models but for a tenth more LUTs; here, without Dask."""

    def task(job):
        board = load_board(job["board"])
        config = dataclasses.replace(board.config, **{k: v for k, v in job["config"].items() if k != "name"})
        if job["kind"] == "rtl":
            return {"model": job["model"], "cycles": 1000, "tensors_compared": 3, "mismatches": 0, "seconds": 1.0}
        used = resources.estimate(config, board.device.family)
        used["lut"] *= 1.1
        return {"used": used, "units": {}, "tool": "none", "fmax_mhz": 100.0, "seconds": 1.0}

    def run(function, jobs, *, on_done, **_):
        results = [task(job) for job in jobs]
        for index, result in enumerate(results):
            on_done(index, result)
        return results

    monkeypatch.setattr("edgemoe.explorer.verify.run_tasks", run)
    monkeypatch.setattr("edgemoe.extras.is_installed", lambda module: True)


def test_verification(edgemoe, tools, graph_file, tmp_path):
    options = ("--verify", "--points", "2", "--out", tmp_path)
    done = edgemoe("explore", "--board", "pynq-z2", "--model", graph_file, *options)
    assert "-9.1%" in done.out and "yes" in done.out and done.code == 0
    assert "below the assumed 142.86 MHz" in done.err
    rows = json.loads((tmp_path / "verified.json").read_text())
    assert len(rows) == 2 and rows[0]["runs"][0]["cycles"] == 1000


def test_a_task_for_each_tool_and_model():
    loads = [Workload("a", small_model()), Workload("b", small_model(), 4)]
    point = judge(PRESETS["pynq-z2"], load_board("pynq-z2"), loads)
    jobs = verify.jobs_of([point, point], "pynq-z2", loads)
    assert [job["kind"] for job in jobs] == ["yosys"] * 2 + ["rtl"] * 4
    assert [(job["point"], job["expert_bits"]) for job in jobs[2:]] == [(0, 8), (0, 4), (1, 8), (1, 4)]
    assert json.loads(json.dumps(jobs)) == jobs  # plain values
