"""Tokens for the operand path: their steps, the contents of the memories that these read, and what must come out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from amaranth.lib import data

from edgemoe_hw.engines.matmul.records import RowScale, StepMeta, TileMeta
from edgemoe_hw.spec.config import AcceleratorConfig
from edgemoe_hw.spec.constants import MAX_TOKENS, accumulator_bits
from edgemoe_hw.spec.timing import ACT_READ, SCORE_READ, WEIGHT_READ
from support import golden

__all__ = ["READ_CYCLES", "Memories", "Step", "pack"]

ROWS = 512  # of every memory here
READ_CYCLES = {"act": ACT_READ, "weight": WEIGHT_READ, "score": SCORE_READ, "maximum": SCORE_READ}


def pack(struct: type[data.Struct], values: dict[str, Any]) -> int:
    """A struct's bits."""
    word = 0
    for name, field in data.Layout.cast(struct):
        value = pack(TileMeta, values[name]) if name == "tile" else int(values[name])
        assert 0 <= value < 1 << field.width, name
        word |= value << field.offset
    return word


@dataclass
class Step:
    """One step; a tile's last one has what the tile must give.

    Attributes:
        fields: of ``StepMeta``
        result: the tile's accumulators
        scale: the token's row factor, if it has one: bits of a ``RowScale``
    """

    fields: dict[str, Any]
    result: list[int] | None = None
    scale: int | None = None

    @property
    def word(self) -> int:
        return pack(StepMeta, self.fields)

    @property
    def meta(self) -> int:
        """The tile's, packed."""
        return pack(TileMeta, self.fields["tile"])


class Memories:
    """Contents of the four memories of one configuration."""

    def __init__(self, config: AcceleratorConfig, seed: int) -> None:
        k, n = config.lanes_k, config.lanes_n
        self.config, self.rng = config, np.random.default_rng(seed)
        rng = self.rng
        self.act = rng.integers(0, 256, (ROWS, k)).astype(np.uint8)
        self.act[self.act == 128] = 0
        self.weight = rng.integers(-127, 128, (ROWS, n, k)).astype(np.int8)
        self.score = rng.integers(-150, 150, (ROWS, k)) + rng.choice([-1800, 0, 1800], (ROWS, 1))
        self.maximum = rng.integers(-2047, 2048, 2 * MAX_TOKENS)

    def flatten(self, value: int) -> None:
        """All scores equal and all weights at their limits: no sum can be larger."""
        self.score[:] = value
        self.weight[:] = np.where(np.arange(self.config.lanes_n) % 2, 127, -127)[None, :, None]

    def reply(self, name: str, row: int) -> int:
        """A memory's data word."""
        if name == "maximum":
            return int(self.maximum[row]) & 0xFFF
        if name == "score":
            return sum((int(score) & 0xFFF) << 12 * lane for lane, score in enumerate(self.score[row % ROWS]))
        return int.from_bytes(getattr(self, name)[row % ROWS].tobytes(), "little")

    def token(self, number: int) -> list[Step]:
        """A random token's steps, tile by tile."""
        rng = self.rng
        k_steps, source = int(rng.integers(1, 6)), int(rng.integers(2))
        keys = int(rng.integers(1, k_steps * self.config.lanes_k + 1))
        return self.steps(
            number,
            k_steps,
            int(rng.integers(1, 4)),
            source=source,
            nibbles=int(rng.integers(2)),
            keys=keys,
            score_shift=int(rng.integers(4)),
            unsigned=int(source or rng.integers(2)),
            softmax=int(source and rng.integers(4) > 0),
        )

    def steps(self, number: int, k_steps: int, tiles: int, **common: int) -> list[Step]:
        """The steps of a token that reads ``k_steps`` rows for each of its tiles."""
        rng, k = self.rng, self.config.lanes_k
        source_row, weight_base = (int(row) for row in rng.integers(0, ROWS - max(16, k_steps), 2))
        rows = range(source_row, source_row + k_steps)
        if common["source"]:
            x = self._probabilities(self.score[rows].ravel(), common["keys"], common["score_shift"], number)
        else:
            raw = self.act[rows].ravel()
            x = (raw if common["unsigned"] else raw.view(np.int8)).astype(int)
        row, shift = golden.reciprocal(int(x.sum())) if common["softmax"] else (0, 0)
        scale = pack(RowScale, {"row": row, "shift": shift}) if common["softmax"] else None
        steps = []
        for tile in range(tiles):
            meta = {
                "first_tile": tile == 0,
                "last_of_command": rng.integers(2),
                "index": rng.integers(2 * MAX_TOKENS),
                "dst_offset": rng.integers(65536),
                "score": rng.integers(65536),
            }
            total = np.zeros(self.config.lanes_n, int)
            for step in range(k_steps):
                place, weights = self._weights(weight_base, tile, k_steps, step, bool(common["nibbles"]))
                total += weights.astype(int) @ x[step * k : (step + 1) * k]
                fields = {
                    "valid": 1,
                    "first": step == 0,
                    "last": step == k_steps - 1,
                    "first_tile": tile == 0,
                    "maximum_row": number,
                    "step": step,
                    "source_row": source_row + step,
                    "weight_row": place,
                    "tile": meta,
                }
                steps.append(Step(common | fields))
            assert np.abs(total).max() < 1 << accumulator_bits(self.config.max_tokens) - 1
            steps[-1].result, steps[-1].scale = total.tolist(), scale
        return steps

    def _weights(self, base: int, tile: int, k_steps: int, step: int, nibbles: bool) -> tuple[int, np.ndarray]:
        """A step's row and its weights."""
        if not nibbles:
            place = base + tile * k_steps + step
            return place, self.weight[place % ROWS]
        place = base + tile * (k_steps + 1 >> 1) + (step >> 1)
        weights = self.weight[place % ROWS]
        return place, weights >> 4 if step & 1 else weights << 4 >> 4

    def _probabilities(self, scores: np.ndarray, keys: int, shift: int, number: int) -> np.ndarray:
        largest = int(scores[:keys].max())
        self.maximum[number] = largest
        real = [golden.probability(int(score), largest, shift) for score in scores[:keys]]
        return np.array(real + [0] * (len(scores) - keys))
