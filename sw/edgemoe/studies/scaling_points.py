"""What ``make scaling`` varies: points of models and hardware around one base, and the axes that they lie on."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from edgemoe.bundle import Joined
from edgemoe.compiler import CompilerOptions
from edgemoe.compiler.fits import shortages
from edgemoe_hw.spec import constants
from edgemoe_hw.spec.config import PRESETS as PRESET_CONFIGS
from edgemoe_hw.spec.config import AcceleratorConfig
from edgemoe_models.config import PRESETS, ModelConfig, TaskConfig

__all__ = ["ARRAYS", "AXES", "BASE", "GRIDS", "Point", "hardware", "model_of"]

#: Arrays by their MACs a cycle: ``lanes_k``, ``lanes_n``, ``epilogue_lanes``, ``norm_lanes``, as the presets and boards
#: have them or between.
ARRAYS: Mapping[int, tuple[int, int, int, int]] = {
    64: (8, 8, 8, 2),
    128: (8, 16, 8, 2),
    256: (16, 16, 8, 2),
    384: (16, 24, 8, 2),
    512: (16, 32, 16, 4),
    1024: (32, 32, 16, 8),
    2048: (32, 64, 32, 16),
    4096: (64, 64, 32, 16),
}

#: Patches down and across by tokens. 1025 would be one more than a program can have, so its class token is left out.
GRIDS: Mapping[int, tuple[int, int]] = {
    65: (8, 8),
    129: (8, 16),
    257: (16, 16),
    513: (16, 32),
    1024: (32, 32),
}

_TASKS = ("segmentation", "depth", "normals", "edges")
_CHANNELS = {"segmentation": 8, "normals": 3}
_CLOCK_MHZ = 100.0
_LEAST_WEIGHT_ROWS = 512  # what a block RAM of 72 bits has
_LEAST_SCORE_ROWS = 1024


@dataclass(frozen=True)
class Point:
    """A model and the hardware that it runs on.

    Attributes:
        macs: of the array in a cycle, a key of ``ARRAYS``
        tokens: of an image, a key of ``GRIDS``
        experts: of a MoE block; a token visits two, or the only one
        tasks: of one program
        images: of one program
        bandwidth: DRAM bytes a cycle
        ports: bytes a cycle that the read masters can take; 0: four masters, of 16 bytes each where the array is wide
            enough, else of 8
        expert_bits: of experts' weights
        expert_prefetch: of the compiler: ``auto`` or ``off``
        attention_group: of the compiler: queries for which keys and values are fetched anew; 0: they are stationary
        depth: blocks of the model; every other one has experts
        preset: hardware of this preset, with the point's bandwidth; empty: with memories that are deep enough
    """

    macs: int = 384
    tokens: int = 129
    experts: int = 16
    tasks: int = 1
    images: int = 1
    bandwidth: int = 16
    ports: int = 0
    expert_bits: int = 8
    expert_prefetch: Literal["auto", "off"] = "auto"
    attention_group: int = 0
    depth: int = 4
    preset: str = ""

    @property
    def joined(self) -> Joined:
        """The program's tasks and images."""
        return Joined(_TASKS[: self.tasks], self.images)

    @property
    def options(self) -> CompilerOptions:
        """Of the compiler."""
        return CompilerOptions(expert_prefetch=self.expert_prefetch, attention_group=self.attention_group)

    def but(self, **changed: Any) -> Point:
        """The point with these fields changed."""
        return dataclasses.replace(self, **changed)


#: What every axis varies one figure of.
BASE = Point()

#: The values of each axis, by the field of ``Point``.
AXES: Mapping[str, tuple[int, ...]] = {
    "macs": tuple(ARRAYS),
    "tokens": tuple(GRIDS),
    "experts": (1, 2, 4, 8, 16, 32),
    "tasks": (1, 2, 3, 4),
    "images": (1, 2, 3, 4),
    "bandwidth": (4, 8, 16, 32, 64),
}


