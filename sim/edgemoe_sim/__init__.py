"""Simulation: the Verilated accelerator as a device, DRAM and AXI models, helpers of the benches."""
