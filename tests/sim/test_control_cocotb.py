"""Runs bench_control.py: the AXI protocol of the control plane against cocotbext-axi."""

from pathlib import Path

import pytest

from support.cocotb_runner import run_bench
from support.control_bench import SMALL, SMALL_FOUR, SMALL_WIDE, bench_verilog


@pytest.mark.parametrize("stall", [0.0, 0.5])
@pytest.mark.parametrize("config", [SMALL, SMALL_WIDE, SMALL_FOUR], ids=lambda config: config.name)
def test_control_plane(config, stall):
    run_bench(
        bench_verilog(config),
        Path(__file__).with_name("bench_control.py"),
        parameters={"CONFIG": config.to_json(), "STALL": str(stall)},
    )
