"""Runs bench_top.py: a network on the whole accelerator against cocotbext-axi."""

from pathlib import Path

import pytest

from edgemoe.compiler import build_bundle
from edgemoe_hw.spec.config import PRESETS
from edgemoe_models.config import TaskConfig
from edgemoe_sim.build import accelerator_verilog
from support.cocotb_runner import run_bench
from support.random_graphs import random_graph, small_model

TASKS = (TaskConfig("depth", "depth", channels=1, cells=2), TaskConfig("scene", "classification", channels=3))
MODEL = small_model(
    image_height=8, image_width=8, dim=20, heads=2, mlp_hidden=17, num_experts=3, expert_hidden=9, tasks=TASKS
)


@pytest.mark.parametrize("stall", [0.0, 0.4])
def test_accelerator(stall, tmp_path):
    config = PRESETS["tiny"]
    build_bundle(random_graph(MODEL), config).save(tmp_path / "small.emoe")
    run_bench(
        accelerator_verilog(config),
        Path(__file__).with_name("bench_top.py"),
        parameters={"BUNDLE": str(tmp_path / "small.emoe"), "STALL": str(stall)},
    )
