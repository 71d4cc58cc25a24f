"""Scenes that other processes generate are those of the cache."""

import numpy as np
import pytest

from edgemoe_models.datasets.arrays import load_split
from edgemoe_models.datasets.growing import GrowingScenes

LABELS = ["segmentation", "depth", "normals", "edges"]


def test_scenes_are_those_of_the_cache_and_come_in_order(tmp_path):
    growing = GrowingScenes("val", 40, (8, 16), LABELS, 3)
    try:
        growing.wait(1)
        assert growing.ready >= 16
        growing.wait(100)
        assert growing.ready == 40
        expected = load_split(tmp_path, "val", 40, 8, 16, LABELS)
        assert set(growing.arrays) == set(expected)
        for name, array in expected.items():
            assert growing.arrays[name].dtype == array.dtype and np.array_equal(growing.arrays[name], array), name
    finally:
        growing.stop()


def test_processes_that_end_early_are_told():
    growing = GrowingScenes("train", 1000, (64, 64), LABELS, 1)
    growing.stop()
    with pytest.raises(RuntimeError, match="the processes that generate scenes ended after .* of 1000"):
        growing.wait(1000)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("test", 1, (8, 8), [], 1), r"split must be one of \['demo', 'train', 'val'\], not 'test'"),
        (("val", 0, (8, 8), [], 1), r"count of val must be in 1..10000, not 0"),
        (("val", 1, (8, 8), ["colour"], 1), "labels must be among"),
        (("val", 1, (8, 8), [], 0), "workers must be at least 1, not 0"),
    ],
)
def test_refusals(arguments, message):
    with pytest.raises(ValueError, match=message):
        GrowingScenes(*arguments)
