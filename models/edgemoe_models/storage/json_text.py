"""Reading JSON that somebody else wrote, with limits: size, depth, numbers that are none, keys that come twice."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from pathlib import Path
from typing import Any, NoReturn

__all__ = ["DEEPEST", "LARGEST", "JsonError", "parse_json", "read_json"]

LARGEST = 32 << 20
"""Bytes that a JSON text may have."""
DEEPEST = 32
"""Lists and objects that may lie within each other."""

_DIGITS = 25  # of a number, at most: 64-bit integers have 20, floats as Python writes them 17
_STRING = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)  # an unfinished one too: then nothing is tried twice
_BRACKET = re.compile(r"[\[\]{}]")
_LONG_NUMBER = re.compile(rf"\d{{{_DIGITS + 1}}}")
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


class JsonError(ValueError):
    """A text is not JSON as the project writes it."""


def parse_json(text: str | bytes, largest: int = LARGEST) -> Any:
    """The value of a JSON text; floats are finite, keys of an object differ, strings are proper Unicode.

    Raises:
        JsonError: it is not JSON, or beyond the limits; the message does not know the file
    """
    if len(text) > largest:
        raise JsonError(f"it has {len(text):,} bytes of JSON, and at most {largest:,} are read")
    try:
        text = text if isinstance(text, str) else text.decode()
        _check_structure(text)
        value = json.loads(
            text, parse_constant=_refuse_constant, parse_float=_finite, object_pairs_hook=_different_keys
        )
        if _SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeError:
        raise JsonError("it is not text in UTF-8") from None
    except json.JSONDecodeError as error:
        raise JsonError(f"it is not JSON: {error}") from None
    return value


def read_json(path: Path | str, largest: int = LARGEST) -> Any:
    """The value of a JSON file.

    Raises:
        FileNotFoundError: there is no such file
        JsonError: it cannot be read, or ``parse_json`` refuses it; the message names the file
    """
    try:
        with Path(path).open("rb") as file:
            content = file.read(largest + 1)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise JsonError(f"{path}: cannot be read ({error})") from None
    try:
        return parse_json(content, largest)
    except JsonError as error:
        raise JsonError(f"{path}: {error}") from None


def _check_structure(text: str) -> None:
    """Refuse what would exhaust the parser's stack, or its time: a long integer takes the square of its length."""
    bare = _STRING.sub("", text)
    if _LONG_NUMBER.search(bare):
        raise JsonError(f"a number in it has more than {_DIGITS} digits")
    depth = 0
    for bracket in _BRACKET.finditer(bare):
        depth += 1 if bracket[0] in "[{" else -1
        if depth > DEEPEST:
            raise JsonError(f"its lists and objects lie more than {DEEPEST} deep within each other")


def _refuse_constant(name: str) -> NoReturn:
    raise JsonError(f"it holds {name}, which is no finite number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise JsonError(f"it holds {text[:20]}, which is no finite number")
    return value


def _different_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise JsonError(f"the key {twice[:40]!r} comes twice in one object")
    return result
