"""The accelerator's arithmetic in NumPy, as docs/numerics.md has it: operators (``ops``), tables (``tables``)."""
