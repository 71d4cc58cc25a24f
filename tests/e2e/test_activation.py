"""The table behind the array need not be GELU's: docs/howto/add-an-operator.md's SiLU, bit-exact on the RTL."""

import dataclasses

import numpy as np

from edgemoe.compiler import build_bundle
from edgemoe.runtime.verify import open_verified
from edgemoe_models.graph.integer_graph import Activation, IntegerGraph
from support.doc_blocks import run_blocks
from support.random_graphs import random_graph, small_model

UNITS = (0.0164, 0.05, 0.3)


def with_silu(graph: IntegerGraph) -> IntegerGraph:
    """A graph whose tables are SiLU's, of other scales from block to block."""
    silu_table = run_blocks("howto/add-an-operator.md")["silu_table"]
    tables = [Activation(silu_table(unit)) for unit in UNITS]
    blocks = [dataclasses.replace(block, activation=tables[i % len(tables)]) for i, block in enumerate(graph.blocks)]
    heads = {
        task: head if head.activation is None else dataclasses.replace(head, activation=tables[2])
        for task, head in graph.heads.items()
    }
    return dataclasses.replace(graph, blocks=tuple(blocks), heads=heads)


def test_silu_needs_no_change_of_the_hardware(config, check, rng):
    model = small_model()
    graph = with_silu(random_graph(model, 3))
    image = rng.integers(0, 256, (model.image_height, model.image_width, 3)).astype(np.uint8)
    bundle = build_bundle(graph, config)
    with open_verified(bundle, quiet=True) as verifier:
        for task in bundle.tasks:
            check(verifier, image, task)
