"""How arrays lie in DRAM, for compiler and host alike. NumPy only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgemoe_hw.spec.config import AcceleratorConfig

__all__ = ["ALIGNMENT", "OutputPart", "align", "gather_outputs", "pack_patches", "pack_rows"]

ALIGNMENT = 64
Bytes = npt.NDArray[np.uint8]


def align(value: int, to: int = ALIGNMENT) -> int:
    """The next multiple of ``to``."""
    return -(-value // to) * to


@dataclass(frozen=True)
class OutputPart:
    """Where outputs ``channel`` .. of rows ``token`` .. lie: int16 [tokens, stride] at ``offset`` bytes."""

    offset: int
    token: int
    tokens: int
    channel: int
    channels: int
    stride: int

    def to_list(self) -> list[int]:
        return list(astuple(self))


def pack_rows(config: AcceleratorConfig, memory: str, rows: Bytes) -> tuple[bytes, int, int]:
    """Rows [R, row_bytes] uint8 in DRAM order: (bytes, plane_stride, slice_bytes).

    Each row is divided into one slice for each of the masters that load the memory; a master's slices of all rows lie
    back to back.
    """
    masters = config.load_masters(memory)
    split = rows.reshape(len(rows), masters, -1).transpose(1, 0, 2)
    planes = np.ascontiguousarray(split).reshape(masters, -1)
    stride = align(planes.shape[1])
    padded = np.zeros((masters, stride), np.uint8)
    padded[:, : planes.shape[1]] = planes
    return padded.tobytes(), stride, config.row_bytes[memory] // masters


def pack_patches(config: AcceleratorConfig, patches: Bytes) -> bytes:
    """Patches [P, inputs] uint8 as the INPUT memory: each patch padded to whole activation rows."""
    width = align(patches.shape[1], config.lanes_k)
    padded = np.zeros((len(patches), width), np.uint8)
    padded[:, : patches.shape[1]] = patches
    return pack_rows(config, "ACT", padded.reshape(-1, config.lanes_k))[0]


def gather_outputs(parts: Sequence[OutputPart], memory: bytes | Bytes, rows: int, outputs: int) -> npt.NDArray[Any]:
    """The head's outputs int16 [rows, outputs] from the OUTPUT memory."""
    raw = np.frombuffer(memory, np.uint8) if isinstance(memory, bytes) else memory
    result = np.zeros((rows, outputs), np.int16)
    for part in parts:
        size = 2 * part.tokens * part.stride
        values = raw[part.offset : part.offset + size].copy().view("<i2").reshape(part.tokens, part.stride)
        columns = slice(part.channel, part.channel + part.channels)
        result[part.token : part.token + part.tokens, columns] = values[:, : part.channels]
    return result
