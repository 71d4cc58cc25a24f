"""The RTL's scratchpads, read without taking time, in the shape of ``scratchpads.Scratchpads``."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from edgemoe_hw.spec.constants import GATE_SCORE_BITS, SCORE_BITS, TOKEN_BITS
from edgemoe_sim.verilated import VerilatedModel

__all__ = ["RtlPads"]


class RtlPads:
    """On-chip memories of a Verilated accelerator, fetched when first used; make a new one after each stop."""

    whole_queues = True  # the lengths are in registers, and reading those takes cycles in which memories change

    def __init__(self, model: VerilatedModel) -> None:
        self._model = model
        self._config = model.config
        self._cache: dict[str, npt.NDArray[Any]] = {}

    def _sliced(self, name: str, dtype: str) -> npt.NDArray[Any]:
        if name not in self._cache:
            masters = range(self._config.load_masters(name.upper()))
            rows = np.concatenate([self._slice(f"compute.{name}.slice_{m}") for m in masters], axis=1)
            self._cache[name] = np.ascontiguousarray(rows).view(dtype)
        return self._cache[name]

    def _slice(self, name: str) -> npt.NDArray[np.uint8]:
        """A master's slice; its last few rows may be a memory of their own."""
        names = [name, f"{name}_last"] if f"{name}_last" in self._model.memories() else [name]
        return np.concatenate([self._model.peek(part) for part in names])

    @property
    def act(self) -> npt.NDArray[Any]:
        return self._sliced("act", "u1")

    @property
    def residual(self) -> npt.NDArray[Any]:
        return self._sliced("residual", "<i2")

    @property
    def weight(self) -> npt.NDArray[Any]:
        if "weight" not in self._cache:
            c = self._config
            banks = [self._model.peek(f"compute.weight.bank_{lane}") for lane in range(c.lanes_n)]
            self._cache["weight"] = np.stack(banks, axis=1).view(np.int8)
        return self._cache["weight"]

    @property
    def score(self) -> _Scores:
        return _Scores(self._model.peek("compute.score"), self._config.lanes_k)

    @property
    def row_max(self) -> npt.NDArray[Any]:
        raw = self._model.peek("compute.maximum").astype(np.int64)
        return _signed(raw[:, 0] | (raw[:, 1] & 15) << 8)

    @property
    def queues(self) -> list[tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
        """(token numbers, gate scores) of each expert: as many as its queue can hold."""
        raw = self._model.peek("compute.gate.queue").astype(np.int64)
        word = (raw << 8 * np.arange(raw.shape[1])).sum(1).reshape(self._config.max_experts, -1)
        return [(row & (1 << TOKEN_BITS) - 1, row >> TOKEN_BITS & (1 << GATE_SCORE_BITS) - 1) for row in word]


class _Scores:
    """Packed 12-bit scores, unpacked where they are indexed: ``scores[rows, lanes]``."""

    def __init__(self, raw: npt.NDArray[Any], lanes: int) -> None:
        self._raw, self._lanes = raw, lanes

    def __getitem__(self, index: tuple[npt.NDArray[Any], npt.NDArray[Any]]) -> npt.NDArray[Any]:
        rows, lanes = np.broadcast_arrays(*index)
        byte = lanes * SCORE_BITS // 8
        pair = self._raw[rows, byte].astype(np.int64) | self._raw[rows, byte + 1].astype(np.int64) << 8
        return _signed(pair >> lanes * SCORE_BITS % 8 & (1 << SCORE_BITS) - 1)


def _signed(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.where(values >= 1 << (SCORE_BITS - 1), values - (1 << SCORE_BITS), values)
