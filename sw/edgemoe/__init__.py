"""Multi-task Mixture-of-Experts Vision Transformers on an open FPGA accelerator.

What runs on a board imports neither Amaranth nor torch nor cocotb.
"""
