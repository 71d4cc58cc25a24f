"""Typed predictions equal the general postprocessing, where they take a shorter way too."""

import dataclasses

import numpy as np
import pytest

from edgemoe.runtime.executor import Measured
from edgemoe.runtime.predictions import interpret
from edgemoe_models.config import TaskConfig
from edgemoe_models.integer.postprocess import arrange, postprocess
from support.random_graphs import small_model


@pytest.mark.parametrize("channels", [1, 2, 8, 256, 300])
@pytest.mark.parametrize("cells", [1, 4])
def test_labels(runtime_bundle, rng, channels, cells):
    """Few values, so that classes are often equal; the extremes too."""
    model = small_model(tasks=(TaskConfig("labels", "segmentation", channels=channels, cells=cells),))
    info = dataclasses.replace(runtime_bundle.task("depth"), name="labels", output_scale=0.013)
    bundle = dataclasses.replace(runtime_bundle, model=model, tasks={"labels": info})
    shape = (model.num_patches, cells * cells * channels)
    for raw in (
        rng.integers(-2, 3, shape).astype(np.int16),
        rng.choice([-32768, 0, 32767], shape).astype(np.int16),
        np.zeros(shape, np.int16),
    ):
        found = interpret(bundle, "labels", raw, Measured(1.0, 1.0), 0.25)
        wanted = postprocess(model, "labels", arrange(model, "labels", raw).astype(np.float32) * np.float32(0.013))
        np.testing.assert_array_equal(found.labels, wanted)
        assert found.labels.dtype == wanted.dtype and found.stats.host_seconds > 0.25
