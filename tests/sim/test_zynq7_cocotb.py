"""Runs bench_zynq7.py: a network at AXI3 ports, against cocotbext-axi."""

import dataclasses
from pathlib import Path

import pytest

from edgemoe.compiler import build_bundle
from edgemoe_hw.spec.config import PRESETS, ConfigError
from edgemoe_hw.targets.zynq7 import Zynq7Core
from edgemoe_hw.verilog import generate
from support.axi3_ports import WiderPorts
from support.cocotb_runner import run_bench
from support.random_graphs import random_graph, smallest_model

MODEL = smallest_model()
TWO = dataclasses.replace(PRESETS["tiny"], name="tiny-two-ports", axi_masters=2)


@pytest.mark.parametrize("config", [PRESETS["tiny"], pytest.param(TWO, marks=pytest.mark.slow)], ids=["one", "two"])
@pytest.mark.parametrize("stall", [0.0, 0.4])
def test_ports(config, stall, tmp_path):
    build_bundle(random_graph(MODEL), config).save(tmp_path / "small.emoe")
    run_bench(
        generate(config, WiderPorts(Zynq7Core(config))),
        Path(__file__).with_name("bench_zynq7.py"),
        parameters={"BUNDLE": str(tmp_path / "small.emoe"), "STALL": str(stall)},
    )


def test_ports_that_a_zynq_does_not_have():
    with pytest.raises(ConfigError, match="4 memory ports of 8 bytes, not 4 of 16"):
        Zynq7Core(PRESETS["zcu102"])
