"""``python -m edgemoe.cli``: the same as ``edgemoe``, for ``torchrun -m edgemoe.cli train ...``."""

from edgemoe.cli.main import main

main()
