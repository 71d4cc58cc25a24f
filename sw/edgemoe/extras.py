"""The command that installs an extra's packages *here*.

edgemoe is on no package index, so a command that only has its name would fail. What it was installed from is known: a
checkout of the sources, or the file of a wheel, which pip notes (PEP 610).
"""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from urllib.parse import unquote, urlsplit

__all__ = ["install_command", "installed_from"]

_CHECKOUT = Path(__file__).parents[2]


def install_command(*extras: str, source: Path | None = None) -> str:
    """The shell command that installs ``extras`` for the code that is running.

    Args:
        extras: names of pyproject's optional dependencies
        source: a checkout or a wheel's file; by default what ``installed_from`` finds
    """
    source = source or installed_from()
    chosen = f"[{','.join(extras)}]"
    if source is None:
        return f"pip install {shlex.quote('edgemoe-VERSION-py3-none-any.whl' + chosen)} (with the file's path)"
    if source.is_dir():
        name = "." if source == Path.cwd() else str(source)
        return f"pip install -e {shlex.quote(name + chosen)}"
    return f"pip install {shlex.quote(str(source) + chosen)}"


def installed_from(checkout: Path = _CHECKOUT) -> Path | None:
    """The checkout or the wheel's file that the running code is from; None where neither is there any more."""
    if (checkout / "pyproject.toml").is_file() and (checkout / "sw" / "edgemoe").is_dir():
        return checkout
    from importlib import metadata  # slow to import, and only a message needs it

    try:
        note = metadata.distribution("edgemoe").read_text("direct_url.json")
        url = urlsplit(json.loads(note or "{}").get("url", ""))
    except (metadata.PackageNotFoundError, ValueError, AttributeError):
        return None
    path = Path(unquote(url.path))
    return path if url.scheme == "file" and path.exists() else None
