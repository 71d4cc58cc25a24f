"""A bundle's program on the command-level model."""

from __future__ import annotations

import numpy as np

from edgemoe.layout import gather_outputs, pack_patches
from edgemoe_models.integer import reference
from edgemoe_models.model_image import patchify
from edgemoe_sim.command_model import POLICIES, FunctionalModel
from edgemoe_sim.trace import TraceChecker

__all__ = ["execute"]


def execute(bundle, task, policy, seed=3, program=None):
    """Run one task on the command-level model: (outputs, reference, tensors, comparison)."""
    model = bundle.model
    image = np.random.default_rng(seed).integers(0, 256, (model.image_height, model.image_width, 3)).astype(np.uint8)
    expected = {}
    outputs = reference.run(bundle.graph(), image, task, expected)
    info = bundle.task(task)
    program = program or info.program
    checker = TraceChecker(bundle.config, program, info.trace, expected, model.heads)
    source = pack_patches(bundle.config, patchify(image, model.patch))
    device = FunctionalModel(
        bundle.config, bundle.data.tobytes(), source, info.output_bytes, POLICIES[policy], seed, checker.check
    )
    memory = device.run(program)
    found = gather_outputs(info.outputs, memory, info.output_rows, info.output_channels)
    return found, outputs, expected, checker.result
