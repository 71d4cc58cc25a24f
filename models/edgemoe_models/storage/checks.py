"""Checking values that were read from a file: exact JSON types and ranges, and messages that name the field.

A bool is no integer here, an integer is a number but a number is no integer, and nothing infinite is a number.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

__all__ = ["FieldError", "boolean", "integer", "items", "number", "record", "shown", "text"]

_SHOWN = 60


class FieldError(ValueError):
    """A field of a file has the wrong type or is out of range; the message begins with its name."""


def shown(value: object) -> str:
    """A value for a message: its representation, cut off where it is long."""
    written = repr(value)
    return written if len(written) <= _SHOWN else f"{written[:_SHOWN]}…"


def integer(value: object, name: str, low: int, high: int) -> int:
    """``value`` if it is an integer in ``low`` .. ``high``."""
    if type(value) is not int or not low <= value <= high:
        raise FieldError(f"{name} must be an integer in {low}..{high}, not {shown(value)}")
    return value


def number(value: object, name: str, low: float = -math.inf, high: float = math.inf) -> float:
    """``value`` as a float if it is a finite number in ``low`` .. ``high``."""
    if type(value) in (int, float):
        try:
            result = float(value)  # type: ignore[arg-type]
        except OverflowError:
            result = math.inf
        if math.isfinite(result) and low <= result <= high:
            return result
    limits = "" if low == -math.inf and high == math.inf else f" in {low:g}..{high:g}"
    raise FieldError(f"{name} must be a finite number{limits}, not {shown(value)}")


def boolean(value: object, name: str) -> bool:
    """``value`` if it is true or false."""
    if type(value) is not bool:
        raise FieldError(f"{name} must be true or false, not {shown(value)}")
    return value


def text(value: object, name: str, longest: int = 200) -> str:
    """``value`` if it is a string that can be printed on one line."""
    if type(value) is not str or len(value) > longest or not value.isprintable():
        raise FieldError(f"{name} must be a line of at most {longest} characters, not {shown(value)}")
    return value


def items(value: object, name: str, low: int = 0, high: int = 1 << 20) -> list[Any]:
    """``value`` if it is a list of ``low`` .. ``high`` items."""
    if type(value) is not list:
        raise FieldError(f"{name} must be a list, not {shown(value)}")
    if not low <= len(value) <= high:
        wanted = str(low) if low == high else f"{low}..{high}"
        raise FieldError(f"{name} must have {wanted} items, not {len(value)}")
    return value


def record(value: object, name: str, keys: Iterable[str], others: bool = False) -> dict[str, Any]:
    """``value`` if it is an object with exactly these keys; ``others``: it may have more."""
    if type(value) is not dict:
        raise FieldError(f"{name} must be an object, not {shown(value)}")
    wanted = set(keys)
    if missing := sorted(wanted - set(value)):
        raise FieldError(f"{name} lacks {', '.join(missing[:5])}")
    if not others and (unknown := sorted(set(value) - wanted)):
        raise FieldError(f"{name} must have no {shown(unknown[0])}")
    return value
