"""Parts of traced tensors: where they lie in the scratchpads, and their comparison with the integer reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edgemoe_hw.spec.config import AcceleratorConfig
from edgemoe_hw.spec.isa import COMMAND_BYTES, EnginePayload, LayerNorm, Load, MatMul, Mode, decode

__all__ = ["Comparison", "Pads", "Part", "TraceChecker"]

Array = npt.NDArray[Any]
Part = Sequence[Any]  # tensor, command, engine, completion, token, tokens, channel, channels, head, expert, sequence


class Pads(Protocol):
    """Scratchpad contents, as ``scratchpads.Scratchpads`` describes them (arrays, or anything indexed like them)."""

    @property
    def weight(self) -> Any: ...
    @property
    def act(self) -> Any: ...
    @property
    def residual(self) -> Any: ...
    @property
    def score(self) -> Any: ...
    @property
    def row_max(self) -> Any: ...
    @property
    def queues(self) -> Sequence[tuple[Array, Array]]: ...
    @property
    def whole_queues(self) -> bool: ...


@dataclass
class Comparison:
    """Result of comparing traced tensors with the reference."""

    tensors: set[str] = field(default_factory=set)
    values: int = 0
    mismatches: int = 0
    first_mismatch: str = ""


class TraceChecker:
    """Compares each traced part when its command has completed.

    Args:
        config: the accelerator
        program: the program's bytes; ``part.command`` + 1 is a command's index in it (BEGIN is 0)
        parts: the program's trace table
        expected: the integer reference's trace of each of the program's token sequences, of its image and task
        heads: attention heads, whose padding the reference does not have
        tokens: of one sequence; queues number those of all sequences, one sequence after the other
    """

    def __init__(
        self,
        config: AcceleratorConfig,
        program: bytes,
        parts: Sequence[Part],
        expected: Sequence[Mapping[str, Any]],
        heads: int,
        tokens: int,
    ) -> None:
        self.config, self.program, self.expected, self.heads, self.tokens = config, program, expected, heads, tokens
        self.result = Comparison()
        self.by_command: dict[int, list[Part]] = {}
        for part in parts:
            self.by_command.setdefault(part[1] + 1, []).append(part)

    def check(self, index: int, pads: Pads) -> None:
        """Compare all parts that the command with this index has completed."""
        for part in self.by_command.get(index, ()):
            self.compare(part, pads)

    def compare(self, part: Part, pads: Pads) -> None:
        """Read one part from the scratchpads and compare it."""
        word = self.program[(part[1] + 1) * COMMAND_BYTES : (part[1] + 2) * COMMAND_BYTES]
        _, payload = decode(word)
        assert isinstance(payload, EnginePayload)
        expected = self._expected(part)
        actual = self._actual(part, payload, pads, len(expected))
        self.result.tensors.add(part[0] if len(self.expected) == 1 else f"{part[10]}: {part[0]}")
        self.result.values += expected.size
        wrong = int((actual != expected).sum()) if actual.shape == expected.shape else expected.size or 1
        if wrong and not self.result.mismatches:
            where = np.argwhere(actual != expected)[0].tolist() if actual.shape == expected.shape else "shape"
            self.result.first_mismatch = (
                f"{part[0]} of sequence {part[10]} at {where} of tokens {part[4]}.., channels {part[6]}.., "
                f"head {part[8]} "
                f"(command {part[1] + 1}): expected {expected.ravel()[:4].tolist()}.., "
                f"found {actual.ravel()[:4].tolist()}.."
            )
        self.result.mismatches += wrong

    def check_lengths(self, block: str, lengths: Sequence[int]) -> None:
        """Compare the lengths of a block's expert queues, with the tokens of all sequences in them."""
        queues = (trace[f"{block}.queues"] for trace in self.expected)
        expected = [sum(map(len, of_expert)) for of_expert in zip(*queues, strict=True)]
        if list(lengths) != expected:
            self.result.mismatches += 1
            self.result.first_mismatch = (
                self.result.first_mismatch or f"{block}: expert queues hold {list(lengths)} tokens, expected {expected}"
            )

    def _expected(self, part: Part) -> Array:
        """The reference's values of a part; head padding is filled with the hardware's zeros."""
        tensor, _, _, _, token, tokens, channel, channels, head, expert, sequence = part
        name = tensor.rsplit(".", 1)[-1]
        if expert >= 0:
            queued = [self._queued(tensor, name, expert, number) for number in range(sequence + 1)]
            values = np.concatenate(queued)
            return values if values.ndim == 1 else values[:, channel : channel + channels]
        value = self.expected[sequence][tensor]
        if name in ("scores", "score_max"):
            return np.asarray(value[head])[token : token + tokens]
        if name in ("q", "k", "v", "context"):
            value = np.asarray(value).reshape(len(value), self.heads, -1)
            padded = -(-value.shape[2] // self.config.lanes_k) * self.config.lanes_k
            value = np.pad(value, ((0, 0), (0, 0), (0, padded - value.shape[2]))).reshape(len(value), -1)
        return np.asarray(value)[token : token + tokens, channel : channel + channels]

    def _queued(self, tensor: str, name: str, expert: int, sequence: int) -> Array:
        """What a sequence has in an expert's queue: token numbers of the program, scores or hidden rows."""
        value = self.expected[sequence][tensor]
        if name == "queues":
            return np.asarray(value[expert]) + sequence * self.tokens
        return np.asarray(value[expert] if name == "gate_scores" else value)

    def _actual(self, part: Part, p: EnginePayload, pads: Pads, count: int) -> Array:
        tensor, channels, expert = part[0], part[7], part[9]
        name = tensor.rsplit(".", 1)[-1]
        if name in ("queues", "gate_scores"):
            # A queue may be given as its whole memory; its length is then compared elsewhere.
            queue = np.asarray(pads.queues[expert][int(name == "gate_scores")])
            return queue[:count] if pads.whole_queues else queue
        c = self.config
        if isinstance(p, Load):
            rows = -(-channels // c.epilogue_lanes)
            return np.asarray(pads.residual[p.row : p.row + count * rows]).reshape(count, -1)[:, :channels]
        assert isinstance(p, MatMul | LayerNorm)
        mode, first = (p.mode, p.dst_channel) if isinstance(p, MatMul) else (Mode.ACT, 0)
        if isinstance(p, MatMul):
            if name == "score_max":
                return np.asarray(pads.row_max[p.max_base : p.max_base + count])
            if mode in (Mode.KEY, Mode.VALUE):
                return self._stationary(p, mode, pads, count, channels)
        lanes = c.epilogue_lanes if mode == Mode.RESIDUAL else c.lanes_k
        number = first + np.arange(channels)
        token = np.arange(count)[:, None]
        if isinstance(p, MatMul) and p.scatter:  # to all sequences at once
            token += part[10] * self.tokens
        rows = p.dst_base + token * p.dst_stride + (number // lanes)[None, :]
        memory = {Mode.RESIDUAL: pads.residual, Mode.SCORE: pads.score}.get(mode, pads.act)
        values = np.asarray(memory[rows, (number % lanes)[None, :]])
        return values.view(np.int8) if mode == Mode.ACT else values

    def _stationary(self, p: MatMul, mode: Mode, pads: Pads, count: int, channels: int) -> Array:
        c, number = self.config, np.arange(channels)
        head, d = number // p.head_dim, number % p.head_dim
        lanes = c.lanes_n if mode == Mode.KEY else c.lanes_k
        token = p.token_rem + np.arange(count)[:, None]
        base = p.dst_base + head * p.head_stride
        if mode == Mode.KEY:
            rows = base + token // lanes * p.tile_stride + d // c.lanes_k
            return np.asarray(pads.weight[rows, token % lanes, d % c.lanes_k])
        rows = base + d // c.lanes_n * p.tile_stride + token // lanes
        return np.asarray(pads.weight[rows, d % c.lanes_n, token % lanes])
