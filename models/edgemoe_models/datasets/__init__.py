"""Data sets by name: generated scenes, and photographs in the layouts that public multi-task code reads.

Each gives the same arrays (``edgemoe_models.datasets.arrays``), so that training and metrics do not know which
it is. NumPy and Pillow only; SciPy where a ``.mat`` file has to be read.
"""

from __future__ import annotations

from edgemoe_models.datasets import camvid, cifar, cityscapes, image_folder, nyudv2, pascal_context
from edgemoe_models.datasets.base import DataSet, Folder, Scenes

__all__ = ["DATA_SETS", "DataSet", "Folder", "Scenes", "find"]

DATA_SETS: dict[str, DataSet] = {
    data.name: data
    for data in (
        Scenes(),
        camvid.DATA_SET,
        camvid.FULL,
        cityscapes.OFFICIAL,
        cityscapes.PREPROCESSED,
        nyudv2.DATA_SET,
        pascal_context.DATA_SET,
        cifar.TEN,
        cifar.HUNDRED,
        image_folder.DATA_SET,
    )
}


def find(name: str) -> DataSet:
    """The data set called ``name``; ValueError when there is none."""
    if name not in DATA_SETS:
        raise ValueError(f"data must be one of {sorted(DATA_SETS)}, not {name!r}")
    return DATA_SETS[name]
