"""Reading TOML that somebody else wrote, with limits."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

__all__ = ["TomlError", "parse_toml", "read_toml"]

_LARGEST = 1 << 20


class TomlError(ValueError):
    """A file is not readable as TOML."""


def parse_toml(text: str) -> dict[str, Any]:
    """The keys of a TOML text; TomlError, which does not know the file, if it is none."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        try:
            import tomli as tomllib
        except ImportError:
            raise TomlError("TOML needs Python 3.11 or newer, or: pip install tomli") from None
    try:
        keys: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise TomlError(f"not readable as TOML: {error}") from None
    except (RecursionError, ValueError):  # ValueError: a number of thousands of digits, a date that there is not
        raise TomlError("not readable as TOML: a value is nested too deep, or impossible") from None
    return keys


def read_toml(path: Path | str) -> dict[str, Any]:
    """The keys of a TOML file; TomlError, which does not name it, if it cannot be read."""
    try:
        with Path(path).open("rb") as file:
            content = file.read(_LARGEST + 1)
        if len(content) > _LARGEST:
            raise TomlError(f"it has more than {_LARGEST:,} bytes of TOML")
        return parse_toml(content.decode())
    except TomlError:
        raise
    except (OSError, ValueError) as error:
        raise TomlError(f"not readable as TOML: {error}") from None
