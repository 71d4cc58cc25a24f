"""Memories as deep as models need: the least depths of a configuration, and the nearest one that takes the models."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgemoe.boards.board import Board
from edgemoe.compiler.errors import CompileError
from edgemoe.compiler.fits import fits, shortages
from edgemoe.explorer.memories import free_rows
from edgemoe.explorer.resources import estimate, over
from edgemoe.explorer.terms import CHAINS
from edgemoe_hw.spec.config import AcceleratorConfig, ConfigError
from edgemoe_models.config import ModelConfig

__all__ = ["Change", "changes", "deep_enough", "least_depths", "nearest", "smaller_arrays"]

_DEPTHS = ("act_depth", "residual_depth", "score_depth")
_SMALLEST: dict[str, Any] = {
    "act_depth": 1,
    "residual_depth": 1,
    "score_depth": 1,
    "max_dim": 8,
    "max_tokens": 1,
    "max_experts": 1,
}
_QUERIES = 32  # of a group: with SCORE for two such groups, queries go in groups as other layers' tokens do
_DIM_STEP = 64


@dataclass(frozen=True)
class Change:
    """A field that differs from what was asked for, and why."""

    field: str
    before: Any
    after: Any
    why: str


def deep_enough(config: AcceleratorConfig, models: Sequence[ModelConfig]) -> AcceleratorConfig:
    """The configuration with every field raised that a model finds too small, and no other.

    Raises:
        CompileError: no depth is enough; the message says why
    """
    for model in models:
        lacking = shortages(model, config)
        if impossible := [shortage.text for shortage in lacking if shortage.field is None]:
            raise CompileError("; ".join(impossible))
        raised: dict[str, Any] = {shortage.field: shortage.need for shortage in lacking if shortage.field is not None}
        config = dataclasses.replace(config, **raised)
    return config


def least_depths(config: AcceleratorConfig, models: Sequence[ModelConfig]) -> AcceleratorConfig:
    """The array of ``config`` with memories just as deep as the models need, rounded up to whole blocks.

    SCORE gets room for two groups of queries of the usual size, where its blocks and ``MAX_DEPTH`` allow.

    Raises:
        CompileError: no depth is enough
        ConfigError: a depth would be beyond what a configuration can have
    """
    tokens = max(model.num_tokens for model in models)
    small = dataclasses.replace(config, **_SMALLEST)
    found = deep_enough(small, models)
    score = 2 * _QUERIES * -(-tokens // config.lanes_k)
    found = dataclasses.replace(found, score_depth=max(found.score_depth, score))
    rounded: dict[str, Any] = {name: free_rows(getattr(found, name), config.ultra_ram) for name in _DEPTHS}
    widest = -(-found.max_dim // _DIM_STEP) * _DIM_STEP
    return dataclasses.replace(found, **rounded, max_dim=max(widest, config.epilogue_lanes))


def nearest(config: AcceleratorConfig, models: Sequence[ModelConfig], board: Board) -> AcceleratorConfig:
    """The configuration nearest to ``config`` that takes the models and fits the board's FPGA by the resource model.

    First too small fields are raised. If the FPGA is full then, all other memories shrink to what the models need; if
    that is not enough, the array does too, as little as possible.

    Raises:
        CompileError: none takes the models on this FPGA; the message says what is lacking
    """
    family = board.device.family
    if config.dsp_chain != CHAINS[family]:
        config = dataclasses.replace(config, dsp_chain=CHAINS[family])
    reasons: list[str] = []
    for array in smaller_arrays(config):
        for adapt in (deep_enough, least_depths):
            try:
                found = adapt(array, models)
            except (CompileError, ConfigError) as error:
                reasons.append(str(error))
                continue
            if full := over(estimate(found, family), board.device):
                reasons.append(f"{found.lanes_k} x {found.lanes_n} takes {', '.join(full)} of {board.device.name}")
            elif left := [problem for model in models for problem in fits(model, found)]:
                reasons.append("; ".join(left))
            else:
                return found
    names = ", ".join(model.name for model in models)
    raise CompileError(f"no configuration like {config.name} takes {names} on {board.name}: {reasons[-1]}")


def smaller_arrays(config: AcceleratorConfig) -> list[AcceleratorConfig]:
    """``config`` and those with fewer lanes, the largest arrays first."""
    found = [config]
    for lanes_k in (config.lanes_k, config.lanes_k // 2, config.lanes_k // 4):
        for lanes_n in range(config.lanes_n, 0, -config.epilogue_lanes):
            if (lanes_k, lanes_n) == (config.lanes_k, config.lanes_n):
                continue
            epilogue = min(config.epilogue_lanes, lanes_k)
            try:
                found.append(
                    dataclasses.replace(
                        config,
                        lanes_k=lanes_k,
                        lanes_n=lanes_n,
                        epilogue_lanes=epilogue,
                        norm_lanes=min(config.norm_lanes, epilogue),
                    )
                )
            except ConfigError:
                continue
    return sorted(found, key=lambda other: -other.macs_per_cycle)


def changes(asked: AcceleratorConfig, found: AcceleratorConfig, models: Sequence[ModelConfig]) -> list[Change]:
    """What was changed, and for which reason."""
    names = ", ".join(model.name for model in models)
    reasons = {
        shortage.field: shortage.text for model in models for shortage in shortages(model, asked) if shortage.field
    }
    result = []
    for field in dataclasses.fields(AcceleratorConfig):
        before, after = getattr(asked, field.name), getattr(found, field.name)
        if before == after or field.name == "name":
            continue
        if field.name in reasons:
            why = reasons[field.name]
        elif field.name.startswith("lanes") or field.name in ("epilogue_lanes", "norm_lanes"):
            why = "the FPGA is full otherwise"
        elif field.name == "dsp_chain":
            why = "what the FPGA's multipliers allow"
        elif after < before:
            why = f"as much as {names} needs"
        else:
            why = f"what {names} needs with this array"
        result.append(Change(field.name, before, after, why))
    return result
