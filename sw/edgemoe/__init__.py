"""edgemoe: deploy multi-task Mixture-of-Experts Vision Transformers on an open FPGA accelerator."""
