"""Complete systems for boards without a processor: what stands around the accelerator there."""
