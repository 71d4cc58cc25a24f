"""``python -m edgemoe.cli``: the same as ``edgemoe``, for ``torchrun -m edgemoe.cli train ...``."""

from edgemoe.cli.main import main

if __name__ == "__main__":  # not in the processes that Dask starts
    main()
