"""Analytic timing of commands, and the order in which the sequencer dispatches them.

One sequencer fills each engine's queue (``QUEUE_COMMANDS`` deep) in program order, so a command whose queue is full
blocks all that follow. The program order therefore follows estimated start times: a LOAD stands where its waits are
met or its queue has room, a MATMUL shortly before its turn. Every command stands behind all commands it waits for,
so the oldest unfinished command can always proceed: dispatch cannot deadlock, however wrong the estimate is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from edgemoe.compiler.commands import Command
from edgemoe_hw.spec.config import AcceleratorConfig
from edgemoe_hw.spec.constants import QUEUE_COMMANDS
from edgemoe_hw.spec.isa import Engine, LayerNorm, Load, MatMul, Store
from edgemoe_hw.spec.timing import completion_cycles
from edgemoe_models.config import ModelConfig

__all__ = ["Estimator", "Timing", "dispatch_order", "estimate", "load_bytes"]

_LOAD_AHEAD = 1  # a LOAD that waits for a late memory must not keep MATMULs behind it: later is better (measured)
_ISSUE_AHEAD = QUEUE_COMMANDS - 1  # the others are dispatched as early as their queues allow
_RESULT_LATENCY = 40  # of a MATMUL or LAYERNORM, at least; m3vit-micro takes as many cycles with 31 or 60
_COMMAND_OVERHEAD = 4


@dataclass(frozen=True)
class Timing:
    """Estimated cycles of one command: dependencies met, start, engine free again, finished."""

    ready: int
    start: int
    free: int
    finish: int


def load_bytes(config: AcceleratorConfig, load: Load) -> int:
    """DRAM bytes of a LOAD."""
    return load.rows * config.row_bytes[load.memory.name]


def _bus_cycles(config: AcceleratorConfig, size: int, masters: int) -> int:
    """Cycles in which ``masters`` ports move ``size`` bytes, or the DRAM, if that is slower."""
    return math.ceil(size / min(masters * config.axi_bytes, config.dram_bytes_per_cycle))


def _occupancy(config: AcceleratorConfig, model: ModelConfig, command: Command) -> tuple[int, int]:
    """Cycles for which a command holds its engine, and further cycles until its last result."""
    p = command.payload
    if isinstance(p, Load):
        masters = config.load_masters(p.memory.name)
        return _bus_cycles(config, load_bytes(config, p), masters) + _COMMAND_OVERHEAD, config.dram_latency
    if isinstance(p, Store):
        size = p.rows * config.row_bytes["RESIDUAL"]
        return _bus_cycles(config, size, 1) + _COMMAND_OVERHEAD, config.dram_latency
    if isinstance(p, LayerNorm):
        vectors = -(-p.dim // config.norm_lanes)
        return p.tokens * (vectors + 1), 2 * vectors + _RESULT_LATENCY
    assert isinstance(p, MatMul)
    steps = p.tokens * p.tiles * max(p.k_steps, p.min_gap)
    if p.use_queue:
        steps = -(-steps * model.top_k // model.num_experts)
    return steps + _COMMAND_OVERHEAD, max(_RESULT_LATENCY, completion_cycles(config))


class Estimator:
    """Timing of one command after the other in sequential order: engines concurrent, queues of any depth, balanced
    experts.

    Attributes:
        free: when each engine can start its next command
        finished: when each engine's commands have finished, in order
    """

    def __init__(self, config: AcceleratorConfig, model: ModelConfig) -> None:
        self._config, self._model = config, model
        self.free = [0] * len(Engine)
        self.finished: list[list[int]] = [[] for _ in Engine]

    def add(self, command: Command) -> Timing:
        """The next command's."""
        waits, finished = enumerate(command.waits), self.finished[command.engine]
        ready = max((self.finished[engine][count - 1] for engine, count in waits if count), default=0)
        start = max(ready, self.free[command.engine])
        busy, latency = _occupancy(self._config, self._model, command)
        self.free[command.engine] = start + busy
        finished.append(max(start + busy + latency, finished[-1] if finished else 0))
        return Timing(ready, start, start + busy, finished[-1])


def estimate(config: AcceleratorConfig, model: ModelConfig, commands: Sequence[Command]) -> list[Timing]:
    """Timing of each command in sequential order."""
    estimator = Estimator(config, model)
    return [estimator.add(command) for command in commands]


def dispatch_order(commands: Sequence[Command], timings: Sequence[Timing]) -> list[int]:
    """Indices of ``commands`` in program order."""
    ahead = dict.fromkeys(Engine, _ISSUE_AHEAD) | {Engine.LOAD: _LOAD_AHEAD}
    starts: list[list[int]] = [[] for _ in Engine]
    keys: list[list[int]] = [[] for _ in Engine]
    order: list[tuple[int, int]] = []
    for index, (command, timing) in enumerate(zip(commands, timings, strict=True)):
        engine = command.engine
        place = len(starts[engine]) - ahead[engine]
        key = timing.ready if engine == Engine.LOAD else 0
        key = max(key, starts[engine][place] if place >= 0 else 0, keys[engine][-1] if keys[engine] else 0)
        for other, count in enumerate(command.waits):
            if count:
                key = max(key, keys[other][count - 1])
        starts[engine].append(timing.start)
        keys[engine].append(key)
        order.append((key, index))
    return [index for _, index in sorted(order)]
