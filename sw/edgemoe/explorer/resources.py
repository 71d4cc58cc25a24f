"""Resources of a configuration without Yosys: blocks by geometry, LUTs and flip-flops by a fitted linear model."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgemoe.boards.synth import RESOURCES, FpgaDevice
from edgemoe.explorer.memories import rams, taken
from edgemoe.explorer.terms import PARTS, terms
from edgemoe_hw.spec.config import AcceleratorConfig
from edgemoe_models.storage.json_text import read_json

__all__ = ["COEFFICIENTS", "FITTED", "Fitted", "LIMITS", "Coefficients", "dsps", "estimate", "fitted", "over", "share"]

#: Resources of the linear model; the others follow from geometry.
FITTED = ("lut", "ff")
#: By family, resource, part and term: LUTs or flip-flops of one unit of the term.
Coefficients = dict[str, dict[str, dict[str, dict[str, float]]]]
COEFFICIENTS = Path(__file__).with_name("coefficients.json")
#: Share of a device that a configuration may take by the model. LUTs and flip-flops have to be placed and routed;
#: blocks are counted, and the boards' own configurations take up to 99 % of one kind.
LIMITS = {"lut": 0.85, "ff": 0.85, "dsp": 1.0, "bram36": 1.0, "uram": 1.0}

_REQUANTIZE, _NORM_LANE, _OTHER = 2, 3, 4  # DSPs of an epilogue lane, of a LayerNorm lane; LayerNorm's, gate's, issue's


@dataclass(frozen=True)
class Fitted:
    """The linear model's coefficients, and how far it is from Yosys.

    Attributes:
        coefficients: of the families
        errors: of each resource: ``runs``, ``worst`` and ``worst_left_out`` (relative; by a model that has not seen
            the run)
        clocks: MHz that static timing estimated for the boards' own configurations
    """

    coefficients: Coefficients
    errors: dict[str, Any]
    clocks: dict[str, float]


@functools.lru_cache(maxsize=1)
def fitted(path: Path = COEFFICIENTS) -> Fitted:
    """The fitted model that the package has.

    Raises:
        ValueError: the file is not what ``tools/explorer_record.py`` writes
    """
    values = read_json(path)
    if not isinstance(values, dict) or {"coefficients", "errors", "clocks"} - values.keys():
        raise ValueError(f"{path} has no coefficients: python tools/explorer_record.py writes them")
    return Fitted(values["coefficients"], values["errors"], values["clocks"])


def dsps(config: AcceleratorConfig) -> int:
    """DSPs: two products of the array share one; epilogue, LayerNorm, gate and issue multiply too."""
    array = config.lanes_k * config.lanes_n // 2
    return array + _REQUANTIZE * config.epilogue_lanes + _NORM_LANE * config.norm_lanes + _OTHER


def estimate(config: AcceleratorConfig, family: str, model: Coefficients | None = None) -> dict[str, float]:
    """LUTs, flip-flops, DSPs, block RAMs of 36 Kbit and UltraRAMs of a configuration.

    Args:
        config: with the family's ``dsp_chain`` (``terms.CHAINS``); of another one LUTs and flip-flops are not known
        family: of the FPGA, as Yosys names it
        model: coefficients; default: the package's

    Raises:
        ValueError: nothing was fitted for this family
    """
    model = fitted().coefficients if model is None else model
    if family not in model:
        raise ValueError(f"no resources are known for family {family!r}; known: {', '.join(model)}")
    values, blocks = terms(config), [taken(ram) for ram in rams(config)]
    found: dict[str, float] = {
        resource: round(
            sum(
                model[family][resource].get(part, {}).get(name, 0.0) * values[name]
                for part, names in PARTS.items()
                for name in names
            )
        )
        for resource in FITTED
    }
    found["lut"] += round(sum(block.lut for block in blocks))
    found["dsp"] = dsps(config)
    found["bram36"] = sum(block.bram36 for block in blocks)
    found["uram"] = sum(block.uram for block in blocks)
    return found


def share(found: dict[str, float], device: FpgaDevice) -> float:
    """The largest share of a device's resources that is taken; infinite where one is taken that it has not."""
    return max(
        found[resource] / device.capacity[resource] if device.capacity[resource] else float("inf")
        for resource in RESOURCES
        if found[resource]
    )


def over(found: dict[str, float], device: FpgaDevice) -> list[str]:
    """Resources of which a configuration takes more than ``LIMITS`` allow, as text."""
    return [
        f"{resource} {found[resource]:,g} of {room:,} ({limit:.0%} allowed)"
        for resource, limit in LIMITS.items()
        if found[resource] > limit * (room := device.capacity[resource])
    ]
