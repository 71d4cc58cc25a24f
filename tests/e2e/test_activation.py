"""Every activation function is but a table to the hardware: bit-exact on the RTL, from float weights on.

And one that the package has not: docs/howto/add-an-operator.md's hard swish.
"""

import dataclasses

import numpy as np
import pytest

from edgemoe.compiler import build_bundle
from edgemoe.runtime.verify import open_verified
from edgemoe_models.config import ACTIVATIONS
from edgemoe_models.graph.integer_graph import Activation, IntegerGraph
from edgemoe_models.ptq.quantize import quantize
from edgemoe_models.random_weights import random_images, random_state
from support.doc_blocks import run_blocks
from support.random_graphs import random_graph, small_model

UNITS = (0.0059, 0.05, 0.3)


def with_hard_swish(graph: IntegerGraph) -> IntegerGraph:
    """A graph whose tables are hard swish's, of other scales from block to block."""
    hard_swish_table = run_blocks("howto/add-an-operator.md")["hard_swish_table"]
    tables = [Activation(hard_swish_table(unit)) for unit in UNITS]
    blocks = [dataclasses.replace(block, activation=tables[i % len(tables)]) for i, block in enumerate(graph.blocks)]
    heads = {
        task: head if head.activation is None else dataclasses.replace(head, activation=tables[2])
        for task, head in graph.heads.items()
    }
    return dataclasses.replace(graph, blocks=tuple(blocks), heads=heads)


def quantized(kind: str) -> IntegerGraph:
    """By the quantizer, from float weights and pictures."""
    model = small_model(activation=kind)
    return quantize(random_state(model), model, random_images(model, 4))


@pytest.mark.parametrize("kind", [*(kind for kind in ACTIVATIONS if kind != "gelu"), "hard swish"])
def test_every_activation_is_but_a_table_to_the_hardware(config, check, rng, kind):
    graph = with_hard_swish(random_graph(small_model(), 3)) if kind == "hard swish" else quantized(kind)
    model = graph.config
    image = rng.integers(0, 256, (model.image_height, model.image_width, 3)).astype(np.uint8)
    bundle = build_bundle(graph, config)
    assert bundle.model.activation == model.activation
    with open_verified(bundle, quiet=True) as verifier:
        for task in bundle.tasks:
            check(verifier, image, task)
