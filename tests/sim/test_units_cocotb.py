"""Runs bench_units.py: the units without control plane under cocotb and Verilator, one build for all."""

from pathlib import Path

from edgemoe_sim.cocotb_runner import run_bench
from edgemoe_sim.unit_bench import unit_verilog


def test_units():
    run_bench(unit_verilog(), Path(__file__).with_name("bench_units.py"))
