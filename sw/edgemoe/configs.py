"""Configurations by name: presets, boards and JSON files."""

from __future__ import annotations

from pathlib import Path

from edgemoe.boards.board import configuration_names, load_board
from edgemoe_hw.spec.config import PRESETS as CONFIGS
from edgemoe_hw.spec.config import AcceleratorConfig, ConfigError
from edgemoe_models.storage.json_text import JsonError, read_json

__all__ = ["CONFIGS", "find_config"]


def find_config(name: str) -> AcceleratorConfig:
    """A preset's or a board's name, or a JSON file; ConfigError otherwise."""
    if name in CONFIGS:
        return CONFIGS[name]
    path = Path(name)
    if path.is_file():
        try:
            return AcceleratorConfig.from_dict(read_json(path))
        except JsonError as error:
            raise ConfigError(str(error)) from None
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None
    if name in configuration_names():
        return load_board(name).config
    names = dict.fromkeys([*CONFIGS, *configuration_names()])
    raise ConfigError(f"config must be one of {', '.join(names)}, or a JSON file, not {name!r}")
