"""What LUTs and flip-flops of each part of the accelerator grow with: the terms of the linear model.

A part is a unit of the RTL or some of them; its terms are what its structure repeats. Most are worth the same on all
families, which have the same LUTs and flip-flops; a family's own are those of units with DSPs (``OWN``), since DSPs of
one take in more of the registers around them than those of another, and chains are longer.
"""

from __future__ import annotations

from collections.abc import Mapping

from edgemoe.explorer.memories import rams, taken
from edgemoe_hw.spec.config import AcceleratorConfig

__all__ = ["CHAINS", "OWN", "PARTS", "part_of", "terms"]

#: Products that a cascade of DSPs sums, by family: the most that its multipliers allow, which takes the fewest adders.
CHAINS = {"xc7": 2, "xcup": 4}

_UNITS = {
    "compute.operands": "array",
    "compute.epilogue": "epilogue",
    "compute.weight": "weight",
    "compute.act": "memories",
    "compute.residual": "memories",
    "compute.score": "memories",
    "compute.param": "memories",
    "compute.maximum": "memories",
    "compute.act_writes": "memories",
    "compute.norm": "norm",
    "compute.gate": "gate",
}
_REST = "rest"  # control, loads, stores, the ports and what has no name
#: Parts of the accelerator, each with the names of its terms.
PARTS: dict[str, tuple[str, ...]] = {
    "array": ("lanes_k * lanes_n", "lanes_n", "lanes_k"),
    "epilogue": ("epilogue_lanes", "lanes_n"),
    "weight": ("lanes_k * lanes_n", "lanes_n"),
    "memories": ("lanes_k + 2 * epilogue_lanes", "stacked bits"),
    "norm": ("1", "norm_lanes", "lanes_k + epilogue_lanes"),
    "gate": ("1", "epilogue_lanes"),
    "rest": ("1", "axi_masters", "axi_masters * axi_bytes"),
}
#: Terms that every family has coefficients of its own for.
OWN = {("array", name) for name in PARTS["array"]} | {("epilogue", "epilogue_lanes"), ("norm", "norm_lanes")}


def part_of(unit: str) -> str:
    """The part that a unit of ``synthesize``'s result counts for."""
    return _UNITS.get(unit, _REST)


def terms(config: AcceleratorConfig) -> Mapping[str, float]:
    """Values of all terms for a configuration, by name."""
    return {
        "1": 1.0,
        "lanes_k * lanes_n": config.lanes_k * config.lanes_n,
        "lanes_n": config.lanes_n,
        "lanes_k": config.lanes_k,
        "epilogue_lanes": config.epilogue_lanes,
        "norm_lanes": config.norm_lanes,
        "lanes_k + epilogue_lanes": config.lanes_k + config.epilogue_lanes,
        "lanes_k + 2 * epilogue_lanes": config.lanes_k + 2 * config.epilogue_lanes,
        "stacked bits": sum(taken(ram).muxed for ram in rams(config)),
        "axi_masters": config.axi_masters,
        "axi_masters * axi_bytes": config.axi_masters * config.axi_bytes,
    }
