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
    checker = TraceChecker(bundle.config, program, info.trace, [expected], model.heads, model.num_tokens)
    source = pack_patches(bundle.config, patchify(image, model.patch))
    device = FunctionalModel(
        bundle.config, bundle.data.tobytes(), source, info.output_bytes, POLICIES[policy], seed, checker.check
    )
    memory = device.run(program)
    found = gather_outputs(info.outputs, memory, info.output_rows, info.output_channels)
    return found, outputs, expected, checker.result


def execute_joint(bundle, joint, policy, seed=3):
    """Run one joint program on the command-level model: outputs and reference by sequence, and the comparison."""
    model, graph = bundle.model, bundle.graph()
    shape = (joint.joined.images, model.image_height, model.image_width, 3)
    images = np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)
    traces, wanted = [], []
    for image, task in joint.joined.sequences:
        traces.append({})
        wanted.append(reference.run(graph, images[image], task, traces[-1]))
    checker = TraceChecker(bundle.config, joint.program, joint.trace, traces, model.heads, model.num_tokens)
    source = b"".join(pack_patches(bundle.config, patchify(image, model.patch)) for image in images)
    device = FunctionalModel(
        bundle.config, bundle.data.tobytes(), source, joint.output_bytes, POLICIES[policy], seed, checker.check
    )
    memory = device.run(joint.program)
    found = [
        gather_outputs(parts, memory, *model.device_outputs(task))
        for parts, (_, task) in zip(joint.outputs, joint.joined.sequences, strict=True)
    ]
    return found, wanted, traces, checker.result
