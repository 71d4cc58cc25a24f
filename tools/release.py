"""The text of a release's annotated tag, made of the changelog, once everything says the same version.

Usage: ``git tag -a v$(edgemoe --version | cut -d' ' -f2) -F <(python tools/release.py)``  (docs/release.md)
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

__all__ = ["problems", "tag_text", "version"]

_VERSION = re.compile(r'^__version__ = "(.*)"$', re.M)


def version(root: Path = ROOT) -> str:
    """The version, from its only place."""
    match = _VERSION.search((root / "sw" / "edgemoe" / "version.py").read_text(encoding="utf-8"))
    if match is None:
        raise ValueError("sw/edgemoe/version.py has no __version__")
    return match[1]


def _sections(root: Path) -> dict[str, tuple[str, str]]:
    """Date (empty where there is none) and text of each version in CHANGELOG.md."""
    text = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    parts = re.split(r"^## \[(.+?)\](?: - (\S+))?\n", text, flags=re.M)[1:]
    return {
        name: (date or "", body.strip()) for name, date, body in zip(parts[::3], parts[1::3], parts[2::3], strict=True)
    }


def problems(root: Path = ROOT) -> list[str]:
    """What must be mended before a tag, one line each."""
    number, found = version(root), []
    sections = _sections(root)
    date, body = sections.get(number, ("", ""))
    if not body:
        found.append(f"CHANGELOG.md has nothing about {number}")
    elif not re.fullmatch(r"\d{4}-\d{2}-\d{2}", date):
        found.append(f"CHANGELOG.md has no date beside [{number}]: ## [{number}] - 2026-01-31")
    if sections.get("Unreleased", ("", ""))[1]:
        found.append(f"CHANGELOG.md has unreleased lines: move them below [{number}]")
    citation = (root / "CITATION.cff").read_text(encoding="utf-8")
    if f"\nversion: {number}\n" not in citation:
        found.append(f"CITATION.cff has another version than {number}")
    return found


def tag_text(root: Path = ROOT) -> str:
    """Subject, a blank line, and the changelog's section as plain text: git drops lines that begin with ``#``."""
    number = version(root)
    date, body = _sections(root)[number]
    body = re.sub(r"^### (.*)$", r"\1:", body, flags=re.M)
    body = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", body).replace("**", "")
    return f"edgemoe {number}\n\nReleased {date}.\n\n{body}\n"


def main() -> int:
    """Command line; returns the exit status."""
    if found := problems():
        print(*(f"release: {line}" for line in found), sep="\n", file=sys.stderr)
        return 1
    print(tag_text(), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