def model_of(point: Point) -> ModelConfig:
    """The point's model: m3vit-tiny's widths, fewer blocks. A single expert is as wide as two, for the same work."""
    down, across = GRIDS[point.tokens]
    alone = point.experts == 1
    return dataclasses.replace(
        PRESETS["m3vit-tiny"],
        name="scaling",
        image_height=16 * down,
        image_width=16 * across,
        depth=point.depth,
        num_experts=point.experts,
        top_k=1 if alone else 2,
        expert_hidden=768 if alone else 384,
        prefix_tokens=point.tokens - down * across,
        tasks=tuple(TaskConfig(kind, kind, _CHANNELS.get(kind, 1), cells=4) for kind in _TASKS[: point.tasks]),
    )


def hardware(point: Point) -> AcceleratorConfig:
    """The point's accelerator: a preset, or one whose memories are as deep as the axes need them, not as a board has
    them.

    They are the same for all points of an array, but for those of more than 257 tokens, which need deeper ones.

    Raises:
        ValueError: the preset's array is another
    """
    if point.preset:
        preset = PRESET_CONFIGS[point.preset]
        if preset.macs_per_cycle != point.macs:
            raise ValueError(f"{point.preset} has {preset.macs_per_cycle} MACs, not {point.macs}")
        return dataclasses.replace(preset, dram_gb_per_second=point.bandwidth * preset.assumed_clock_mhz / 1000)
    lanes_k, lanes_n, epilogue_lanes, norm_lanes = ARRAYS[point.macs]
    config = AcceleratorConfig(
        name=f"scaling-{lanes_k}x{lanes_n}",
        lanes_k=lanes_k,
        lanes_n=lanes_n,
        epilogue_lanes=epilogue_lanes,
        norm_lanes=norm_lanes,
        max_dim=256,
        max_tokens=constants.MAX_TOKENS,
        max_experts=constants.MAX_EXPERTS,
        dram_latency=64,
        assumed_clock_mhz=_CLOCK_MHZ,
        dram_gb_per_second=point.bandwidth * _CLOCK_MHZ / 1000,
        **_depths(point.macs),
        **_ports(lanes_k, point.ports),
    )
    return dataclasses.replace(config, **_missing(config, point))


def _ports(lanes_k: int, ports: int) -> dict[str, Any]:
    size = 16 if lanes_k >= 16 and ports != 8 else 8
    return {"axi_bytes": size, "axi_masters": ports // size if ports else 4}


@functools.cache
def _depths(macs: int) -> dict[str, Any]:
    """Rows of the memories of an array: enough for four tasks or images, or for twice the tokens."""
    lanes_k, lanes_n, epilogue_lanes, norm_lanes = ARRAYS[macs]
    shallow = AcceleratorConfig(
        lanes_k=lanes_k,
        lanes_n=lanes_n,
        epilogue_lanes=epilogue_lanes,
        norm_lanes=norm_lanes,
        max_tokens=constants.MAX_TOKENS,
        max_experts=constants.MAX_EXPERTS,
        act_depth=1,
        residual_depth=1,
        score_depth=_LEAST_SCORE_ROWS,
        weight_depth=_LEAST_WEIGHT_ROWS,
        **_ports(lanes_k, 0),
    )
    reach = (Point(tasks=4), Point(images=4), Point(tokens=257))
    found: dict[str, int] = {}
    for point in reach:
        for field, need in _missing(shallow, point).items():
            found[field] = max(found.get(field, 0), need)
    return {"score_depth": _LEAST_SCORE_ROWS, "weight_depth": _LEAST_WEIGHT_ROWS, **found}


def _missing(config: AcceleratorConfig, point: Point) -> dict[str, Any]:
    """Fields that are too small for a point, with what they must be."""
    found = shortages(model_of(point), config, point.options, point.joined)
    return {shortage.field: shortage.need for shortage in found if shortage.field}
