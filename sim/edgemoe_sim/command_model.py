"""A command-level model of the accelerator: executes programs in any order that their waits allow.

It has no timing. Matrix products and LayerNorms are split in two, reading their operands and writing their results,
and a policy picks the next step among all legal ones, so an adversarial policy finds a wait that is missing, and the
scratchpads can be compared with the RTL's after every command.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgemoe_hw.spec.config import AcceleratorConfig
from edgemoe_hw.spec.constants import QUEUE_COMMANDS
from edgemoe_hw.spec.isa import (
    Base,
    End,
    Engine,
    EnginePayload,
    Header,
    LayerNorm,
    Load,
    MatMul,
    Memory,
    Mode,
    RowFactor,
    Source,
    Store,
    decode_program,
)
from edgemoe_hw.spec.memories import memory_depths
from edgemoe_hw.spec.regs import ERROR_TEXT, ErrorCode
from edgemoe_models.arithmetic import ops
from edgemoe_sim.scratchpads import Scratchpads

__all__ = ["Deadlock", "FunctionalModel", "POLICIES", "Policy", "Stopped"]

_IN_FLIGHT = 3  # matrix products between issue and their last result
Step = tuple[Engine, bool]  # engine; True to write results, False to read operands
Policy = Callable[[Sequence[Step], np.random.Generator], Step]
Array = npt.NDArray[Any]


class Deadlock(RuntimeError):
    """No command can proceed."""


class Stopped(RuntimeError):
    """A command is wrong, as the accelerator would find.

    Attributes:
        code: why, as in ERROR_CODE
        command: its index in the program, as in ERROR_COMMAND
    """

    def __init__(self, code: ErrorCode, command: int) -> None:
        super().__init__(f"command {command}: {code.name}, {ERROR_TEXT[code]}")
        self.code, self.command = code, command


def _order(*preference: tuple[Engine, bool]) -> Policy:
    """A policy that takes the first legal step of the list."""

    def pick(steps: Sequence[Step], rng: np.random.Generator) -> Step:
        return min(steps, key=preference.index)

    return pick


_READS = [(engine, False) for engine in Engine]
_WRITES = [(engine, True) for engine in Engine]
_LOADS, _MATMULS = ([(engine, False), (engine, True)] for engine in (Engine.LOAD, Engine.MATMUL))
_REST = [step for step in _READS + _WRITES if step[0] != Engine.LOAD]

#: What to run first when several engines can proceed.
POLICIES: dict[str, Policy] = {
    "loads early, results late": _order(*_LOADS, *_REST),
    "loads late, results late": _order(*_REST, *_LOADS),
    "results early, loads last": _order(*_WRITES[1:], *_READS[1:], *_LOADS),
    "matmul last": _order(*_LOADS, *(step for step in _REST if step not in _MATMULS), *_MATMULS),
    "random": lambda steps, rng: steps[int(rng.integers(len(steps)))],
}


@dataclass
class _Pending:
    """A command that has read its operands."""

    index: int
    payload: EnginePayload
    result: tuple[Array, ...] | None


class FunctionalModel:
    """Executes one program.

    Args:
        config: the accelerator
        data, source: contents of the regions WEIGHTS and INPUT
        output_bytes: size of the region OUTPUT
        policy, seed: which legal step comes next
        on_complete: called with a command's index in the program (BEGIN is 0) when it has finished
    """

    def __init__(
        self,
        config: AcceleratorConfig,
        data: bytes,
        source: bytes,
        output_bytes: int,
        policy: Policy | None = None,
        seed: int = 0,
        on_complete: Callable[[int, Scratchpads], None] | None = None,
    ) -> None:
        self.config = config
        self.output = np.zeros(output_bytes, np.uint8)
        self.dram = {
            Base.WEIGHTS: np.frombuffer(data, np.uint8),
            Base.INPUT: np.frombuffer(source, np.uint8),
            Base.OUTPUT: self.output,
        }
        self.pads = Scratchpads(config, seed)
        self.rng = np.random.default_rng(seed)
        self.policy = policy or POLICIES["results early, loads last"]
        self.on_complete = on_complete
        self.bytes_read = 0

    def run(self, program: bytes) -> bytes:
        """Execute a program; returns the output memory.

        Raises:
            Deadlock: the dispatch order or a wait stops the program
            Stopped: a LOAD or STORE leaves its memory or its region of DRAM; it has moved nothing
        """
        commands = list(decode_program(program))
        queues: list[deque[int]] = [deque() for _ in Engine]
        pending: list[deque[_Pending]] = [deque() for _ in Engine]
        done = [0] * len(Engine)
        place = 1
        while True:
            while isinstance(payload := commands[place][1], EnginePayload):
                if len(queues[payload.engine]) == QUEUE_COMMANDS:
                    break
                queues[payload.engine].append(place)
                place += 1
            if isinstance(payload, End) and not any(queues) and not any(pending):
                break
            steps = [(engine, True) for engine in Engine if pending[engine]]
            for engine in Engine:
                limit = _IN_FLIGHT if engine == Engine.MATMUL else 1
                if not queues[engine] or len(pending[engine]) >= limit:
                    continue
                if self._may_start(commands[queues[engine][0]][0], done):
                    steps.append((engine, False))
            if not steps:
                raise Deadlock(f"command {place} of {len(commands)} cannot be dispatched; finished: {done}")
            engine, write = self.policy(steps, self.rng)
            if not write:
                index = queues[engine].popleft()
                header, payload = commands[index]
                assert isinstance(payload, EnginePayload)
                result = None if self._skips(header) else self._read(index, header, payload)
                pending[engine].append(_Pending(index, payload, result))
                continue
            task = pending[engine].popleft()
            if task.result is not None:
                self._write(task.payload, task.result)
            done[engine] += 1
            if self.on_complete is not None:
                self.on_complete(task.index, self.pads)
        if commands[place][0].waits != tuple(done):
            raise Deadlock(f"END waits for other counts than {done}")
        return self.output.tobytes()

    def _may_start(self, header: Header, done: list[int]) -> bool:
        return all(wait <= count for wait, count in zip(header.waits, done, strict=True))

    # -- reading ---------------------------------------------------------------------------------------------------

    def _skips(self, header: Header) -> bool:
        return header.predicated and not len(self.pads.queues[header.expert][0])

    def _check(self, index: int, p: Load | Store) -> None:
        """Refuse rows that do not exist, and bytes outside the region."""
        memory = p.memory if isinstance(p, Load) else Memory.RESIDUAL
        if p.rows == 0:
            return
        if p.row + p.rows > memory_depths(self.config)[memory]:
            raise Stopped(ErrorCode.ADDRESS_RANGE, index)
        masters = self.config.load_masters(memory.name) if isinstance(p, Load) else 1
        end = p.offset + p.rows * self.config.row_bytes[memory.name] // masters
        if isinstance(p, Load):
            end += (masters - 1) * p.plane_stride
        if end > len(self.dram[p.base]) or (isinstance(p, Store) and p.base != Base.OUTPUT):
            raise Stopped(ErrorCode.REGION, index)

    def _read(self, index: int, header: Header, p: EnginePayload) -> tuple[Array, ...]:
        """Operands of a command."""
        if isinstance(p, Load | Store):
            self._check(index, p)
        if isinstance(p, Load):
            return (self._load(p),)
        if isinstance(p, Store):
            return (self.pads.residual[p.row : p.row + p.rows].copy(),)
        if isinstance(p, LayerNorm):
            return (self._layernorm(p),)
        assert isinstance(p, MatMul)
        return self._issue(header, p)

    def _load(self, p: Load) -> Array:
        c, name = self.config, p.memory.name
        masters = c.load_masters(name)
        size = c.row_bytes[name] // masters
        memory = self.dram[p.base]
        planes = []
        for master in range(masters):
            start = p.offset + master * p.plane_stride
            planes.append(memory[start : start + p.rows * size].reshape(p.rows, size))
        self.bytes_read += p.rows * size * masters
        rows: Array = np.concatenate(planes, axis=1)
        return rows.view(np.int8).reshape(p.rows, c.lanes_n, c.lanes_k) if name == "WEIGHT" else rows

    def _layernorm(self, p: LayerNorm) -> Array:
        rows = p.src_base + np.arange(p.tokens)[:, None] * p.src_stride + np.arange(p.src_rows)
        x = (
            self.pads.residual[rows]
            .reshape(p.tokens, p.src_rows * self.config.epilogue_lanes)[:, : p.dim]
            .astype(np.int64)
        )
        count = -(-p.dim // self.config.norm_lanes)
        raw = self.pads.norm[p.param_base : p.param_base + count].reshape(-1, 8)[: p.dim]
        gamma = raw[:, :2].copy().view("<i2")[:, 0].astype(np.int64)
        beta = raw[:, 4:].copy().view("<i4")[:, 0].astype(np.int64)
        return ops.layer_norm(x, gamma, beta, p.shift, p.eps)

    def _issue(self, header: Header, p: MatMul) -> tuple[Array, ...]:
        """Accumulators [T, channels], row factors [T], row shifts [T] and destination tokens [T]."""
        tokens, scores = self.pads.queues[header.expert]
        count = len(tokens) if p.use_queue else p.tokens
        plain = np.arange(count)
        rows = p.src_base + (tokens if p.gather else plain)[:, None] * p.src_stride + np.arange(p.k_steps)
        factor, shift = np.zeros(count, np.int64), np.zeros(count, np.int64)
        if p.source == Source.SCORE:
            logits = self.pads.score[rows].reshape(count, p.k_steps * self.config.lanes_k).astype(np.int64)
            maxima = self.pads.row_max[p.max_base : p.max_base + count].astype(np.int64)
            logits[:, p.keys :] = maxima[:, None]
            x, _ = ops.softmax_probabilities(np.concatenate([logits, maxima[:, None]], 1), p.score_shift)
            x = x[:, :-1]
            x[:, p.keys :] = 0
        else:
            raw = self.pads.act[rows].reshape(count, p.k_steps * self.config.lanes_k)
            x = (raw if p.unsigned else raw.view(np.int8)).astype(np.int64)
        if p.row_factor == RowFactor.SOFTMAX:
            factor, shift = ops.reciprocal(np.maximum(x.sum(1), 1))
        elif p.row_factor == RowFactor.GATE:
            factor = scores
        acc = ops.matmul(x, self._stationary_weights(p))[:, : p.channels]
        return acc, factor, shift, tokens if p.scatter else plain

    def _stationary_weights(self, p: MatMul) -> Array:
        """The matrix int8 [tiles * lanes_n, k_steps * lanes_k]."""
        c = self.config
        tile_rows = -(-p.k_steps // 2) if p.nibbles else p.k_steps
        rows = self.pads.weight[p.weight_base : p.weight_base + p.tiles * tile_rows]
        tiles = rows.reshape(p.tiles, tile_rows, c.lanes_n, c.lanes_k)
        if p.nibbles:
            steps = np.stack([tiles << 4 >> 4, tiles >> 4], axis=2)  # of int8, so signs are extended
            tiles = steps.reshape(p.tiles, 2 * tile_rows, c.lanes_n, c.lanes_k)[:, : p.k_steps]
        return tiles.transpose(0, 2, 1, 3).reshape(p.tiles * c.lanes_n, p.k_steps * c.lanes_k)

    # -- writing ---------------------------------------------------------------------------------------------------

    def _write(self, p: EnginePayload, result: tuple[Array, ...]) -> None:
        c, pads = self.config, self.pads
        if isinstance(p, Load):
            name = p.memory.name
            rows = result[0].view("<i2") if name == "RESIDUAL" else result[0]
            getattr(pads, name.lower())[p.row : p.row + p.rows] = rows
        elif isinstance(p, Store):
            data = result[0].astype("<i2").tobytes()
            self.output[p.offset : p.offset + len(data)] = np.frombuffer(data, np.uint8)
        elif isinstance(p, LayerNorm):
            self._write_channels(pads.act, c.lanes_k, p, np.arange(p.tokens), 0, result[0])
        else:
            assert isinstance(p, MatMul)
            self._epilogue(p, *result)

    @staticmethod
    def _places(lanes: int, p: LayerNorm | MatMul, tokens: Array, channel: int, channels: int) -> tuple[Array, Array]:
        channel_numbers = channel + np.arange(channels)
        return p.dst_base + tokens[:, None] * p.dst_stride + channel_numbers // lanes, channel_numbers % lanes

    def _write_channels(
        self, memory: Array, lanes: int, p: LayerNorm | MatMul, tokens: Array, channel: int, values: Array
    ) -> None:
        rows, columns = self._places(lanes, p, tokens, channel, values.shape[1])
        stored = values.astype(np.int16 if memory.dtype == np.int16 else np.int8)
        memory[rows, columns[None, :]] = stored.view(memory.dtype)

    def _epilogue(self, p: MatMul, acc: Array, factor: Array, shift: Array, tokens: Array) -> None:
        c, pads, mode = self.config, self.pads, p.mode
        first = p.param_base
        used = 1 if p.param_uniform else -(-p.channels // c.epilogue_lanes)
        entries = (
            pads.param[first : first + used]
            .reshape(-1)
            .view(np.dtype([("bias", "<i4"), ("multiplier", "<u2"), ("shift", "u1"), ("activation_shift", "u1")]))
        )
        if p.param_uniform:
            entries = np.tile(entries, -(-p.channels // c.epilogue_lanes))
        entries = entries[: p.channels]
        bits = {Mode.RESIDUAL: 16, Mode.GATE: 16, Mode.SCORE: 12}.get(mode, 12 if p.activate else 8)
        scaled = p.row_factor != RowFactor.NONE
        values = ops.requantize(
            acc,
            entries["bias"].astype(np.int64),
            entries["multiplier"].astype(np.int64),
            entries["shift"].astype(np.int64),
            bits,
            factor[:, None] if scaled else None,
            shift[:, None] if scaled else 0,
            ops.CONTEXT_LIMIT if p.source == Source.SCORE else ops.ACCUMULATOR_LIMIT,
        )
        if p.activate:
            values = ops.activate(values, pads.activation.reshape(-1), entries["activation_shift"] & 3)
        if mode == Mode.ACT:
            self._write_channels(pads.act, c.lanes_k, p, tokens, p.dst_channel, values)
        elif mode == Mode.RESIDUAL:
            if p.accumulate:
                rows, columns = self._places(c.epilogue_lanes, p, tokens, p.dst_channel, p.channels)
                values = ops.clamp(pads.residual[rows, columns[None, :]].astype(np.int64) + values, 16)
            self._write_channels(pads.residual, c.epilogue_lanes, p, tokens, p.dst_channel, values)
        elif mode == Mode.SCORE:
            self._write_channels(pads.score, c.lanes_k, p, tokens, 0, values)
            pads.row_max[p.max_base : p.max_base + len(values)] = values[:, : p.keys].max(1)
        elif mode == Mode.GATE:
            self._gate(p, values)
        else:
            self._stationary(p, mode, values)

    def _stationary(self, p: MatMul, mode: Mode, values: Array) -> None:
        """Write keys (a bank is a token) or values (a byte is a token) into the weight scratchpad."""
        c = self.config
        channel = np.arange(values.shape[1])
        head, d = channel // p.head_dim, channel % p.head_dim
        lanes = c.lanes_n if mode == Mode.KEY else c.lanes_k
        token = p.token_rem + np.arange(len(values))[:, None]
        base = p.dst_base + head * p.head_stride
        if mode == Mode.KEY:
            rows = base + token // lanes * p.tile_stride + d // c.lanes_k
            self.pads.weight[rows, token % lanes, d % c.lanes_k] = values
        else:
            rows = base + d // c.lanes_n * p.tile_stride + token // lanes
            self.pads.weight[rows, d % c.lanes_n, token % lanes] = values

    def _gate(self, p: MatMul, logits: Array) -> None:
        empty = np.zeros(0, np.int64)
        if p.gate_first:
            self.pads.queues = [(empty, empty) for _ in range(self.config.max_experts)]
        for expert, (tokens, scores) in enumerate(zip(*ops.expert_queues(logits, p.top_k), strict=True)):
            old_tokens, old_scores = self.pads.queues[expert]
            self.pads.queues[expert] = (
                np.concatenate([old_tokens, tokens + p.max_base]),
                np.concatenate([old_scores, scores]),
            )
