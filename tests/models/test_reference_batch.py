"""The integer reference on several images at once, and with other functions."""

import numpy as np
import pytest

from edgemoe_models.config import TaskConfig
from edgemoe_models.integer import reference
from edgemoe_models.ptq.quantize import quantize
from edgemoe_models.random_weights import random_images, random_state
from edgemoe_models.studies.compare_functions import (
    attend_with,
    fq_vit_functions,
    gelu_with,
    i_vit_functions,
    norm_with,
)
from edgemoe_models.studies.published import edge_moe, i_bert
from support.small_models import to_quantize

CONFIG = to_quantize(
    TaskConfig("segmentation", "segmentation", 7, head_hidden=30), TaskConfig("label", "classification", 5)
)


@pytest.fixture(scope="module")
def graph():
    return quantize(random_state(CONFIG), CONFIG, random_images(CONFIG, 4, 100))


@pytest.mark.parametrize("task", ["segmentation", "label"])
def test_a_batch_equals_its_images(graph, task):
    images = random_images(CONFIG, 3)
    outputs = reference.run_batch(graph, images, task)
    np.testing.assert_array_equal(outputs, [reference.run(graph, image, task) for image in images])


def test_accurate_functions_change_little_and_rough_ones_more(graph):
    """Each set in place of ours: the accurate formulas give nearly our outputs, 4-bit attention and shifts less so."""
    image = random_images(CONFIG, 1)[0]
    accurate = reference.Functions(
        attend_with(edge_moe.softmax), gelu_with(edge_moe.gelu, graph), norm_with(i_bert.layer_norm)
    )
    ours = reference.run(graph, image, "segmentation")
    changes = {}
    for name, functions in (
        ("accurate", accurate),
        ("i_vit", i_vit_functions(graph)),
        ("fq_vit", fq_vit_functions(graph)),
    ):
        trace = {}
        found = reference.run(graph, image, "segmentation", trace, functions)
        assert found.shape == ours.shape and trace["blocks.0.context"].shape == (CONFIG.num_tokens, CONFIG.dim)
        changes[name] = np.sqrt(np.square(found - ours).mean()) / ours.std()
    assert 0 < changes["accurate"] < 0.05
    assert changes["accurate"] < changes["fq_vit"] < 0.5
    assert changes["accurate"] < changes["i_vit"] < 0.7
