"""What a field of a model's config may be: limits and checks. Needs neither NumPy nor torch."""

from __future__ import annotations

import dataclasses
from typing import Any

from edgemoe_models.storage.checks import shown

#: The most of everything: well above any published vision transformer of the sizes that fit an FPGA, and low enough
#: that a damaged or hostile file cannot make a loop endless. Whatever a config says is held against the tensors of
#: its file before memory is allocated for it.
LIMITS = {
    "image_height": 8192,
    "image_width": 8192,
    "patch": 256,
    "dim": 8192,
    "depth": 256,
    "heads": 256,
    "mlp_hidden": 65536,
    "num_experts": 256,
    "top_k": 16,
    "expert_hidden": 65536,
    "moe_every": 256,
    "tasks": 32,
    "channels": 65536,
    "head_hidden": 65536,
    "cells": 256,
    "prefix_tokens": 256,
    "num_tokens": 65536,
    "head_outputs": 1 << 20,
}
_LONGEST_NAME = 64
_LONGEST_LABEL = 256


def require_int(owner: str, field: str, value: object, minimum: int) -> None:
    """Raise ValueError unless a field is an integer of at least ``minimum`` and within ``LIMITS``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise ValueError(f"{owner}.{field} must be an integer of at least {minimum}, not {shown(value)}")
    if value > LIMITS[field]:
        raise ValueError(f"{owner}.{field} must be at most {LIMITS[field]}, not {shown(value)}")


def require_name(owner: str, value: object) -> None:
    """Raise ValueError unless a name can be part of files' and tensors' names."""
    is_name = isinstance(value, str) and value.replace("-", "_").isidentifier() and value.isascii()
    if not is_name or len(str(value)) > _LONGEST_NAME:
        raise ValueError(
            f"{owner}.name must be letters, digits, '_' and '-', at most {_LONGEST_NAME}, not {shown(value)}"
        )


def require_labels(labels: object, kind: str, channels: int) -> None:
    """Raise ValueError unless labels name the classes of a task of this kind, or there are none."""
    if not isinstance(labels, tuple) or not all(isinstance(label, str) for label in labels):
        raise ValueError(f"TaskConfig.labels must be a tuple of texts, not {shown(labels)}")
    if labels and (kind not in ("classification", "segmentation") or len(labels) != channels):
        raise ValueError(f"TaskConfig.labels must name the {channels} classes of a {kind}, not be {len(labels)}")
    for label in labels:  # they go to terminals and into pictures
        if not 1 <= len(label) <= _LONGEST_LABEL or not label.isprintable():
            raise ValueError(
                f"TaskConfig.labels must be 1 to {_LONGEST_LABEL} printable letters each, not {shown(label)}"
            )


def require_fields(cls: type, data: object) -> dict[str, Any]:
    """A dataclass's fields from a JSON object; ValueError where some are missing or unknown."""
    if not isinstance(data, dict):
        raise ValueError(f"{cls.__name__} must be a JSON object, not {shown(data)}")
    known = {field.name for field in dataclasses.fields(cls)}
    if unknown := sorted(set(data) - known):
        raise ValueError(f"{cls.__name__}'s fields must be among {sorted(known)}, not {shown(unknown)}")
    required = {f.name for f in dataclasses.fields(cls) if f.default is dataclasses.MISSING}
    if missing := sorted(required - set(data)):
        raise ValueError(f"{cls.__name__} must have the fields {missing!r}, not only {shown(sorted(data))}")
    return dict(data)
