"""From a compiled model to a bundle."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from edgemoe.bundle import Bundle, Joined, Joint, Phase, Task
from edgemoe.compiler.errors import CompilerOptions
from edgemoe.compiler.program import CompiledModel, Program, compile_graph
from edgemoe_hw.spec.config import AcceleratorConfig
from edgemoe_hw.spec.isa import Engine
from edgemoe_models.graph.file import graph_bytes
from edgemoe_models.graph.integer_graph import IntegerGraph

__all__ = ["build_bundle", "to_bundle"]


def _phases(program: Program) -> tuple[Phase, ...]:
    phases = program.lowered.builder.phases
    ends = [0] * len(phases)
    for command in program.commands:
        if command.engine == Engine.MATMUL:
            ends[command.phase] = max(ends[command.phase], command.ordinal + 1)
    return tuple(
        Phase(**{**vars(phase), "prefetched": tuple(phase.prefetched)}, matmuls=end, estimated_cycles=cycles)
        for phase, end, cycles in zip(phases, ends, program.phase_cycles(), strict=True)
    )


def _task(graph: IntegerGraph, name: str, program: Program) -> Task:
    rows, channels = graph.config.device_outputs(name)
    return Task(
        name,
        program.code,
        [part.to_list() for part in program.trace],
        tuple(program.lowered.outputs[0]),
        program.lowered.output_bytes,
        rows,
        channels,
        graph.heads[name].output_scale,
        _phases(program),
        program.load_bytes,
    )


def _joint(program: Program) -> Joint:
    return Joint(
        program.joined,
        program.code,
        [part.to_list() for part in program.trace],
        tuple(map(tuple, program.lowered.outputs)),
        program.lowered.output_bytes,
        _phases(program),
        program.load_bytes,
    )


def to_bundle(compiled: CompiledModel) -> Bundle:
    """What the compiler made, as a bundle."""
    graph = compiled.graph
    file = np.frombuffer(graph_bytes(graph), np.uint8)
    tasks = {name: _task(graph, name, program) for name, program in compiled.programs.items()}
    return Bundle(
        compiled.config,
        graph.config,
        np.frombuffer(compiled.data, np.uint8),
        file,
        compiled.input.plane_stride * compiled.config.load_masters("ACT"),
        tasks,
        dataclasses.asdict(compiled.options),
        tuple(map(_joint, compiled.joint)),
    )


def build_bundle(
    graph: IntegerGraph,
    config: AcceleratorConfig,
    options: CompilerOptions | None = None,
    *,
    joint: Sequence[Joined] = (),
) -> Bundle:
    """Compile an integer graph for a configuration; ``edgemoe.compile`` is this with names and files.

    Args:
        graph: the quantized model
        config: of the accelerator
        options: what the compiler may choose; default: what is fastest
        joint: programs of several tasks of an image, or of several images, beside those of each task

    Returns:
        The bundle, with one program for each task, and those of ``joint``

    Raises:
        CompileError: the model does not fit; the message says what is too large and by how much
    """
    return to_bundle(compile_graph(graph, config, options, joint=joint))
