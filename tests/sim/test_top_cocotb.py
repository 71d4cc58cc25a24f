"""Runs bench_top.py: a network on the whole accelerator against cocotbext-axi."""

from pathlib import Path

import pytest

from edgemoe.compiler import build_bundle
from edgemoe_hw.spec.config import PRESETS
from edgemoe_sim.build import accelerator_verilog
from support.cocotb_runner import run_bench
from support.random_graphs import random_graph, smallest_model

MODEL = smallest_model()


@pytest.mark.parametrize("stall", [0.0, 0.4])
def test_accelerator(stall, tmp_path):
    config = PRESETS["tiny"]
    build_bundle(random_graph(MODEL), config).save(tmp_path / "small.emoe")
    run_bench(
        accelerator_verilog(config),
        Path(__file__).with_name("bench_top.py"),
        parameters={"BUNDLE": str(tmp_path / "small.emoe"), "STALL": str(stall)},
    )
