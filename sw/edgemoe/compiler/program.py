"""The compiler's entry: integer graph and configuration to a bundle's contents."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from edgemoe.bundle import Joined
from edgemoe.compiler.commands import Command
from edgemoe.compiler.errors import TOO_LARGE, CompileError, CompilerOptions
from edgemoe.compiler.fits import shortages
from edgemoe.compiler.lowering import Lowered, input_object, lower
from edgemoe.compiler.packing import DramImage, DramObject
from edgemoe.compiler.schedule import Timing, dispatch_order, estimate, load_bytes
from edgemoe.compiler.trace import TracePart
from edgemoe_hw.spec.config import ISA_VERSION, AcceleratorConfig
from edgemoe_hw.spec.constants import COUNT_BITS
from edgemoe_hw.spec.isa import Begin, End, Engine, FieldError, Header, Load, encode, waits
from edgemoe_models.graph.integer_graph import GraphError, IntegerGraph

__all__ = ["MAX_COMMANDS", "CompiledModel", "Program", "compile_graph"]

#: What BEGIN can say, and engines can count.
MAX_COMMANDS = (1 << COUNT_BITS) - 1


@dataclass(frozen=True)
class Program:
    """One program; ``joined`` says of what.

    ``commands`` are in program (dispatch) order without BEGIN and END; ``trace`` counts them the same way.
    ``order`` gives each one's place in sequential order.
    """

    code: bytes
    commands: list[Command]
    order: list[int]
    timings: list[Timing]
    lowered: Lowered
    trace: list[TracePart]
    load_bytes: int

    @property
    def joined(self) -> Joined:
        """The tasks and the number of images."""
        return self.lowered.sequences.joined

    @property
    def estimated_cycles(self) -> int:
        """Analytic cycles of the whole program, with balanced experts."""
        return max(timing.finish for timing in self.timings)

    def phase_cycles(self) -> list[int]:
        """Analytic cycles of each phase: between the last results of consecutive phases."""
        ends = [0] * len(self.lowered.builder.phases)
        for command, timing in zip(self.commands, self.timings, strict=True):
            if command.engine in (Engine.MATMUL, Engine.STORE):
                ends[command.phase] = max(ends[command.phase], timing.finish)
        return [end - start for start, end in zip([0, *ends], ends, strict=False)]


@dataclass(frozen=True)
class CompiledModel:
    """What a bundle holds: the DRAM image, one program a task, and those of several tasks or images (``joint``)."""

    graph: IntegerGraph
    config: AcceleratorConfig
    options: CompilerOptions
    data: bytes
    input: DramObject
    programs: dict[str, Program]
    joint: list[Program]


def _encode(command: Command) -> bytes:
    """The command's bytes; CompileError when the model is larger than its fields can express."""
    try:
        return command.encode()
    except FieldError as error:
        raise CompileError(f"{command.label}: {TOO_LARGE}: {error}") from None


def _assemble(graph: IntegerGraph, config: AcceleratorConfig, lowered: Lowered, max_commands: int) -> Program:
    commands = lowered.builder.commands
    timings = estimate(config, graph.config, commands)
    order = dispatch_order(commands, timings)
    places = {index: place for place, index in enumerate(order)}
    count = len(commands) + 2
    if count > max_commands:
        raise CompileError(
            f"{lowered.sequences.joined} needs {count} commands, the limit is {max_commands}: "
            f"{count - max_commands} too many"
        )
    begin = encode(Begin(isa_version=ISA_VERSION, config_hash=config.hash32, commands=count))
    totals = waits({engine: sum(command.engine == engine for command in commands) for engine in Engine})
    ordered = [commands[index] for index in order]
    code = begin + b"".join(map(_encode, ordered)) + encode(End(), Header(waits=totals))
    fetched = sum(load_bytes(config, command.payload) for command in commands if isinstance(command.payload, Load))
    return Program(
        code,
        ordered,
        order,
        [timings[index] for index in order],
        lowered,
        lowered.trace.renumber(places),
        fetched,
    )


def compile_graph(
    graph: IntegerGraph,
    config: AcceleratorConfig,
    options: CompilerOptions | None = None,
    *,
    joint: Sequence[Joined] = (),
    max_commands: int = MAX_COMMANDS,
) -> CompiledModel:
    """Compile all tasks of a model for one configuration; programs share their weights in DRAM.

    Args:
        graph: the model
        config: of the accelerator
        options: default: what is fastest
        joint: programs of several tasks or images beside those of each task
        max_commands: a longer program is refused

    Raises:
        CompileError: the model does not fit; the message says what is too large and by how much
    """
    options = options or CompilerOptions()
    for joined in (None, *joint):
        if found := shortages(graph.config, config, options, joined):
            raise CompileError("; ".join(shortage.text for shortage in found))
    try:
        graph.bound_check()
    except GraphError as error:
        raise CompileError(str(error)) from None
    image = DramImage(config)
    tasks = [task.name for task in graph.config.tasks]
    lowered = {task: lower(graph, config, options, image, Joined((task,))) for task in tasks}
    programs = {task: _assemble(graph, config, lowered[task], max_commands) for task in tasks}
    together = [
        _assemble(graph, config, lower(graph, config, options, image, joined), max_commands) for joined in joint
    ]
    source = input_object(config, graph.config.num_patches, graph.config.patch_inputs)
    return CompiledModel(graph, dataclasses.replace(config), options, image.tobytes(), source, programs, together)
