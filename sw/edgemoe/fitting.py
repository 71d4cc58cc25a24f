"""Which configurations and boards take a model, in words: from the model's shape, before it is quantized."""

from __future__ import annotations

import functools

from edgemoe.boards.board import configuration_names, load_board
from edgemoe.compiler.errors import CompileError
from edgemoe.compiler.fits import fits, shortages
from edgemoe.configs import CONFIGS
from edgemoe.reports.tables import TextTable
from edgemoe_hw.spec.config import AcceleratorConfig
from edgemoe_models.config import ModelConfig

__all__ = ["advice", "fit_table", "fitting_configs", "require_fit"]


def require_fit(model: ModelConfig, config: AcceleratorConfig, expert_bits: int = 8) -> None:
    """Refuse a model whose shape does not fit.

    Raises:
        CompileError: names all limits, and the configurations that take the model
    """
    if problems := fits(model, config, expert_bits=expert_bits):
        raise CompileError(f"{model.name} does not fit {config.name}: {'; '.join(problems)}. {advice(model)}")


def fitting_configs(model: ModelConfig) -> list[str]:
    """Names of the presets and boards that take a model of this shape."""
    return [name for name, problems in _problems(model).items() if not problems]


def fit_table(model: ModelConfig) -> TextTable:
    """Each preset and board with what it lacks for a model of this shape: fields of its configuration, and values."""
    table = TextTable("", ["configuration", "fits", "needs (has)"])
    for name, problems in _problems(model).items():
        config = _shipped()[name]
        fields = {shortage.field: shortage.need for shortage in shortages(model, config) if shortage.field is not None}
        needs = [f"{field} {need:,} ({getattr(config, field):,})" for field, need in fields.items()]
        if any(shortage.field is None for shortage in shortages(model, config)):
            needs = ["more than any configuration can have"]
        elif problems and not needs:
            needs = ["another arrangement: " + "; ".join(problems)]
        table.add(name, "no" if problems else "yes", needs[0] if needs else "")
        for need in needs[1:]:
            table.add("", "", need)
    return table


@functools.lru_cache(maxsize=8)
def _problems(model: ModelConfig) -> dict[str, tuple[str, ...]]:
    """Of each preset and board, what keeps a model of this shape from being compiled."""
    return {name: tuple(fits(model, config)) for name, config in _shipped().items()}


def advice(model: ModelConfig) -> str:
    """Where the model fits, or what a configuration would need."""
    if names := fitting_configs(model):
        return f"It fits {', '.join(names)}"
    nearest = min(_shipped().values(), key=lambda config: _distance(model, config))
    lacking = shortages(model, nearest)
    if impossible := [shortage.text for shortage in lacking if shortage.field is None]:
        return f"No configuration takes it: {'; '.join(impossible)}"
    changes = {shortage.field: shortage.need for shortage in lacking if shortage.field is not None}
    if problems := fits(model, AcceleratorConfig.from_dict(nearest.to_dict() | changes)):
        found = "; ".join([*(shortage.text for shortage in lacking), *problems])
        return f"No board's configuration takes it; {nearest.name} comes nearest: {found}"
    wanted = ", ".join(f"{field} = {value}" for field, value in changes.items())
    return (
        f"No board's configuration takes it; one of your own would, e.g. {nearest.name} with {wanted} "
        "(a JSON file as --config), if your FPGA holds it"
    )


def _shipped() -> dict[str, AcceleratorConfig]:
    """Presets and boards by name; a preset that a board is called after is that board's."""
    return {**CONFIGS, **{name: load_board(name).config for name in configuration_names()}}


def _distance(model: ModelConfig, config: AcceleratorConfig) -> float:
    """By how much the largest shortage exceeds what is there."""
    ratios = [
        shortage.need / getattr(config, shortage.field) if shortage.field else float("inf")
        for shortage in shortages(model, config)
    ]
    return max(ratios, default=1.0)
