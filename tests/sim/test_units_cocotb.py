"""Runs the benches of units without control plane under cocotb and Verilator, one build for all."""

from pathlib import Path

import pytest

from support.cocotb_runner import run_bench
from support.unit_bench import unit_verilog


@pytest.mark.parametrize("bench", ["bench_units.py", "bench_engines.py", "bench_operands.py"])
def test_units(bench):
    run_bench(unit_verilog(), Path(__file__).with_name(bench))
