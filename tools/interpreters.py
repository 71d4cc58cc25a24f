"""Python interpreters of this machine: on PATH, pyenv's and uv's.

Usage: ``python tools/interpreters.py 3.10 3.13`` prints the path of each, an empty line for one that is missing.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

__all__ = ["find_python"]


def find_python(version: str) -> Path | None:
    """An interpreter of a version such as ``3.10`` that starts; None where there is none."""
    for candidate in _candidates(version):
        code = "import sys; print('%d.%d' % sys.version_info[:2])"
        try:
            found = subprocess.run([candidate, "-I", "-c", code], capture_output=True, text=True, timeout=60)
        except (OSError, subprocess.TimeoutExpired):
            continue
        if found.stdout.strip() == version:  # a shim of pyenv's may be of none or another
            return candidate
    return None


def _candidates(version: str) -> Iterator[Path]:
    if found := shutil.which(f"python{version}"):
        yield Path(found)
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    data = Path(os.environ.get("XDG_DATA_HOME", Path.home() / ".local" / "share"))
    uv = Path(os.environ.get("UV_PYTHON_INSTALL_DIR", data / "uv" / "python"))
    for folder in sorted([*pyenv.glob(f"{version}.*"), *uv.glob(f"cpython-{version}.*")], reverse=True):
        yield folder / "bin" / f"python{version}"


def main(versions: list[str]) -> int:
    """Command line; returns the exit status."""
    for version in versions:
        print(find_python(version) or "")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
