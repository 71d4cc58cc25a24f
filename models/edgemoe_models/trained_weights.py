"""Where the trained float weights of the presets are: in the package."""

from __future__ import annotations

from pathlib import Path

__all__ = ["weights_path"]


def weights_path(name: str) -> Path:
    """Where a preset's trained weights are, if there are any."""
    return Path(__file__).parent / "weights" / f"{name}.safetensors"
