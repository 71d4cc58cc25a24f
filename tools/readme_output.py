"""README.md's output of ``make sim``, between two comments, as ``edgemoe sim`` prints it, and its pictures.

Usage: ``python tools/readme_output.py [--check]``

The simulation's cycles and metrics are the same everywhere; what depends on the machine is not quoted.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import re
import sys
import tempfile
from pathlib import Path

from edgemoe.cli.main import run
from edgemoe_models.storage.atomic import write_bytes, write_text

__all__ = ["PICTURES", "README", "quoted", "simulated", "update"]

README = Path(__file__).parents[1] / "README.md"
PICTURES = README.parent / "docs" / "images"
_BEGIN = "<!-- Printed by `make sim`; written by `python tools/readme_output.py` -->\n```\n"
_END = "```\n<!-- end of what is printed -->\n"
_BLOCK = re.compile(f"{re.escape(_BEGIN)}(.*?){re.escape(_END)}", re.DOTALL)
_MACHINES_OWN = re.compile(r"; simulated [\d,]+ k cycles/s$")


def simulated() -> tuple[str, dict[str, bytes]]:
    """What ``edgemoe sim`` prints now, without what depends on the machine and on the folder; its pictures by name.

    Raises:
        RuntimeError: it failed
    """
    text = io.StringIO()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(text):
        if code := run(["sim", "--out", folder]):
            raise RuntimeError(f"edgemoe sim ended with code {code}")
        found = {path.stem.split("-")[-2]: path.read_bytes() for path in Path(folder).glob("*-0.png")}
    *lines, place = text.getvalue().splitlines()
    assert "report and pictures are in" in place
    text_of_all = "".join(f"{_MACHINES_OWN.sub('', line)}\n" for line in lines)
    return text_of_all, {f"sim-{task}.png": content for task, content in found.items()}


def quoted(page: str) -> str:
    """What a page quotes.

    Raises:
        ValueError: it has not exactly one block
    """
    blocks = _BLOCK.findall(page)
    if len(blocks) != 1:
        raise ValueError(
            f"there must be one block that begins with {_BEGIN!r} and ends with {_END!r}, not {len(blocks)}"
        )
    return str(blocks[0])


def update(page: str, text: str) -> str:
    """The page with another quotation."""
    quoted(page)
    return _BLOCK.sub(lambda match: _BEGIN + text + _END, page)


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python tools/readme_output.py", description="README's output of make sim.")
    parser.add_argument("--check", action="store_true", help="write nothing, only compare")
    page, (text, pictures) = README.read_text(encoding="utf-8"), simulated()
    if not parser.parse_args(arguments).check:
        write_text(README, update(page, text))
        for name, content in pictures.items():
            write_bytes(PICTURES / name, content)
    elif quoted(page) != text:
        sys.stderr.write(f"README.md quotes another output than:\n{text}run python tools/readme_output.py\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
