"""The DRAM image: weights and parameters laid out exactly as the masters read them.

Every object is a sequence of scratchpad rows. A row is divided into one slice a master; master ``m`` reads all its
slices back to back from ``offset + m * plane_stride``, so that each master's traffic is one linear burst.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgemoe.layout import align, pack_rows
from edgemoe_hw.spec.config import AcceleratorConfig
from edgemoe_models.graph.integer_graph import IntegerLayerNorm, IntegerLinear, Requant

__all__ = ["DramImage", "DramObject", "WeightLayout", "spread_heads"]


@dataclass(frozen=True)
class DramObject:
    """Rows in DRAM: ``rows`` rows for ``memory``, a slice of ``slice_bytes`` a row and master."""

    memory: str
    offset: int
    plane_stride: int
    slice_bytes: int
    rows: int

    def row_offset(self, row: int) -> int:
        """DRAM offset of one row's slice for master 0."""
        return self.offset + row * self.slice_bytes


@dataclass(frozen=True)
class WeightLayout:
    """A linear layer in DRAM and its shape in scratchpad rows.

    ``outputs`` and ``inputs`` are the padded matrix's real extents, ``tiles`` = ceil(outputs / lanes_n), ``k_steps`` =
    ceil(inputs / lanes_k); ``macs`` counts the model's own products for one token (without padding). With ``nibbles`` a
    row holds two steps' weights: bytes of int4 pairs, the even step's in the low nibbles.
    """

    name: str
    weight: DramObject
    params: DramObject
    outputs: int
    inputs: int
    tiles: int
    k_steps: int
    macs: int
    nibbles: bool

    @property
    def tile_rows(self) -> int:
        """Weight rows of one tile."""
        return -(-self.k_steps // 2) if self.nibbles else self.k_steps


def pack_nibbles(rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Steps of tiles int8 [tiles, k_steps, ...] in -8..7, two a row: uint8 [tiles, ceil(k_steps / 2), ...]."""
    even, odd = rows[:, 0::2].view(np.uint8), rows[:, 1::2].view(np.uint8)
    packed = even & 15
    packed[:, : odd.shape[1]] |= odd << 4
    return packed


def spread_heads(array: npt.NDArray[Any], heads: int, padded: int) -> npt.NDArray[Any]:
    """Zero-pad each head along axis 0: [heads * head_dim, ...] -> [heads * padded, ...]."""
    split = array.reshape(heads, -1, *array.shape[1:])
    out = np.zeros((heads, padded, *array.shape[1:]), array.dtype)
    out[:, : split.shape[1]] = split
    return out.reshape(heads * padded, *array.shape[1:])


class DramImage:
    """Collects objects; an object with a key that is there already is shared, not stored again."""

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        self._parts: list[bytes] = []
        self._size = 0
        self._objects: dict[str, DramObject] = {}
        self._layouts: dict[str, WeightLayout] = {}

    @property
    def size(self) -> int:
        return self._size

    def tobytes(self) -> bytes:
        return b"".join(self._parts)

    def add_rows(self, key: str, memory: str, rows: npt.NDArray[Any]) -> DramObject:
        """Store rows [R, row_bytes] uint8 once under ``key``."""
        if key not in self._objects:
            data, stride, slice_bytes = pack_rows(self.config, memory, rows)
            self._objects[key] = DramObject(memory, self._size, stride, slice_bytes, len(rows))
            self._parts.append(data)
            self._size += len(data)
        return self._objects[key]

    def add_linear(self, name: str, linear: IntegerLinear, macs: int | None = None) -> WeightLayout:
        """Store a linear layer once under ``name``, two weights a byte where they have 4 bits.

        ``macs``: when its matrix has padding of its own.
        """
        if name not in self._layouts:
            c = self.config
            tiles, steps = -(-linear.outputs // c.lanes_n), -(-linear.inputs // c.lanes_k)
            padded = np.zeros((tiles * c.lanes_n, steps * c.lanes_k), np.int8)
            padded[: linear.outputs, : linear.inputs] = linear.weight
            rows = np.ascontiguousarray(padded.reshape(tiles, c.lanes_n, steps, c.lanes_k).transpose(0, 2, 1, 3))
            packed = pack_nibbles(rows) if linear.bits == 4 else rows.view(np.uint8)
            stored = self.add_rows(name + ".weight", "WEIGHT", packed.reshape(-1, c.lanes_n * c.lanes_k))
            params = self.add_params(name, tiles * c.lanes_n, linear)
            macs = linear.weight.size if macs is None else macs
            self._layouts[name] = WeightLayout(
                name, stored, params, linear.outputs, linear.inputs, tiles, steps, macs, linear.bits == 4
            )
        return self._layouts[name]

    def add_params(self, name: str, count: int, linear: IntegerLinear) -> DramObject:
        """Store a linear layer's requantize parameters, zero-padded to ``count`` channels."""
        fields = [("bias", "<i4"), ("multiplier", "<u2"), ("shift", "u1"), ("activation_shift", "u1")]
        entries = np.zeros(count, np.dtype(fields))
        for field, _ in fields:
            if (values := getattr(linear, field)) is not None:
                entries[field][: linear.outputs] = values
        rows = entries.view(np.uint8).reshape(count // self.config.epilogue_lanes, -1)
        return self.add_rows(name + ".params", "PARAM", rows)

    def add_uniform(self, name: str, requant: Requant) -> DramObject:
        """Store one parameter row with the same multiplier and shift for all channels, without bias."""
        count = self.config.epilogue_lanes
        uniform = IntegerLinear(
            np.zeros((count, 1), np.int8),
            np.zeros(count, np.int32),
            np.full(count, requant.multiplier, np.uint16),
            np.full(count, requant.shift, np.uint8),
        )
        return self.add_params(name, count, uniform)

    def add_norm(self, name: str, norm: IntegerLayerNorm) -> DramObject:
        """Store LayerNorm parameters."""
        gamma, beta = norm.gamma, norm.beta
        lanes = self.config.norm_lanes
        entries = np.zeros(align(len(gamma), lanes), np.dtype([("gamma", "<i2"), ("pad", "<u2"), ("beta", "<i4")]))
        entries["gamma"][: len(gamma)] = gamma
        entries["beta"][: len(gamma)] = beta
        return self.add_rows(name, "NORM", entries.view(np.uint8).reshape(len(entries) // lanes, -1))

    def add_activation(self, table: npt.NDArray[Any]) -> DramObject:
        """Store an activation function's table uint8 [512]; equal tables share one object."""
        data = np.asarray(table, np.uint8)
        return self.add_rows(
            "activation:" + data.tobytes().hex(), "ACTIVATION", data.reshape(-1, self.config.axi_bytes)
        )

    def add_residual(self, name: str, values: npt.NDArray[Any]) -> DramObject:
        """Store residual rows from int16 [T, D]; each token starts a new row."""
        lanes = self.config.epilogue_lanes
        padded = np.zeros((len(values), align(values.shape[1], lanes)), "<i2")
        padded[:, : values.shape[1]] = values
        return self.add_rows(name, "RESIDUAL", padded.reshape(-1, lanes).view(np.uint8))
